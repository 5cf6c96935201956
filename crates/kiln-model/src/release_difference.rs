//! What differs between two releases.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Circuit, HookMoment, ImageDigest, PackageRef, PinnedSecret, Release, ReleaseService, ServiceName,
    Volatile,
};

/// Which part of a release differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A service as a whole.
    Service,
    /// The image of a service.
    Image,
    /// A package of an image.
    Package,
    /// A path of an image.
    File,
    /// How the main process is run: its arguments, user, directory, signals.
    Run,
    /// An environment variable.
    Env,
    /// The version of a secret, or how it is given.
    Secret,
    /// What an instance may use.
    Limit,
    /// What its processes may do beyond others.
    Capability,
    /// How many instances there are.
    Instances,
    /// The port instances listen on.
    Port,
    /// Where instances may write.
    Volatile,
    /// How instances are asked whether they are well.
    Health,
    /// A check the image has passed.
    Check,
    /// What is run once when the release takes over.
    Hook,
    /// A route.
    Route,
    /// How the release takes over.
    Deploy,
    /// A rule of policy that was kept.
    Policy,
    /// A part this page does not know by name.
    Other,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Service => "service",
            Self::Image => "image",
            Self::Package => "package",
            Self::File => "file",
            Self::Run => "run",
            Self::Env => "env",
            Self::Secret => "secret",
            Self::Limit => "limit",
            Self::Capability => "capability",
            Self::Instances => "instances",
            Self::Port => "port",
            Self::Volatile => "volatile",
            Self::Health => "health",
            Self::Check => "check",
            Self::Hook => "hook",
            Self::Route => "route",
            Self::Deploy => "deploy",
            Self::Policy => "policy",
            Self::Other => "other",
        })
    }
}

/// One difference. `old` is absent where something is new, `new` where it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The service, if it is one's.
    pub service: Option<ServiceName>,
    /// Which part.
    pub part: Part,
    /// What of it: a package, a path, a variable; empty if there is only one of its kind.
    pub name: String,
    /// What it was.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

impl Difference {
    /// The difference in words, without values of the environment: for those who may see that something changes
    /// and need not see to what.
    pub fn discreetly(&self) -> String {
        if self.part == Part::Env { format!("{}changed", self.subject()) } else { self.to_string() }
    }

    fn subject(&self) -> String {
        let mut words = String::new();
        if let Some(service) = &self.service {
            words.push_str(&format!("service {service}: "));
        }
        words.push_str(&self.part.to_string());
        words.push(' ');
        if !self.name.is_empty() {
            words.push_str(&format!("{} ", self.name));
        }
        words
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.subject();
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{subject}{old} → {new}"),
            (None, Some(new)) if new.is_empty() => write!(f, "{subject}added"),
            (None, Some(new)) => write!(f, "{subject}{new} added"),
            _ => write!(f, "{subject}removed"),
        }
    }
}

/// What is in an image, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its packages.
    pub packages: Vec<PackageRef>,
    /// Its paths, each with what it is in a few words (kind, mode, owner, digest).
    pub files: BTreeMap<String, String>,
}

/// The differences from `old` to `new`; `contents` finds what is known of an image.
pub fn differences(
    old: &Release,
    new: &Release,
    contents: &dyn Fn(&ImageDigest) -> Option<Contents>,
) -> Vec<Difference> {
    let mut found = Found { service: None, differences: Vec::new() };
    for name in both(&old.services, &new.services) {
        found.service = Some(name.clone());
        match (old.services.get(name), new.services.get(name)) {
            (Some(a), Some(b)) => service(&mut found, a, b, contents),
            (a, b) => found.note(Part::Service, "", a.map(image_of), b.map(image_of)),
        }
    }
    found.service = None;
    let route = |r: &crate::ReleaseRoute| {
        let host = r.host.as_ref().map_or("every host".to_owned(), ToString::to_string);
        let https = if r.https.is_default() { "" } else { ", only over https" };
        format!("{host} {} to {}{https}", r.path, r.service)
    };
    found.maps(Part::Route, &old.routes, &new.routes, route);
    found.maps(Part::Route, &old.tcp, &new.tcp, |r| format!("TCP port {} to {}", r.port, r.service));
    found.note(Part::Deploy, "drain", Some(old.drain.to_string()), Some(new.drain.to_string()));
    found.note(Part::Deploy, "keep_warm", Some(old.keep_warm.to_string()), Some(new.keep_warm.to_string()));
    let schema = |r: &Release| r.schema.map(|s| format!("{} to {}", s.oldest, s.newest));
    found.note(Part::Deploy, "schema", schema(old), schema(new));
    found.note(Part::Deploy, "strategy", Some(strategy(old)), Some(strategy(new)));
    found.sets(Part::Policy, &old.policy, &new.policy, |rule| rule.clone());
    found.the_rest(&rest_of_release(old), &rest_of_release(new));
    if found.differences.is_empty() {
        found.note(Part::Other, "encoding", Some(old.id().to_string()), Some(new.id().to_string()));
    }
    found.differences
}

