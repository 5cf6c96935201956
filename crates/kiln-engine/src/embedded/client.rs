//! The engine, as control has it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kiln_model::{
    ExecOrder, Exit, ImageHandle, InstanceId, InstanceOrder, InstanceStatus, Limits, StoreHost,
};

use rustix::fs::{Mode, OFlags};

use super::bell::Bell;
use super::cgroup::{Controller, Disk, Layout, NO_IO};
use super::launch::bytes_of_texts;
use super::line::{Begun, Lines};
use super::wire::{Answer, CONTROL_SOCKET, Call, Cursor, MOST_DESCRIPTORS};
use crate::{Engine, EngineError, Execution, Room};

/// Instances as children of the keeper that works in a run directory.
#[derive(Debug)]
pub struct Embedded {
    lines: Lines,
    known: Mutex<Cursor>,
    /// Calls back whoever waits for changes.
    bell: Bell,
}

/// How long a keeper may take to make room for another program, and that to begin.
const UPGRADE: Duration = Duration::from_secs(10);

const NAME: &str = "embedded";

/// How many orders go in one request: the first instances of a large fleet are answered before the last are sent,
/// and other callers come in between.
const ORDERS_AT_ONCE: usize = 256;
/// And of how many bytes, about: half of what a frame may hold.
const BYTES_AT_ONCE: u64 = 16 << 20;

/// Orders in pieces, each of which fits into a frame.
fn batches(orders: &[InstanceOrder]) -> impl Iterator<Item = &[InstanceOrder]> {
    let mut left = orders;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = left.iter().take(ORDERS_AT_ONCE).take_while(|order| {
            bytes += weight(order);
            bytes <= BYTES_AT_ONCE
        });
        let (batch, rest) = left.split_at_checked(fitting.count().max(1))?;
        left = rest;
        Some(batch)
    })
}

/// About how many bytes an order is in a message; secrets are written as hex digits.
fn weight(order: &InstanceOrder) -> u64 {
    let secrets = order.secrets.iter().map(|secret| 2 * secret.value.reveal().len() as u64);
    1024 + bytes_of_texts(order) + secrets.sum::<u64>()
}

impl Embedded {
    /// Connects to the keeper that works in `run_dir`.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] if there is none.
    pub fn connect(run_dir: &Path) -> Result<Self, EngineError> {
        let attempted = "speak with its keeper";
        let lines = Lines::open(&run_dir.join(CONTROL_SOCKET)).map_err(unreachable(attempted))?;
        Ok(Self { lines, known: Mutex::default(), bell: Bell::new().map_err(unreachable(attempted))? })
    }

    /// Kills all instances and ends the keeper; returns when nothing of them is left.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] if the keeper does not answer.
    pub fn shutdown(&self) -> Result<(), EngineError> {
        let attempted = "end its keeper";
        match self.lines.ask_last(Call::Shutdown).map_err(unreachable(attempted))? {
            Answer::Done => Ok(()),
            other => Err(unexpected(attempted, other)),
        }
    }

