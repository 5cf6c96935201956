//! Instances: what is ordered, and what is observed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::shortage::places;
use crate::{
    AppName, ByteSize, Capability, ExitCode, ImageHandle, Inside, InstanceId, ReleaseId, RunSettings,
    SecretOrder, ServiceName, Shortage, Timestamp, Volatile,
};

/// How many users and groups an instance has: those from 0 on.
pub const INSTANCE_IDS: u32 = 65_536;

/// The most an instance may use. Zero never means unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, volatile paths included.
    pub memory: ByteSize,
    /// Thousandths of one CPU.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
    /// What it may read from the disk its image lies on; as much as there is if absent. It cannot write to any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<IoLimits>,
}

impl Limits {
    /// The most that arguments and environment of a program may take together, in bytes: a quarter of the memory. The
    /// kernel copies them for a program before it is one, and kills in want of room.
    pub fn texts(&self) -> ByteSize {
        ByteSize(self.memory.0 / 4)
    }
}

/// What the kernel copies of its arguments and environment for a program, in bytes.
pub fn bytes_of_texts(run: &RunSettings, env: &BTreeMap<String, String>) -> u64 {
    let arguments = run.argv.iter().map(String::len);
    let variables = env.iter().map(|(name, value)| name.len() + value.len());
    arguments.chain(variables).map(|length| length as u64).sum()
}

/// What an instance may read from the disk in a second. At least one of them is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoLimits {
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<ByteSize>,
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<u32>,
}

/// Everything an engine needs to make one instance. Plain data, no choices left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceOrder {
    /// Its id; an order with the id of an instance that exists changes nothing and succeeds.
    pub id: InstanceId,
    /// The app it belongs to (apps do not share ids of users).
    pub app: AppName,
    /// The service it belongs to; absent for throwaway instances of checks.
    pub service: Option<ServiceName>,
    /// The release it belongs to; absent for throwaway instances of checks.
    pub release: Option<ReleaseId>,
    /// What it is made from.
    pub image: ImageHandle,
    /// How its main process is run.
    pub run: RunSettings,
    /// The whole environment of its main process.
    pub env: BTreeMap<String, String>,
    /// What it may use.
    pub limits: Limits,
    /// Where it may write.
    pub volatile: Vec<Volatile>,
    /// What its processes may do beyond others, in its own user namespace.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub capabilities: BTreeSet<Capability>,
    /// The secrets it is given; no two of the same name or with the same variable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretOrder>,
    /// How it finds what it needs; everything else is out of its reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Inside>,
}

/// A command to be run beside the main process of an instance, under the same confinement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOrder {
    /// Program and arguments; a program without a slash is looked for on the PATH of `env`.
    pub argv: Vec<String>,
    /// Its environment, but for secrets.
    pub env: BTreeMap<String, String>,
    /// The secrets that are variables of it as well; as files they are in the instance already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretOrder>,
    /// What it may do beyond others; no more than its instance may.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub capabilities: BTreeSet<Capability>,
    /// The user it runs as.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
    /// Its working directory, absolute.
    pub workdir: String,
    /// Whether its standard streams are a terminal, which then becomes the one that controls it.
    pub has_terminal: bool,
}

impl ExecOrder {
    /// A command run as the main process of an image is, without secrets, capabilities or a terminal.
    pub fn beside(run: &RunSettings, argv: Vec<String>) -> Self {
        Self {
            argv,
            env: run.env.clone(),
            secrets: Vec::new(),
            capabilities: BTreeSet::new(),
            uid: run.uid,
            gid: run.gid,
            groups: run.groups.clone(),
            workdir: run.workdir.clone(),
            has_terminal: false,
        }
    }
}

/// How the main process of an instance ended, or why there never was one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Exit {
    /// It returned this code.
    Code {
        /// 0 to 255.
        code: i32,
    },
    /// This signal ended it.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// The kernel ended it because it reached its memory limit.
    OutOfMemory {
        /// The limit it had.
        limit: ByteSize,
    },
    /// The kernel ended it because the host had no memory left. It had not reached its own limit.
    HostOutOfMemory,
    /// It ended by itself while it had no space left to write to.
    OutOfSpace {
        /// What was full.
        full: Vec<Volatile>,
        /// How it ended.
        exit: Box<Exit>,
    },
    /// It never ran: making the instance or executing its program failed.
    NotStarted {
        /// What was attempted, and what the system answered.
        cause: String,
    },
    /// It is gone and nobody saw how (its keeper died with it).
    Unknown,
}