struct Found {
    service: Option<ServiceName>,
    differences: Vec<Difference>,
}

impl Found {
    fn note(&mut self, part: Part, name: &str, old: Option<String>, new: Option<String>) {
        if old != new {
            let (service, name) = (self.service.clone(), name.to_owned());
            self.differences.push(Difference { service, part, name, old, new });
        }
    }

    fn maps<K: Ord + ToString, V>(
        &mut self,
        part: Part,
        old: &BTreeMap<K, V>,
        new: &BTreeMap<K, V>,
        words: impl Fn(&V) -> String,
    ) {
        for key in both(old, new) {
            self.note(part, &key.to_string(), old.get(key).map(&words), new.get(key).map(&words));
        }
    }

    fn sets<T: Ord>(
        &mut self,
        part: Part,
        old: &BTreeSet<T>,
        new: &BTreeSet<T>,
        words: impl Fn(&T) -> String,
    ) {
        for gone in old.difference(new) {
            self.note(part, &words(gone), Some(String::new()), None);
        }
        for added in new.difference(old) {
            self.note(part, &words(added), None, Some(String::new()));
        }
    }

    /// What this module does not know by name, so that nothing that makes another id can go unseen.
    fn the_rest(&mut self, old: &serde_json::Value, new: &serde_json::Value) {
        if let (Some(old), Some(new)) = (old.as_object(), new.as_object()) {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let text =
                    |v: &serde_json::Map<String, serde_json::Value>| v.get(key).map(ToString::to_string);
                self.note(Part::Other, key, text(old), text(new));
            }
        }
    }
}

fn both<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    a.keys().chain(b.keys()).collect()
}

fn image_of(service: &ReleaseService) -> String {
    service.image.short()
}

fn service(
    found: &mut Found,
    a: &ReleaseService,
    b: &ReleaseService,
    contents: &dyn Fn(&ImageDigest) -> Option<Contents>,
) {
    if a.image != b.image {
        found.note(Part::Image, "", Some(a.image.short()), Some(b.image.short()));
        if let (Some(a), Some(b)) = (contents(&a.image), contents(&b.image)) {
            let versions = |c: &Contents| -> BTreeMap<String, String> {
                c.packages.iter().map(|p| (p.name.clone(), p.version.clone())).collect()
            };
            found.maps(Part::Package, &versions(&a), &versions(&b), String::clone);
            found.maps(Part::File, &a.files, &b.files, String::clone);
        }
    }
    let (run_a, run_b) = (run(a), run(b));
    found.maps(Part::Run, &run_a, &run_b, String::clone);
    found.maps(Part::Env, &a.env, &b.env, String::clone);
    if a.run.env != b.run.env && a.env == b.env {
        let names = |s: &ReleaseService| s.run.env.keys().cloned().collect::<Vec<_>>().join(" ");
        found.note(Part::Env, "(of the image, overlaid)", Some(names(a)), Some(names(b)));
    }
    found.maps(Part::Secret, &a.secrets, &b.secrets, secret);
    found.maps(Part::Limit, &limits(a), &limits(b), String::clone);
    found.sets(Part::Capability, &a.capabilities, &b.capabilities, ToString::to_string);
    found.note(Part::Instances, "", Some(a.instances.to_string()), Some(b.instances.to_string()));
    found.note(Part::Port, "", Some(a.port.to_string()), Some(b.port.to_string()));
    let paths = |s: &ReleaseService| -> BTreeMap<String, String> {
        let words = |v: &Volatile| format!("{}{}", v.size, if v.exec { ", executable" } else { "" });
        s.volatile.iter().map(|v| (v.path.clone(), words(v))).collect()
    };
    found.maps(Part::Volatile, &paths(a), &paths(b), String::clone);
    found.maps(Part::Health, &health(a), &health(b), String::clone);
    found.maps(Part::Hook, &hooks(a), &hooks(b), String::clone);
    found.sets(Part::Check, &a.checks, &b.checks, |c| c.check.clone());
    found.the_rest(&rest_of_service(a), &rest_of_service(b));
}

