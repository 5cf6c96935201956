//! What cannot succeed is refused before anything is made: both fleets, the one that serves and the one that is to,
//! have to fit on this host at the same time.

pub(super) mod certificates;
pub(super) mod images;
pub(super) mod needs;
pub(super) mod ports;
pub(super) mod stores;
mod texts;

use std::collections::BTreeMap;

use kiln_engine::{Engine, Room};
use kiln_model::{
    AppName, AppState, ByteSize, ExitCode, Failure, Release, ReleaseId, ReleaseService, ServiceName,
};
use kiln_store::Store;

/// Memory the kernel and the smallest of programs take for an instance, whatever its limit is.
const LEAST_PER_INSTANCE: u64 = 1 << 20;
/// Room on the disk for the log, for what instances print, and for files being written.
const LEAST_DISK: u64 = 32 << 20;

/// What this host has to offer.
#[derive(Debug, Clone, Copy)]
struct Machine {
    /// All of its memory.
    memory: u64,
    /// What could be given to new programs.
    available: u64,
    /// Processes and threads there may be more than there are.
    tasks: u64,
    /// Free on the disk of the state directory.
    disk: u64,
}

/// What a release takes beyond what is there already.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Needed {
    instances: u64,
    /// The most that one instance may use.
    largest: u64,
    /// The most that all of them may use together.
    limits: u64,
}

impl Needed {
    /// Services whose fleet is up take nothing more.
    fn by(release: &Release, state: &AppState) -> Self {
        new_services(release, state).fold(Self::default(), |sum, (_, service)| Self {
            instances: sum.instances + u64::from(service.instances),
            largest: sum.largest.max(service.limits.memory.0),
            limits: sum
                .limits
                .saturating_add(u64::from(service.instances).saturating_mul(service.limits.memory.0)),
        })
    }
}

/// What all instances of this host may use together, as their limits have it.
pub(super) fn limits<'a>(
    apps: &BTreeMap<AppName, AppState>,
    release: impl Fn(&ReleaseId) -> Option<&'a Release>,
) -> u64 {
    let fleets = apps.values().flat_map(|state| state.fleets.values());
    let of_fleet = |fleet: &kiln_model::Fleet| {
        let service = release(&fleet.release)?.services.get(&fleet.id.service)?;
        Some(u64::from(fleet.size()).saturating_mul(service.limits.memory.0))
    };
    fleets.filter_map(of_fleet).fold(0, u64::saturating_add)
}

/// The services of a release that have no fleet yet.
pub(super) fn new_services<'a>(
    release: &'a Release,
    state: &'a AppState,
) -> impl Iterator<Item = (&'a ServiceName, &'a ReleaseService)> {
    let id = release.id();
    let is_up = move |name: &ServiceName| {
        state.fleets.values().any(|fleet| fleet.release == id && fleet.id.service == *name)
    };
    release.services.iter().filter(move |(name, _)| !is_up(name))
}

/// Refuses a release that this host certainly cannot carry beside what runs, and says what is doubtful about it. Limits
/// are not reservations: that their sum, with the `limits` of all that is there, is more than there is refuses nothing.
///
/// # Errors
/// What is lacking, and how much of it.
pub(super) fn check(
    release: &Release,
    state: &AppState,
    limits: u64,
    store: &Store,
    engine: &dyn Engine,
) -> Result<Option<String>, Failure> {
    enforceable(release, store, engine)?;
    texts::check(release)?;
    // What cannot be found out refuses nothing.
    let Some(machine) = Machine::look(store) else { return Ok(None) };
    let needed = Needed::by(release, state);
    machine.carries(needed)?;
    fits(needed.instances, engine.room())?;
    Ok(machine.doubt(needed, limits))
}

/// Refuses a release with limits that would not be kept here.
fn enforceable(release: &Release, store: &Store, engine: &dyn Engine) -> Result<(), Failure> {
    for (name, service) in release.services.iter().filter(|(_, s)| s.limits.io.is_some()) {
        let image = store.handle(&service.image).map_err(|e| super::failure::store(&e))?;
        if let Some(why) = engine.unenforceable(&service.limits, &image) {
            let message = format!("the limits of service {name} cannot be kept on this host");
            return Err(Failure::new(ExitCode::Host, message)
                .because(why)
                .hint("leave `io` of the service out, or use a host that has what is missing"));
        }
    }
    Ok(())
}

impl Machine {
    fn look(store: &Store) -> Option<Self> {
        let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
        let load = std::fs::read_to_string("/proc/loadavg").ok()?;
        let most =
            std::fs::read_to_string("/proc/sys/kernel/threads-max").ok()?.trim().parse::<u64>().ok()?;
        let numbers = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse::<u64>().ok()?;
        let disk = rustix::fs::statvfs(store.root()).ok()?;
        Some(Self {
            memory: meminfo(&memory, "MemTotal:")?,
            available: meminfo(&memory, "MemAvailable:")?,
            tasks: most.min(numbers).saturating_sub(tasks(&load)?),
            disk: disk.f_bavail.saturating_mul(disk.f_frsize),
        })
    }

    fn doubt(&self, needed: Needed, beside: u64) -> Option<String> {
        let all = needed.limits.saturating_add(beside);
        (needed.limits > 0 && all > self.memory).then(|| {
            let others = if beside == 0 {
                String::new()
            } else {
                format!(" beside {} of those that are there", ByteSize(beside).about())
            };
            format!(
                "{} new instances may use {} of memory by their limits{others}, and this host has {}: limits reserve \
                 nothing, and where it is used up the kernel ends instances; lower `memory` or `instances` if they use it",
                needed.instances,
                ByteSize(needed.limits).about(),
                ByteSize(self.memory).about()
            )
        })
    }

