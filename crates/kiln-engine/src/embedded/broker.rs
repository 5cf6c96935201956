//! The way to sockets in the networks of instances, for a process without privilege.
//!
//! The edge reaches an instance through sockets that were made inside of it, by the keeper, and passed on: connecting
//! one to 127.0.0.1 then costs what a connection on the same host costs, and the instance has no other network.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_model::InstanceId;

use super::client::{sockets, unreachable};
use super::line::Lines;
use super::wire::BROKER_SOCKET;
use crate::EngineError;

/// Where the broker of a keeper listens.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join(BROKER_SOCKET)
}

/// A connection to the broker. Calls on several threads at once do not wait for each other.
#[derive(Debug)]
pub struct Client(Lines);

impl Client {
    /// Connects to the broker that listens at `path` ([`socket_path`]).
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] if none does, or it does not admit this process's user.
    pub fn connect(path: &Path) -> Result<Self, EngineError> {
        Lines::open(path).map(Self).map_err(unreachable("speak with its broker"))
    }

    /// `count` unconnected, non-blocking TCP sockets inside the instance's network. Blocks for as long as the keeper
    /// takes: tens of microseconds for a few. Batches of 16 to 64 are the cheapest for each.
    ///
    /// # Errors
    /// [`EngineError::NoSuchInstance`] if it does not run, [`EngineError::Unreachable`] if the keeper does not answer.
    pub fn sockets(&self, id: &InstanceId, count: u32) -> Result<Vec<OwnedFd>, EngineError> {
        sockets(&self.0, id, count)
    }
}