fn strategy(release: &Release) -> String {
    let Some(canary) = &release.canary else { return "blue-green".to_owned() };
    let shares: Vec<String> = canary.shares.iter().map(ToString::to_string).collect();
    let crate::Terms { hold, within, errors, slower } = canary.terms;
    let preview = if canary.preview { ", with previews" } else { "" };
    format!(
        "canary of {} for {hold} to {within} each, {errors} more errors and {slower} slower at most{preview}",
        shares.join(", ")
    )
}

fn run(service: &ReleaseService) -> BTreeMap<&'static str, String> {
    let run = &service.run;
    let groups: Vec<String> = run.groups.iter().map(ToString::to_string).collect();
    [
        ("argv", run.argv.join(" ")),
        ("user", format!("{} ({}:{})", run.user, run.uid, run.gid)),
        ("groups", groups.join(" ")),
        ("workdir", run.workdir.clone()),
        ("stop_signal", run.stop_signal.to_string()),
        ("stop_grace", run.stop_grace.to_string()),
    ]
    .into()
}

fn hooks(service: &ReleaseService) -> BTreeMap<String, String> {
    let of = |moment: HookMoment| {
        let all = service.hooks.at(moment).iter().zip(1..);
        all.map(move |(h, n)| {
            (format!("{moment} {n}"), format!("{} (at most {})", h.run.join(" "), h.timeout))
        })
    };
    of(HookMoment::Before).chain(of(HookMoment::After)).collect()
}

fn limits(service: &ReleaseService) -> BTreeMap<&'static str, String> {
    let limits = service.limits;
    let cpu = f64::from(limits.cpu_millis) / 1000.0;
    let always =
        [("memory", limits.memory.to_string()), ("cpu", cpu.to_string()), ("pids", limits.pids.to_string())];
    let read = limits.io.and_then(|io| io.read).map(|read| ("io.read", format!("{read}/s")));
    let reads = limits.io.and_then(|io| io.reads).map(|reads| ("io.reads", format!("{reads}/s")));
    let circuit = service.circuit.map(|Circuit { in_flight, queue, queue_time }| {
        ("circuit", format!("{in_flight} in flight, {queue} waiting for {queue_time}"))
    });
    always.into_iter().chain(read).chain(reads).chain(circuit).collect()
}

fn secret(pinned: &PinnedSecret) -> String {
    match &pinned.env {
        Some(variable) => format!("{} (also ${variable})", pinned.version),
        None => pinned.version.to_string(),
    }
}

fn health(service: &ReleaseService) -> BTreeMap<&'static str, String> {
    let probe = match &service.probe {
        crate::Probe::Tcp => "tcp".to_owned(),
        crate::Probe::Exec { argv } => format!("exec {}", argv.join(" ")),
        crate::Probe::Http(probe) => {
            let status = probe.status.map_or("2xx or 3xx".to_owned(), |s| s.to_string());
            let contains = probe.contains.as_ref().map_or(String::new(), |c| format!(" containing `{c}`"));
            format!("http {} answers {status}{contains}", probe.path)
        }
    };
    [
        ("probe", probe),
        ("interval", service.probe_interval.to_string()),
        ("timeout", service.probe_timeout.to_string()),
        ("healthy_after", service.healthy_after.to_string()),
        ("unhealthy_after", service.unhealthy_after.to_string()),
        ("start_timeout", service.start_timeout.to_string()),
    ]
    .into()
}

/// The fields of a release that have been compared above.
const SEEN_OF_RELEASE: [&str; 9] =
    ["format", "app", "services", "routes", "drain", "keep_warm", "schema", "canary", "policy"];
const SEEN_OF_SERVICE: [&str; 18] = [
    "hooks",
    "image",
    "circuit",
    "run",
    "env",
    "volatile",
    "port",
    "instances",
    "limits",
    "probe",
    "probe_interval",
    "probe_timeout",
    "healthy_after",
    "unhealthy_after",
    "start_timeout",
    "secrets",
    "checks",
    "capabilities",
];

fn rest_of_release(release: &Release) -> serde_json::Value {
    without(serde_json::to_value(release), &SEEN_OF_RELEASE)
}

fn rest_of_service(service: &ReleaseService) -> serde_json::Value {
    without(serde_json::to_value(service), &SEEN_OF_SERVICE)
}

fn without(value: serde_json::Result<serde_json::Value>, seen: &[&str]) -> serde_json::Value {
    let mut value = value.unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|key, _| !seen.contains(&key.as_str()));
    }
    value
}