    /// Has `program` go on with everything the keeper has, if that is another program than it runs. Returns when the
    /// new one answers; whether there is a new one. Instances do not notice.
    ///
    /// # Errors
    /// Why it does not; then the keeper that was there goes on.
    pub fn upgrade(&self, program: &Path) -> Result<bool, UpgradeError> {
        let on = |source| UpgradeError::Program { program: program.to_owned(), source };
        if self.is_program(program)? {
            return Ok(false);
        }
        let wanted = program_mark(program).map_err(on)?;
        let program = program.canonicalize().map_err(on)?;
        match self.ask_for_upgrade(Call::Succeed { program: program.clone() })? {
            Answer::Done => {}
            Answer::Refused(why) => return Err(UpgradeError::Refused(why)),
            _ => return Err(UpgradeError::NotUnderstood),
        }
        let deadline = Instant::now() + UPGRADE;
        while !self.runs(wanted)? {
            if Instant::now() >= deadline {
                return Err(UpgradeError::NotExecuted { program });
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(true)
    }

    /// Whether the keeper that answers runs `program`, so that there is nothing to upgrade to.
    ///
    /// # Errors
    /// As [`Embedded::upgrade`].
    pub fn is_program(&self, program: &Path) -> Result<bool, UpgradeError> {
        let on = |source| UpgradeError::Program { program: program.to_owned(), source };
        self.runs(program_mark(program).map_err(on)?)
    }

    /// Whether the keeper that answers runs a program.
    fn runs(&self, wanted: (u64, u64)) -> Result<bool, UpgradeError> {
        match self.ask_for_upgrade(Call::Who)? {
            // A keeper that is just making room for the next one is gone when it is looked at.
            Answer::Keeper { pid } => {
                Ok(program_mark(Path::new(&format!("/proc/{pid}/exe"))).ok() == Some(wanted))
            }
            _ => Err(UpgradeError::NotUnderstood),
        }
    }

    /// A keeper ends conversations it does not understand.
    fn ask_for_upgrade(&self, call: Call) -> Result<Answer, UpgradeError> {
        match self.lines.ask(call) {
            Ok((answer, _)) => Ok(answer),
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::InvalidData) => {
                Err(UpgradeError::NotUnderstood)
            }
            Err(source) => Err(UpgradeError::Unreachable { source }),
        }
    }

    fn ask(&self, attempted: &'static str, call: Call) -> Result<Answer, EngineError> {
        let (answer, _) = self.lines.ask(call).map_err(unreachable(attempted))?;
        Ok(answer)
    }

    fn done(&self, attempted: &'static str, call: Call) -> Result<(), EngineError> {
        match self.ask(attempted, call)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(attempted, other)),
        }
    }

    /// Does something with the main process of an instance. Whatever is found there was the instance's if its process
    /// is still the same afterwards.
    fn with_process<T>(
        &self,
        id: &InstanceId,
        attempted: &'static str,
        something: impl FnOnce(u32) -> io::Result<T>,
    ) -> Result<T, EngineError> {
        let gone = || EngineError::NoSuchInstance(id.clone());
        let pid_of = || -> Result<Option<u32>, EngineError> {
            Ok(self.list()?.into_iter().find(|s| s.id == *id).and_then(|s| s.state.pid()))
        };
        let pid = pid_of()?.ok_or_else(gone)?;
        let found = something(pid);
        if pid_of()? != Some(pid) {
            return Err(gone());
        }
        found.map_err(unreachable(attempted))
    }

    fn statuses(&self, attempted: &'static str, call: Call) -> Result<Vec<InstanceStatus>, EngineError> {
        match self.ask(attempted, call)? {
            Answer::Statuses(statuses) => Ok(statuses),
            other => Err(unexpected(attempted, other)),
        }
    }
}

/// Why a keeper is not continued by another program. It goes on itself, and so do all instances.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The other program cannot be looked at.
    #[error("could not look at the program {}", program.display())]
    Program {
        /// Its path.
        program: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// It speaks another language: its version is too old, or too new.
    #[error("it does not understand what it is asked")]
    NotUnderstood,
    /// It has a reason.
    #[error("it refuses: {0}")]
    Refused(String),
    /// It tried, and still runs its own program.
    #[error("it could not execute {}", program.display())]
    NotExecuted {
        /// The other program.
        program: PathBuf,
    },
    /// It does not answer.
    #[error("it does not answer")]
    Unreachable {
        /// What the system answered.
        source: io::Error,
    },
}

