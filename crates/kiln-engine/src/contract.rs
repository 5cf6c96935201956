//! What every engine does, and how it says that it could not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use kiln_model::{
    ExecOrder, Exit, ImageHandle, InstanceId, InstanceOrder, InstanceStatus, Limits, NeedName, StoreHost,
};

/// Something that makes and destroys instances.
///
/// An engine makes no choices: it carries out orders, reports what is there, and remembers how each instance ended
/// until told to forget. All calls are safe to repeat. An engine outlives the process that calls it: what it made
/// is still listed when the next caller asks.
pub trait Engine: Send + Sync {
    /// The engine's name, for people: `embedded`, `fake`.
    fn name(&self) -> &'static str;

    /// A name for what the engine remembers. As long as it is the same, an id that `list` does not tell of and that
    /// nobody had forgotten was never made.
    ///
    /// # Errors
    /// If the engine cannot be reached.
    fn memory(&self) -> Result<String, EngineError>;

    /// Makes instances, and returns when each either runs its program or is known not to: one status per order, in
    /// order ([`kiln_model::InstanceState::Ended`] with [`kiln_model::Exit::NotStarted`] for those that failed; the
    /// failure of one is not the failure of the others). An order whose id is known already makes nothing and is
    /// answered with that instance's status.
    ///
    /// # Errors
    /// If the engine cannot be reached; then some of the instances may exist, and `list` tells.
    fn create(&self, orders: &[InstanceOrder]) -> Result<Vec<InstanceStatus>, EngineError>;

    /// Asks instances to end: the stop signal of their image now, SIGKILL after its grace period. Returns at once;
    /// the end shows in `changes` and `list`. Unknown and ended ones are passed over.
    ///
    /// # Errors
    /// If the engine cannot be reached.
    fn stop(&self, ids: &[InstanceId]) -> Result<(), EngineError>;

    /// Kills instances at once, without grace, and returns when nothing of them is left but their status and output.
    ///
    /// # Errors
    /// If the engine cannot be reached.
    fn kill(&self, ids: &[InstanceId]) -> Result<(), EngineError>;

    /// Every instance that exists, and every ended one not yet forgotten, sorted by id.
    ///
    /// # Errors
    /// If the engine cannot be reached.
    fn list(&self) -> Result<Vec<InstanceStatus>, EngineError>;

    /// Waits up to `timeout` for changes of state since this engine value last returned from `changes` (the first
    /// time: since ever), and returns the new statuses in the order in which they came about; empty if there were
    /// none. Of an instance that has changed more than once the last status is enough. One caller at a time.
    ///
    /// # Errors
    /// If the engine cannot be reached.
    fn changes(&self, timeout: Duration) -> Result<Vec<InstanceStatus>, EngineError>;

    /// Has whoever waits in `changes` return now, without any; if nobody waits, whoever does next.
    fn call_back(&self);

    /// Drops the memory of ended instances. Unknown ones and those not ended are passed over.
    ///
    /// # Errors
    /// If the engine cannot be reached.
    fn forget(&self, ids: &[InstanceId]) -> Result<(), EngineError>;

    /// `count` unconnected, non-blocking TCP sockets inside the instance's network, from which its ports are
    /// reached as 127.0.0.1.
    ///
    /// # Errors
    /// [`EngineError::NoSuchInstance`] if it does not run; otherwise as above.
    fn sockets(&self, id: &InstanceId, count: u32) -> Result<Vec<OwnedFd>, EngineError>;

    /// Where the stores are that go by a name: from now on connections that instances ask for lead there, and to those
    /// that are not among `places` none. Connections that are open stay. It is remembered as instances are.
    ///
    /// # Errors
    /// If the engine cannot be reached.
    fn locate(&self, places: &BTreeMap<StoreHost, SocketAddr>) -> Result<(), EngineError>;