impl Exit {
    /// Whether the process ended by itself and said that all went well.
    pub fn is_success(&self) -> bool {
        *self == Exit::Code { code: 0 }
    }

    /// The exit code by which a shell tells of it: 128 and the signal's number, 127 for a program that is not there, 126 for
    /// one that cannot be executed.
    pub fn shell_code(&self) -> i32 {
        const KILLED: i32 = 128 + 9;
        match self {
            Exit::Code { code } => *code,
            Exit::Signal { signal } => 128 + signal,
            Exit::OutOfMemory { .. } | Exit::HostOutOfMemory => KILLED,
            Exit::OutOfSpace { exit, .. } => exit.shell_code(),
            // What the system answered is all that is known.
            Exit::NotStarted { cause } if cause.ends_with("No such file or directory (os error 2)") => 127,
            Exit::NotStarted { .. } => 126,
            Exit::Unknown => ExitCode::Host as i32,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code { code } => write!(f, "exited with code {code}"),
            Exit::Signal { signal } => write!(f, "was ended by signal {signal}"),
            Exit::OutOfMemory { limit } => write!(f, "reached its memory limit of {limit} and was killed"),
            Exit::HostOutOfMemory => {
                write!(f, "was killed because the host had no memory left; it had not reached its own limit")
            }
            Exit::OutOfSpace { full, exit } => {
                write!(f, "{exit} while no space was left on {}", places(full))
            }
            Exit::NotStarted { cause } => write!(f, "could not be started: {cause}"),
            Exit::Unknown => write!(f, "is gone; how it ended is not known"),
        }
    }
}

/// Where an instance is in its life, as its engine sees it. Health is not the engine's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InstanceState {
    /// Its main process runs.
    Running {
        /// The main process as the host numbers it.
        pid: u32,
    },
    /// It was asked to end and has not ended yet.
    Stopping {
        /// The main process as the host numbers it.
        pid: u32,
    },
    /// It has ended; everything but its output is gone.
    Ended {
        /// How.
        exit: Exit,
    },
}

impl InstanceState {
    /// The main process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Running { pid } | Self::Stopping { pid } => Some(*pid),
            Self::Ended { .. } => None,
        }
    }

    /// Whether this comes later in a life than `other`. Nobody goes back: of two reports of one instance the one
    /// that is later in its life is the newer one, in whatever order they arrive.
    pub fn is_later_than(&self, other: &Self) -> bool {
        let stage = |state: &Self| match state {
            Self::Running { .. } => 0,
            Self::Stopping { .. } => 1,
            Self::Ended { .. } => 2,
        };
        stage(self) > stage(other)
    }
}

/// One instance as its engine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Which.
    pub id: InstanceId,
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: InstanceState,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// What it has too little of.
    #[serde(flatten)]
    pub shortage: Shortage,
}

impl InstanceStatus {
    /// How it ended, and what was wanting by then; nothing if it has not. One that ended for want of space says so itself.
    pub fn end(&self) -> Option<String> {
        let InstanceState::Ended { exit } = &self.state else { return None };
        let full = match exit {
            Exit::OutOfSpace { .. } => Vec::new(),
            _ => self.shortage.full.clone(),
        };
        let wanting = Shortage { full, ..self.shortage }.words();
        Some(wanting.map_or_else(|| format!("it {exit}"), |wanting| format!("it {exit}; {wanting}")))
    }
}

/// Which of its two outputs an instance wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: InstanceState, full: &[&str]) -> InstanceStatus {
        let path = |path: &&str| Volatile::new(*path, ByteSize(16 << 20));
        let full = full.iter().map(path).collect();
        let shortage = Shortage { full, processes: None };
        InstanceStatus { id: "a-web-1-1".parse().unwrap(), state, since: Timestamp(0), shortage }
    }

    #[test]
    fn what_was_full_when_it_ended_is_said_once() {
        let end = |exit, full: &[&str]| status(InstanceState::Ended { exit }, full).end().unwrap();
        let code = Exit::Code { code: 1 };
        assert_eq!(end(code.clone(), &[]), "it exited with code 1");
        assert_eq!(end(code.clone(), &["/data"]), "it exited with code 1; no space is left on /data (16MiB)");
        let full = status(InstanceState::Running { pid: 1 }, &["/data"]).shortage.full;
        let out = Exit::OutOfSpace { full, exit: Box::new(code) };
        assert_eq!(end(out, &["/data"]), "it exited with code 1 while no space was left on /data (16MiB)");
        assert_eq!(status(InstanceState::Running { pid: 1 }, &["/data"]).end(), None);
    }
}
