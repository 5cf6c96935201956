//! A limit as the file and the text that set it.

use std::io;

use kiln_model::{InstanceOrder, IoLimits, Limits};

use super::{Controller, Disk};

/// Something to write into a file of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) file: &'static str,
    pub(crate) value: String,
    /// Whether kernels may be built without it.
    pub(crate) is_optional: bool,
}

impl Setting {
    fn new(file: &'static str, value: impl ToString) -> Self {
        Self { file, value: value.to_string(), is_optional: false }
    }

    fn optional(file: &'static str, value: impl ToString) -> Self {
        Self { is_optional: true, ..Self::new(file, value) }
    }
}

/// The period the CPU limit is counted over, in microseconds: the kernel's default, and what others use.
const PERIOD: u64 = 100_000;
/// The least the kernel takes.
const LEAST_QUOTA: u64 = 1_000;

fn quota(limits: &Limits) -> u64 {
    (u64::from(limits.cpu_millis) * (PERIOD / 1000)).max(LEAST_QUOTA)
}

/// What an instance may use, and the disk its image lies on if there is a limit on reading from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) io: Option<(Disk, IoLimits)>,
}

impl<'a> Allowance<'a> {
    /// What an order allows. The calling process is in the host's mount namespace.
    ///
    /// # Errors
    /// If reading is limited, and the image lies on no disk that the kernel can limit.
    pub(crate) fn of(order: &'a InstanceOrder) -> io::Result<Self> {
        let on_disk = |io| Ok::<_, io::Error>((Disk::of(&order.image.objects)?, io));
        Ok(Self { limits: &order.limits, io: order.limits.io.map(on_disk).transpose()? })
    }
}

/// The limits of one controller in a v2 group. Memory means memory: nothing is swapped out to evade the limit.
pub(super) fn in_v2(controller: Controller, Allowance { limits, io }: Allowance<'_>) -> Vec<Setting> {
    match controller {
        Controller::Memory => vec![
            Setting::new("memory.max", limits.memory.0),
            Setting::optional("memory.swap.max", 0),
            // An instance that lost one of its processes is in a state nobody tested.
            Setting::new("memory.oom.group", 1),
        ],
        Controller::Cpu => vec![Setting::new("cpu.max", format!("{} {PERIOD}", quota(limits)))],
        Controller::Pids => vec![Setting::new(PIDS_MAX, limits.pids)],
        Controller::Io => io.map(|(disk, io)| Setting::new("io.max", io_max(disk, io))).into_iter().collect(),
    }
}

/// `8:0 rbps=1048576 riops=100`
fn io_max(disk: Disk, io: IoLimits) -> String {
    let read = io.read.map(|read| format!(" rbps={}", read.0)).unwrap_or_default();
    let reads = io.reads.map(|reads| format!(" riops={reads}")).unwrap_or_default();
    format!("{disk}{read}{reads}")
}

/// The limits of one controller in a v1 group.
pub(super) fn in_v1(controller: Controller, Allowance { limits, io }: Allowance<'_>) -> Vec<Setting> {
    match controller {
        Controller::Memory => vec![
            Setting::new("memory.limit_in_bytes", limits.memory.0),
            Setting::optional("memory.memsw.limit_in_bytes", limits.memory.0),
        ],
        Controller::Cpu => vec![Setting::new("cpu.cfs_quota_us", quota(limits))],
        Controller::Pids => vec![Setting::new(PIDS_MAX, limits.pids)],
        Controller::Io => io.map(|(disk, io)| io_in_v1(disk, io)).unwrap_or_default(),
    }
}

fn io_in_v1(disk: Disk, io: IoLimits) -> Vec<Setting> {
    let of = |file, value: Option<u64>| Some(Setting::new(file, format!("{disk} {}", value?)));
    let read = of("blkio.throttle.read_bps_device", io.read.map(|read| read.0));
    let reads = of("blkio.throttle.read_iops_device", io.reads.map(u64::from));
    read.into_iter().chain(reads).collect()
}

