//! The way to sockets in the networks of instances, for a process without privilege.
//!
//! The edge reaches an instance through sockets that were made inside of it, by the keeper, and passed on: connecting
//! one to 127.0.0.1 then costs what a connection on the same host costs, and the instance has no other network.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_model::{InstanceId, NeedName};

use super::client::{sockets, unexpected, unreachable};
use super::line::Lines;
use super::wire::{Answer, BROKER_SOCKET, Call};
use crate::{Broker, EngineError};

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
}

impl Broker for Client {
    fn sockets(&self, id: &InstanceId, count: u32) -> Result<Vec<OwnedFd>, EngineError> {
        sockets(&self.0, id, count)
    }

    fn listeners(&self, id: &InstanceId) -> Result<Vec<(NeedName, OwnedFd)>, EngineError> {
        let attempted = "get what listens inside an instance";
        let asked = self.0.ask(Call::Listeners { id: id.clone() });
        match asked.map_err(unreachable(attempted))? {
            (Answer::Listeners(names), arrived) if names.len() == arrived.len() => {
                Ok(names.into_iter().zip(arrived).collect())
            }
            (Answer::NoSuchInstance, _) => Err(EngineError::NoSuchInstance(id.clone())),
            (other, _) => Err(unexpected(attempted, other)),
        }
    }

    fn store(&self, id: &InstanceId, need: &NeedName) -> Result<OwnedFd, EngineError> {
        let attempted = "connect to a store";
        let call = Call::Store { id: id.clone(), need: need.clone() };
        match self.0.ask(call).map_err(unreachable(attempted))? {
            (Answer::Sockets, mut arrived) if arrived.len() == 1 => Ok(arrived.remove(0)),
            (Answer::NoSuchInstance, _) => Err(EngineError::NoSuchInstance(id.clone())),
            (other, _) => Err(unexpected(attempted, other)),
        }
    }
}