    fn carries(&self, needed: Needed) -> Result<(), Failure> {
        let least = needed.instances.saturating_mul(LEAST_PER_INSTANCE);
        let lacks = |what: String, hint: &str| Err(Failure::new(ExitCode::Host, what).hint(hint));
        if needed.largest > self.memory {
            let (largest, memory) = (ByteSize(needed.largest).about(), ByteSize(self.memory).about());
            let what = format!("an instance may use {largest} of memory, and this host has {memory}");
            return lacks(what, "set `memory` of the service in kiln.toml to what it needs");
        }
        if least > self.available {
            let (instances, least) = (needed.instances, ByteSize(least).about());
            let available = ByteSize(self.available).about();
            let what = format!(
                "{instances} new instances beside those that serve take {least} of memory at the least, and {available} is free"
            );
            return lacks(what, "fewer `instances`, or a host with more memory");
        }
        if needed.instances > self.tasks {
            let (instances, tasks) = (needed.instances, self.tasks);
            let what = format!(
                "{instances} new instances need as many processes, and the kernel allows {tasks} more"
            );
            return lacks(what, "raise kernel.pid_max and kernel.threads-max");
        }
        if needed.instances > 0 && self.disk < LEAST_DISK {
            let (disk, least) = (ByteSize(self.disk).about(), ByteSize(LEAST_DISK));
            let what = format!("the disk of the state directory has {disk} left, and a deploy needs {least}");
            return lacks(what, "free some space there, e.g. with `kiln gc`");
        }
        Ok(())
    }
}

/// Refuses more instances than the engine itself has room for.
fn fits(instances: u64, room: Option<Room>) -> Result<(), Failure> {
    match room {
        Some(room) if instances > room.instances => {
            let what = format!(
                "{instances} new instances beside those that are there do not fit: {} carries about {} more",
                room.limit, room.instances
            );
            Err(Failure::new(ExitCode::Host, what).hint(room.remedy))
        }
        _ => Ok(()),
    }
}

/// A line of /proc/meminfo in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// How many processes and threads there are: the number after the slash of /proc/loadavg.
fn tasks(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { memory: 1 << 30, available: 100 << 20, tasks: 500, disk: 1 << 30 };

    /// A release with one service, `web`.
    pub(super) fn release() -> Release {
        let text = include_str!("../../../../kiln-model/tests/fixtures/release-2.json");
        let mut release = Release::decode(text.trim_end().as_bytes()).unwrap();
        let web = release.services.pop_first().unwrap().1;
        release.services = [("web".parse().unwrap(), web)].into();
        release.services.values_mut().for_each(|s| s.needs.clear());
        release.tcp.clear();
        release
    }

    fn refusal(machine: Machine, needed: Needed) -> Option<String> {
        machine.carries(needed).err().map(|failure| failure.message)
    }

    #[test]
    fn what_cannot_fit_is_refused_and_what_may_is_not() {
        let fits = Needed { instances: 100, largest: 1 << 30, limits: 100 << 30 };
        assert_eq!(refusal(MACHINE, fits), None, "limits are not reservations");
        let large = refusal(MACHINE, Needed { largest: (1 << 30) + 1, ..fits }).unwrap();
        assert!(large.contains("this host has 1GiB"), "{large}");
        let many = refusal(MACHINE, Needed { instances: 101, ..fits }).unwrap();
        assert!(many.contains("101 new instances") && many.contains("100MiB is free"), "{many}");
        let numbers = refusal(Machine { tasks: 99, ..MACHINE }, fits).unwrap();
        assert!(numbers.contains("allows 99 more"), "{numbers}");
        let full = refusal(Machine { disk: 5 << 20, ..MACHINE }, fits).unwrap();
        assert!(full.contains("5MiB left"), "{full}");
        assert_eq!(
            refusal(Machine { disk: 0, ..MACHINE }, Needed::default()),
            None,
            "a warm rollback makes nothing"
        );
    }

    #[test]
    fn more_than_the_engine_has_room_for_is_refused_with_the_limit() {
        let room =
            |instances| Some(Room { instances, limit: "a limit (7)".into(), remedy: "raise it".into() });
        assert_eq!([fits(40, room(40)), fits(40, None)], [Ok(()), Ok(())]);
        let refusal = fits(41, room(40)).unwrap_err();
        assert!(refusal.message.ends_with("do not fit: a limit (7) carries about 40 more"), "{refusal}");
        assert_eq!(refusal.hint.as_deref(), Some("raise it"));
    }

    #[test]
    fn limits_that_are_more_than_there_is_are_told_and_refuse_nothing() {
        let doubt = |limits, beside| MACHINE.doubt(Needed { instances: 50, largest: 1, limits }, beside);
        assert_eq!(doubt(1 << 30, 0), None);
        assert_eq!(doubt(0, 5 << 30), None, "nothing new");
        let told = doubt(3 << 29, 0).unwrap();
        assert!(told.starts_with("50 new instances may use 1.5GiB of memory by their limits, and"), "{told}");
        let told = doubt(1 << 29, (1 << 29) + 1).unwrap();
        assert!(told.contains("512MiB of memory by their limits beside 512.0MiB of those"), "{told}");
        assert!(told.contains("this host has 1GiB"), "{told}");
    }

    #[test]
    fn the_kernel_is_understood() {
        assert_eq!(meminfo("MemTotal:  16 kB\nMemAvailable:   3 kB\n", "MemAvailable:"), Some(3072));
        assert_eq!(tasks("0.01 0.02 0.03 2/345 6789"), Some(345));
    }
}
