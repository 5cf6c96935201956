//! `[service.NAME]`.

use std::collections::BTreeSet;

use super::{Place, Problems, at_least_one, check, hooks, image, needs, parse, parse_or, refer, secrets};
use crate::spec::{CircuitFile, HealthFile, HealthSpec, IoFile, ServiceFile, ServiceSpec, SpecFile};
use crate::{BadCapability, ByteSize, Capability, Circuit, IoLimits, Limits, Millis, Probe, Protocol};

/// More instances of one service than this on one host are a slip of the finger.
const MOST_INSTANCES: u32 = 10_000;
/// Less memory than this, and not even a static program starts.
const LEAST_MEMORY: ByteSize = ByteSize(1 << 20);

/// A service of the spec `all`.
pub(super) fn service(
    file: &ServiceFile,
    all: &SpecFile,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> Option<ServiceSpec> {
    let images: Vec<&str> = all.image.keys().map(String::as_str).collect();
    let known = refer(&["image"], &file.image, &images, &place.key("image"), problems);
    check::is_port(file.port, &place.key("port"), problems);
    image::environment(&file.env, &place.key("env"), problems);
    let needs = needs::needs(file, all, place, problems);
    let limits = limits(file, place, problems);
    let protocol = protocol(file.protocol.as_ref(), &place.key("protocol"), problems);
    let health = health(file.health.as_ref(), &place.key("health"), problems);
    let instances = instances(file, &place.key("instances"), problems);
    // A name that is in the table and is no name has been reported there.
    let image = if known { file.image.parse().ok()? } else { return None };
    let secrets = secrets::secrets(file, place, problems);
    let capabilities = capabilities(&file.capabilities, &place.key("capabilities"), problems);
    let circuit = circuit(file.circuit.as_ref(), &place.key("circuit"), problems);
    Some(ServiceSpec {
        circuit,
        image,
        port: file.port,
        protocol,
        instances,
        limits,
        env: file.env.clone(),
        health,
        secrets,
        needs,
        hooks: hooks::hooks(file.hooks.as_ref(), &place.key("hooks"), problems),
        capabilities,
    })
}

fn capabilities(written: &[String], place: &Place, problems: &mut Problems<'_, '_>) -> BTreeSet<Capability> {
    let mut all = BTreeSet::new();
    for (index, name) in written.iter().enumerate() {
        let place = place.item(index);
        match name.parse::<Capability>() {
            Ok(capability) if !all.insert(capability) => {
                problems.value(&place, format!("`{capability}` is named twice"));
            }
            Ok(_) => {}
            Err(e) => {
                let found = problems.value(&place, e.to_string());
                let names = Capability::ALL.map(Capability::as_str);
                let list: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                found.expected(list.join(", "));
                if matches!(e, BadCapability::Unknown(_)) {
                    found.nearest(&name.to_uppercase(), names);
                }
            }
        }
    }
    all
}

fn protocol(written: Option<&String>, place: &Place, problems: &mut Problems<'_, '_>) -> Protocol {
    match written.map(String::as_str) {
        None | Some("http1") => Protocol::Http1,
        Some("h2c") => Protocol::H2c,
        Some(other) => {
            let message = format!("there is no protocol `{other}`");
            problems.value(place, message).expected("`http1` or `h2c`").nearest(other, ["http1", "h2c"]);
            Protocol::Http1
        }
    }
}

fn instances(file: &ServiceFile, place: &Place, problems: &mut Problems<'_, '_>) -> u32 {
    let instances = at_least_one(file.instances, 1, place, problems);
    if instances > MOST_INSTANCES {
        problems
            .value(place, format!("{instances} instances are more than one host carries"))
            .expected(format!("1 to {MOST_INSTANCES}"));
    }
    instances
}

fn circuit(written: Option<&CircuitFile>, place: &Place, problems: &mut Problems<'_, '_>) -> Option<Circuit> {
    let written = written?;
    let in_flight = at_least_one(Some(written.in_flight), 1, &place.key("in_flight"), problems);
    let queue_time = span(written.queue_time.as_ref(), 1_000, &place.key("queue_time"), problems);
    let queue = written.queue.unwrap_or(in_flight);
    Some(Circuit { in_flight: in_flight.into(), queue: queue.into(), queue_time })
}

fn limits(file: &ServiceFile, place: &Place, problems: &mut Problems<'_, '_>) -> Limits {
    let memory_place = place.key("memory");
    let memory = parse_or(file.memory.as_ref(), ByteSize(128 << 20), &memory_place, problems);
    if memory < LEAST_MEMORY {
        problems
            .value(&memory_place, format!("nothing runs in {memory} of memory"))
            .expected(format!("{LEAST_MEMORY} or more"));
    }
    let cpu = file.cpu.unwrap_or(1.0);
    if !(0.01..=1024.0).contains(&cpu) {
        problems
            .value(&place.key("cpu"), format!("`{cpu}` is no share of CPUs"))
            .expected("0.01 to 1024, where 1.0 is one CPU");
    }
    // In range by the check above; a float outside of it saturates.
    let cpu_millis = (cpu * 1000.0).round() as u32;
    let pids = at_least_one(file.pids, 256, &place.key("pids"), problems);
    if pids > MOST_PIDS {
        let place = place.key("pids");
        problems
            .value(&place, format!("no kernel has {pids} processes"))
            .expected(format!("1 to {MOST_PIDS}"));
    }
    Limits { memory, cpu_millis, pids, io: io(file.io.as_ref(), &place.key("io"), problems) }
}

/// Less than this in a second, and no program gets as far as its first line.
const LEAST_READ: ByteSize = ByteSize(64 << 10);

/// The kernel's `PID_MAX_LIMIT`.
const MOST_PIDS: u32 = 4 << 20;

fn io(file: Option<&IoFile>, place: &Place, problems: &mut Problems<'_, '_>) -> Option<IoLimits> {
    let file = file?;
    let read: Option<ByteSize> =
        file.read.as_ref().and_then(|text| parse(text, &place.key("read"), problems));
    if read.is_some_and(|read| read < LEAST_READ) {
        let place = place.key("read");
        problems.value(&place, "nothing starts with so little").expected(format!("{LEAST_READ} or more"));
    }
    let reads = file.reads.map(|reads| at_least_one(Some(reads), 1, &place.key("reads"), problems));
    if file.read.is_none() && reads.is_none() {
        problems
            .value(place, "nothing is limited by it")
            .expected("`read = \"20MiB\"` (bytes a second), `reads = 1000` (requests a second), or both");
    }
    Some(IoLimits { read, reads })
}

fn health(file: Option<&HealthFile>, place: &Place, problems: &mut Problems<'_, '_>) -> HealthSpec {
    let file = &file.cloned().unwrap_or_default();
    let interval = span(file.interval.as_ref(), 500, &place.key("interval"), problems);
    let timeout = span(file.timeout.as_ref(), 1_000, &place.key("timeout"), problems);
    let start_timeout = span(file.start_timeout.as_ref(), 30_000, &place.key("start_timeout"), problems);
    HealthSpec {
        probe: probe(file, place, problems),
        interval,
        timeout,
        healthy_after: at_least_one(file.healthy_after, 2, &place.key("healthy_after"), problems),
        unhealthy_after: at_least_one(file.unhealthy_after, 3, &place.key("unhealthy_after"), problems),
        start_timeout,
    }
}

/// A span of time in which something can happen.
pub(super) fn span(
    text: Option<&String>,
    default: u64,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> Millis {
    let span: Option<Millis> = text.and_then(|text| parse(text, place, problems));
    if span.is_some_and(|s| s.0 < 10) {
        problems.value(place, format!("`{place}` is too short")).expected("10ms or more");
    }
    span.unwrap_or(Millis(default))
}

fn probe(file: &HealthFile, place: &Place, problems: &mut Problems<'_, '_>) -> Probe {
    let ways = usize::from(file.http.is_some())
        + usize::from(file.tcp == Some(true))
        + usize::from(file.exec.is_some());
    if ways > 1 {
        problems.value(place, "instances are asked in one way").expected("either `http`, `tcp` or `exec`");
    }
    if let Some(path) = &file.http {
        let contains = file.contains.as_ref();
        return Probe::Http(check::probe(path, file.status, contains, &place.key("http"), place, problems));
    }
    if file.tcp == Some(false) && file.exec.is_none() {
        problems
            .value(&place.key("tcp"), "no way is left to ask")
            .expected("`tcp = true`, `http = \"/\"` or `exec = [\"…\"]`");
    }
    for (key, given) in [("status", file.status.is_some()), ("contains", file.contains.is_some())] {
        if given {
            let message = format!("`{key}` is asked of an HTTP answer, and there is none");
            problems.key(&place.key(key), message).expected("`http = \"/\"` beside it");
        }
    }
    match &file.exec {
        Some(argv) => {
            if argv.first().is_none_or(String::is_empty) {
                problems
                    .value(&place.key("exec"), "there is no command")
                    .expected("a program and its arguments");
            }
            Probe::Exec { argv: argv.clone() }
        }
        None => Probe::Tcp,
    }
}