impl Engine for Embedded {
    fn name(&self) -> &'static str {
        NAME
    }

    /// The journal outlives the keeper and its holder, and not the boot it speaks of.
    fn memory(&self) -> Result<String, EngineError> {
        super::boot().map_err(unreachable("tell what it remembers"))
    }

    fn create(&self, orders: &[InstanceOrder]) -> Result<Vec<InstanceStatus>, EngineError> {
        let mut statuses = Vec::with_capacity(orders.len());
        for some in batches(orders) {
            statuses.extend(self.statuses("create instances", Call::Create(some.to_vec()))?);
        }
        Ok(statuses)
    }

    fn stop(&self, ids: &[InstanceId]) -> Result<(), EngineError> {
        self.done("stop instances", Call::Stop(ids.to_vec()))
    }

    fn kill(&self, ids: &[InstanceId]) -> Result<(), EngineError> {
        self.done("kill instances", Call::Kill(ids.to_vec()))
    }

    fn list(&self) -> Result<Vec<InstanceStatus>, EngineError> {
        self.statuses("list instances", Call::List)
    }

    fn changes(&self, timeout: Duration) -> Result<Vec<InstanceStatus>, EngineError> {
        let attempted = "tell what has changed";
        let mut known = self.known.lock().expect("no panic while changes are waited for");
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let call = Call::Changes { since: *known, timeout_ms };
        match self.lines.ask_until(&self.bell, call, timeout).map_err(unreachable(attempted))? {
            None => Ok(Vec::new()),
            Some((Answer::Changes { statuses, until }, _)) => {
                *known = until;
                Ok(statuses)
            }
            Some((other, _)) => Err(unexpected(attempted, other)),
        }
    }

    fn call_back(&self) {
        self.bell.ring();
    }

    fn forget(&self, ids: &[InstanceId]) -> Result<(), EngineError> {
        self.done("forget instances", Call::Forget(ids.to_vec()))
    }

    fn sockets(&self, id: &InstanceId, count: u32) -> Result<Vec<OwnedFd>, EngineError> {
        sockets(&self.lines, id, count)
    }

    fn unenforceable(&self, limits: &Limits, image: &ImageHandle) -> Option<String> {
        limits.io?;
        match Layout::of_this_host() {
            Ok(layout) if layout.has(Controller::Io) => Disk::of(&image.objects).err().map(|e| e.to_string()),
            Ok(_) => Some(NO_IO.into()),
            Err(missing) => Some(missing),
        }
    }

    fn room(&self) -> Option<Room> {
        match self.ask("tell who it is", Call::Who) {
            Ok(Answer::Keeper { pid }) => super::room::left_to(pid).ok()?,
            _ => None,
        }
    }

    fn connections(&self, id: &InstanceId, port: u16) -> Result<u32, EngineError> {
        let read = |pid| super::connections::open_to(pid, port);
        self.with_process(id, "count connections of an instance", read)
    }

    fn locate(&self, places: &BTreeMap<StoreHost, SocketAddr>) -> Result<(), EngineError> {
        self.done("tell where stores are", Call::Locate(places.clone()))
    }

    fn root(&self, id: &InstanceId) -> Result<OwnedFd, EngineError> {
        let open = |pid: u32| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())?)
        };
        self.with_process(id, "look into an instance", open)
    }

    fn exec(
        &self,
        id: &InstanceId,
        order: &ExecOrder,
        streams: [OwnedFd; 3],
    ) -> Result<Box<dyn Execution>, EngineError> {
        let call = Call::Exec { id: id.clone(), order: order.clone() };
        let begun = self.lines.begin(call, &streams).map_err(unreachable(EXEC))?;
        Ok(Box::new(Command { begun, id: id.clone() }))
    }
}

const EXEC: &str = "run a command in an instance";

/// A command inside an instance: the keeper kills it when the connection it was asked for on ends.
struct Command {
    begun: Begun,
    id: InstanceId,
}

impl Execution for Command {
    fn wait(&mut self, timeout: Duration) -> Result<Option<Exit>, EngineError> {
        match self.begun.wait(timeout).map_err(unreachable(EXEC))? {
            None => Ok(None),
            Some(Answer::Executed(exit)) => Ok(Some(exit)),
            Some(Answer::NoSuchInstance) => Err(EngineError::NoSuchInstance(self.id.clone())),
            Some(other) => Err(unexpected(EXEC, other)),
        }
    }
}

/// Which file a program is.
fn program_mark(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Asks for sockets, in as many requests as it takes.
pub(super) fn sockets(lines: &Lines, id: &InstanceId, count: u32) -> Result<Vec<OwnedFd>, EngineError> {
    let attempted = "make sockets in the network of an instance";
    let mut sockets = Vec::with_capacity(count as usize);
    while sockets.len() < count as usize {
        let more = (count as usize - sockets.len()).min(MOST_DESCRIPTORS);
        let call = Call::Sockets { id: id.clone(), count: more as u32 };
        match lines.ask(call).map_err(unreachable(attempted))? {
            (Answer::Sockets, arrived) if arrived.len() == more => sockets.extend(arrived),
            (Answer::NoSuchInstance, _) => return Err(EngineError::NoSuchInstance(id.clone())),
            (other, _) => return Err(unexpected(attempted, other)),
        }
    }
    Ok(sockets)
}

/// The error of a conversation that failed.
pub(super) fn unreachable(attempted: &'static str) -> impl FnOnce(io::Error) -> EngineError {
    move |source| EngineError::Unreachable { engine: NAME, attempted, source }
}

/// The error of an answer to another question, or none.
pub(super) fn unexpected(attempted: &'static str, answer: Answer) -> EngineError {
    let why = match answer {
        Answer::Refused(why) => why,
        _ => "the keeper gave the answer to another question".into(),
    };
    unreachable(attempted)(io::Error::other(why))
}
