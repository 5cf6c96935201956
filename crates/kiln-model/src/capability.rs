//! What root may do beyond others, by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A capability an instance can be given. Only those that count for something inside its own user namespace exist:
/// its network, mounts, clock and devices belong to the host's, and no capability inside reaches them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Capability {
    /// Change the owners of files.
    Chown,
    /// Read, write and execute files whatever their mode says.
    DacOverride,
    /// Read files and search directories whatever their mode says.
    DacReadSearch,
    /// Do to any file what its owner may.
    Fowner,
    /// Keep the set-id bits of files that are written to.
    Fsetid,
    /// Send signals to processes of other users.
    Kill,
    /// Listen on ports below 1024. Every user of an instance may do that; it is accepted because others ask for it.
    NetBindService,
    /// Become any group.
    Setgid,
    /// Give away and drop capabilities.
    Setpcap,
    /// Become any user.
    Setuid,
    /// Call `chroot`.
    SysChroot,
}

/// A name that is none of a capability an instance can be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCapability {
    /// Linux has it, and it would do nothing.
    #[error(
        "`{0}` would have no effect: an instance's network, mounts, clock and devices belong to the host, and no \
         capability inside reaches them"
    )]
    Futile(String),
    /// Linux has none of that name.
    #[error("there is no capability `{0}`")]
    Unknown(String),
}

/// Those Linux has beside.
const FUTILE: [&str; 30] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "IPC_LOCK",
    "IPC_OWNER",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

impl Capability {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Chown,
        Self::DacOverride,
        Self::DacReadSearch,
        Self::Fowner,
        Self::Fsetid,
        Self::Kill,
        Self::NetBindService,
        Self::Setgid,
        Self::Setpcap,
        Self::Setuid,
        Self::SysChroot,
    ];

    /// As Linux calls it, without `CAP_`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chown => "CHOWN",
            Self::DacOverride => "DAC_OVERRIDE",
            Self::DacReadSearch => "DAC_READ_SEARCH",
            Self::Fowner => "FOWNER",
            Self::Fsetid => "FSETID",
            Self::Kill => "KILL",
            Self::NetBindService => "NET_BIND_SERVICE",
            Self::Setgid => "SETGID",
            Self::Setpcap => "SETPCAP",
            Self::Setuid => "SETUID",
            Self::SysChroot => "SYS_CHROOT",
        }
    }

    /// As Linux numbers it.
    pub fn number(self) -> u32 {
        match self {
            Self::Chown => 0,
            Self::DacOverride => 1,
            Self::DacReadSearch => 2,
            Self::Fowner => 3,
            Self::Fsetid => 4,
            Self::Kill => 5,
            Self::Setgid => 6,
            Self::Setuid => 7,
            Self::Setpcap => 8,
            Self::NetBindService => 10,
            Self::SysChroot => 18,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// With or without `CAP_` before it, as others write it.
impl FromStr for Capability {
    type Err = BadCapability;

    fn from_str(text: &str) -> Result<Self, BadCapability> {
        let name = text.strip_prefix("CAP_").unwrap_or(text);
        match Self::ALL.into_iter().find(|c| c.as_str() == name) {
            Some(capability) => Ok(capability),
            None if FUTILE.contains(&name) => Err(BadCapability::Futile(text.to_owned())),
            None => Err(BadCapability::Unknown(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_the_futile_are_told_apart() {
        for capability in Capability::ALL {
            assert_eq!(capability.to_string().parse(), Ok(capability));
            assert_eq!(format!("CAP_{capability}").parse(), Ok(capability));
            let json = serde_json::to_string(&capability).unwrap();
            assert_eq!(json, format!("\"{capability}\""));
        }
        let numbers: std::collections::BTreeSet<u32> = Capability::ALL.map(Capability::number).into();
        assert_eq!(numbers.len() + FUTILE.len(), 41, "Linux has 41");
        assert!(matches!("NET_ADMIN".parse::<Capability>(), Err(BadCapability::Futile(_))));
        assert!(matches!("net_bind_service".parse::<Capability>(), Err(BadCapability::Unknown(_))));
    }
}
