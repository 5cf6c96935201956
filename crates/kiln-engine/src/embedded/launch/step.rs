//! What a child does on its way to its program, and what it tells its parent about it.

/// One step of a child. Sent as a number from a place where nothing can be formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Signals,
    Network,
    Volatile,
    MachineId,
    Secrets,
    Proc,
    PortStart,
    MemfdNoExec,
    AttachProc,
    Mask,
    Hosts,
    Loopback,
    Hostname,
    AccountingUser,
    UserNamespace,
    WaitForMaps,
    ControlGroups,
    ControlGroupNamespace,
    Join,
    Ids,
    WorkDir,
    Limits,
    Descriptors,
    Capabilities,
    Filter,
    Execute,
}

impl Step {
    pub(super) const ALL: [Step; 26] = [
        Step::Signals,
        Step::Network,
        Step::Volatile,
        Step::MachineId,
        Step::Secrets,
        Step::Proc,
        Step::PortStart,
        Step::MemfdNoExec,
        Step::AttachProc,
        Step::Mask,
        Step::Hosts,
        Step::Loopback,
        Step::Hostname,
        Step::AccountingUser,
        Step::UserNamespace,
        Step::WaitForMaps,
        Step::ControlGroups,
        Step::ControlGroupNamespace,
        Step::Join,
        Step::Ids,
        Step::WorkDir,
        Step::Limits,
        Step::Descriptors,
        Step::Capabilities,
        Step::Filter,
        Step::Execute,
    ];

    /// What the step attempts, as the continuation of "could not".
    pub(super) fn words(self) -> &'static str {
        match self {
            Step::Signals => "reset its signals",
            Step::Network => "make its network",
            Step::Volatile => "mount the volatile path",
            Step::MachineId => "write its identity to /run/machine-id",
            Step::Secrets => "give it its secrets in /run/secrets",
            Step::Proc => "mount /proc",
            Step::PortStart => "open all ports to its user",
            Step::MemfdNoExec => "forbid executable anonymous files",
            Step::AttachProc => "attach /proc, a directory its image must have",
            Step::Mask => "mask a path of /proc",
            Step::Hosts => "put its list of names at /etc/hosts, a file its image must have",
            Step::Loopback => "bring up its loopback interface",
            Step::Hostname => "set its hostname",
            Step::AccountingUser => "become the user its namespaces are charged to",
            Step::UserNamespace => "make its user namespace",
            Step::WaitForMaps => "get its users mapped",
            Step::ControlGroups => "join its control groups",
            Step::ControlGroupNamespace => "make its control group namespace",
            Step::Join => "enter the namespaces of the instance",
            Step::Ids => "become its user",
            Step::WorkDir => "change to the working directory",
            Step::Limits => "set its resource limits",
            Step::Descriptors => "arrange its standard streams",
            Step::Capabilities => "drop its capabilities",
            Step::Filter => "install its system call filter",
            Step::Execute => "execute",
        }
    }
}

/// A step that failed, with the number of the mount it was at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) step: Step,
    pub(super) item: u8,
    pub(super) errno: i32,
}

/// What a child says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// It is in a user namespace that waits for its maps.
    WantsMaps,
    /// It has given up.
    Failed(Failed),
}

impl Report {
    pub(super) const BYTES: usize = 7;

    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        match self {
            Report::WantsMaps => [0; Self::BYTES],
            Report::Failed(Failed { step, item, errno }) => {
                let [a, b, c, d] = errno.to_le_bytes();
                [1, step as u8, item, a, b, c, d]
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [0, ..] => Some(Report::WantsMaps),
            [1, step, item, a, b, c, d] => Some(Report::Failed(Failed {
                step: *Step::ALL.get(usize::from(step))?,
                item,
                errno: i32::from_le_bytes([a, b, c, d]),
            })),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_is_understood() {
        for step in Step::ALL {
            let report = Report::Failed(Failed { step, item: 3, errno: libc::ENOTSUP });
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        assert_eq!(Report::decode(&Report::WantsMaps.encode()), Some(Report::WantsMaps));
        assert_eq!(Report::decode(&[1, 99, 0, 0, 0, 0, 0]), None);
        assert_eq!(Report::decode(&[]), None);
    }
}