    /// The root directory of an instance as its processes see it, to be looked into and never written to: opened as
    /// a path only. Links below it are not to be followed: they would lead out.
    ///
    /// # Errors
    /// [`EngineError::NoSuchInstance`] if it does not run; otherwise as above.
    fn root(&self, id: &InstanceId) -> Result<OwnedFd, EngineError>;

    /// What of these limits this engine cannot hold instances of `image` to on this host, in a sentence; nothing if
    /// it can all.
    fn unenforceable(&self, limits: &Limits, image: &ImageHandle) -> Option<String>;

    /// How many more instances this engine can hold under the limits that it itself is under; none if nothing of the
    /// kind is known.
    fn room(&self) -> Option<Room>;

    /// How many TCP connections to a port of an instance are open, as its own network has it.
    ///
    /// # Errors
    /// [`EngineError::NoSuchInstance`] if it does not run; otherwise as above.
    fn connections(&self, id: &InstanceId, port: u16) -> Result<u32, EngineError>;

    /// Begins a command inside an instance, beside its main process: in all its namespaces, its limits and its
    /// confinement. `streams` become its standard input, output and error. Returns at once: whether it could be
    /// begun shows in [`Execution::wait`].
    ///
    /// # Errors
    /// If the engine cannot be reached.
    fn exec(
        &self,
        id: &InstanceId,
        order: &ExecOrder,
        streams: [OwnedFd; 3],
    ) -> Result<Box<dyn Execution>, EngineError>;
}

/// What an engine has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// About so many more instances; certainly not many more.
    pub instances: u64,
    /// The limit that makes it so, with its value.
    pub limit: String,
    /// How it is raised.
    pub remedy: String,
}

/// A command inside an instance. It is killed when this value is dropped, or its instance ends.
pub trait Execution: Send {
    /// How it ended ([`Exit::NotStarted`] if it never ran); none if it has not within `timeout`. Once it has been
    /// told there is nothing more to wait for.
    ///
    /// # Errors
    /// [`EngineError::NoSuchInstance`] if the instance does not run, or the engine cannot be reached.
    fn wait(&mut self, timeout: Duration) -> Result<Option<Exit>, EngineError>;
}

/// The way to sockets in the networks of instances, for a process without privilege. It can do nothing else.
pub trait Broker: Send + Sync {
    /// As [`Engine::sockets`]. Batches of 16 to 64 are the cheapest for each.
    ///
    /// # Errors
    /// [`EngineError::NoSuchInstance`] if it does not run, [`EngineError::Unreachable`] if nobody answers.
    fn sockets(&self, id: &InstanceId, count: u32) -> Result<Vec<OwnedFd>, EngineError>;

    /// What listens inside an instance for what it needs: non-blocking TCP listeners, each with the need it is for, in
    /// the order of the needs and their ports. They listen since before its program ran. Asked for again, they are the
    /// same.
    ///
    /// # Errors
    /// As for [`Broker::sockets`].
    fn listeners(&self, id: &InstanceId) -> Result<Vec<(NeedName, OwnedFd)>, EngineError>;

    /// A connection to a store that an instance needs: begun, and to be waited for. It leads where the instance's order
    /// and [`Engine::locate`] say; whoever asks has no say in that.
    ///
    /// # Errors
    /// As for [`Broker::sockets`]; if the instance needs no such store; if nobody has said where it is; if the system
    /// refuses at once.
    fn store(&self, id: &InstanceId, need: &NeedName) -> Result<OwnedFd, EngineError>;
}

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such running instance.
    #[error("there is no running instance {0}")]
    NoSuchInstance(InstanceId),
    /// The host lacks something the engine needs.
    #[error("this host cannot run instances: {what}")]
    Unsupported {
        /// What it lacks, and what to do about it.
        what: String,
    },
    /// Talking to the engine failed.
    #[error("the {engine} engine could not be reached while it was asked to {attempted}")]
    Unreachable {
        /// The engine's name.
        engine: &'static str,
        /// What was attempted.
        attempted: &'static str,
        /// What the system answered.
        source: std::io::Error,
    },
}