/// The file in which the kernel counts kills for want of memory.
pub(super) fn memory_events(is_v2: bool) -> &'static str {
    if is_v2 { "memory.events" } else { "memory.oom_control" }
}

/// Whether a v2 group ever reached its own limit.
pub(super) fn reached_in_v2(events: &str) -> bool {
    // `oom` counts where the limit was that was reached, `oom_kill` who was killed for it.
    let count = events.lines().find_map(|line| line.strip_prefix("oom "));
    count.is_some_and(|n| n.trim() != "0")
}

/// The most a v1 group ever used, and its limit. How often it was refused for that, newer kernels do not count.
pub(super) const MOST_AND_LIMIT_IN_V1: [&str; 2] = ["memory.max_usage_in_bytes", "memory.limit_in_bytes"];

/// Whether a v1 group ever reached its own limit.
pub(super) fn reached_in_v1(most: u64, limit: u64) -> bool {
    /// What the kernel takes for each processor in advance: one group may be refused before it has used so much.
    const IN_ADVANCE: u64 = 512 << 10;
    most + IN_ADVANCE >= limit
}

/// How many processes and threads there may be; alike in v1 and v2.
pub(super) const PIDS_MAX: &str = "pids.max";
/// The file in which the kernel counts those it has refused.
pub(super) const PIDS_EVENTS: &str = "pids.events";

/// Whether it has refused any, from that file.
pub(super) fn has_refused(events: &str) -> bool {
    events.lines().find_map(|line| line.strip_prefix("max ")).is_some_and(|count| count.trim() != "0")
}

/// How often the kernel killed for want of memory, from such a file.
pub(super) fn oom_kills(events: &str) -> u64 {
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use kiln_model::ByteSize;

    use super::*;

    #[test]
    fn half_a_cpu_is_half_of_every_period() {
        let limits = Limits { memory: ByteSize(64 << 20), cpu_millis: 500, pids: 10, io: None };
        let allowed = Allowance { limits: &limits, io: None };
        assert_eq!(in_v2(Controller::Cpu, allowed), [Setting::new("cpu.max", "50000 100000")]);
        assert_eq!(in_v1(Controller::Cpu, allowed)[0], Setting::new("cpu.cfs_quota_us", 50_000));
        let least = Limits { cpu_millis: 0, ..limits };
        assert_eq!(quota(&least), LEAST_QUOTA, "zero never means unlimited");
    }

    #[test]
    fn reading_is_limited_by_bytes_and_by_requests() {
        let limits = Limits { memory: ByteSize(64 << 20), cpu_millis: 500, pids: 10, io: None };
        let disk = Disk { major: 8, minor: 16 };
        let io = IoLimits { read: Some(ByteSize(1 << 20)), reads: Some(100) };
        let allowed = Allowance { limits: &limits, io: Some((disk, io)) };
        assert_eq!(in_v2(Controller::Io, allowed), [Setting::new("io.max", "8:16 rbps=1048576 riops=100")]);
        let v1 = in_v1(Controller::Io, allowed);
        assert_eq!(v1[0], Setting::new("blkio.throttle.read_bps_device", "8:16 1048576"));
        assert_eq!(v1[1], Setting::new("blkio.throttle.read_iops_device", "8:16 100"));
        let bytes = Allowance { io: Some((disk, IoLimits { reads: None, ..io })), ..allowed };
        assert_eq!(in_v2(Controller::Io, bytes), [Setting::new("io.max", "8:16 rbps=1048576")]);
        assert_eq!(in_v2(Controller::Io, Allowance { io: None, ..allowed }), []);
    }

    #[test]
    fn kills_are_counted_in_both_formats() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        let v2 = "low 0\nhigh 0\nmax 15\noom 1\noom_kill 1\noom_group_kill 1\n";
        assert_eq!(oom_kills(v2), 1);
        assert!(reached_in_v2(v2) && !reached_in_v2("max 0\noom 0\noom_kill 1\n"));
        assert!(reached_in_v1(32 << 20, 32 << 20) && !reached_in_v1(26 << 20, 32 << 20));
        assert_eq!(oom_kills(""), 0);
    }
}
