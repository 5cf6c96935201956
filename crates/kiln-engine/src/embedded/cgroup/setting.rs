//! A limit as the file and the text that set it.

use kiln_model::Limits;

use super::Controller;

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

/// The limits of one controller in a v2 group. Memory means memory: nothing is swapped out to evade the limit.
pub(super) fn in_v2(controller: Controller, limits: &Limits) -> Vec<Setting> {
    match controller {
        Controller::Memory => vec![
            Setting::new("memory.max", limits.memory.0),
            Setting::optional("memory.swap.max", 0),
            // An instance that lost one of its processes is in a state nobody tested.
            Setting::new("memory.oom.group", 1),
        ],
        Controller::Cpu => vec![Setting::new("cpu.max", format!("{} {PERIOD}", quota(limits)))],
        Controller::Pids => vec![Setting::new("pids.max", limits.pids)],
    }
}

/// The limits of one controller in a v1 group.
pub(super) fn in_v1(controller: Controller, limits: &Limits) -> Vec<Setting> {
    match controller {
        Controller::Memory => vec![
            Setting::new("memory.limit_in_bytes", limits.memory.0),
            Setting::optional("memory.memsw.limit_in_bytes", limits.memory.0),
        ],
        Controller::Cpu => vec![Setting::new("cpu.cfs_quota_us", quota(limits))],
        Controller::Pids => vec![Setting::new("pids.max", limits.pids)],
    }
}

/// The file in which the kernel counts kills for want of memory.
pub(super) fn memory_events(is_v2: bool) -> &'static str {
    if is_v2 { "memory.events" } else { "memory.oom_control" }
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
        let limits = Limits { memory: ByteSize(64 << 20), cpu_millis: 500, pids: 10 };
        assert_eq!(in_v2(Controller::Cpu, &limits), [Setting::new("cpu.max", "50000 100000")]);
        assert_eq!(in_v1(Controller::Cpu, &limits)[0], Setting::new("cpu.cfs_quota_us", 50_000));
        let least = Limits { cpu_millis: 0, ..limits };
        assert_eq!(quota(&least), LEAST_QUOTA, "zero never means unlimited");
    }

    #[test]
    fn kills_are_counted_in_both_formats() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        let v2 = "low 0\nhigh 0\nmax 15\noom 1\noom_kill 1\noom_group_kill 1\n";
        assert_eq!(oom_kills(v2), 1);
        assert_eq!(oom_kills(""), 0);
    }
}
