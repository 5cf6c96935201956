//! The two processes beside control: started, taken over from a control plane that died, started again when they
//! die, and ended.

mod edge;
mod keeper;

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use kiln_engine::Engine;
use kiln_model::Failure;
use kiln_store::Store;

use super::HostConfig;
use super::driver::{Driver, Waker};
use crate::sync::lock;
use crate::world::Trouble;
use edge::{EdgeProcess, LiveEdge};
use keeper::KeeperProcess;

/// Keeper and edge.
pub(crate) struct Processes {
    keeper: KeeperProcess,
    edge: EdgeProcess,
    waker: Arc<Waker>,
}

/// Where a process beside control complains: to a file, for it outlives the terminal it was started from.
fn complaints(root: &Path, name: &str) -> Stdio {
    let path = root.join("run").join(format!("{name}.log"));
    let file: Option<File> = OpenOptions::new().create(true).append(true).open(path).ok();
    file.map_or_else(Stdio::null, Stdio::from)
}

impl Processes {
    /// Starts them, or takes over those that run already.
    pub(crate) fn start(config: &HostConfig, store: &Store, waker: Arc<Waker>) -> Result<Self, Failure> {
        let keeper = KeeperProcess::start(&config.program, store)?;
        match EdgeProcess::start(&config.program, config.listen, store) {
            Ok(edge) => {
                if keeper.is_new() {
                    // An edge from before knows only the way to a keeper that is no more.
                    edge.replace_if_taken_over().map_err(|trouble| super::failure::no_edge(&trouble))?;
                }
                Ok(Self { keeper, edge, waker })
            }
            Err(failure) => {
                // A keeper this call has started is of no use to anybody.
                keeper.end_if_new();
                Err(failure)
            }
        }
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        self.keeper.engine()
    }

    pub(crate) fn edge(&self) -> LiveEdge {
        LiveEdge {
            client: self.edge.client(),
            waker: self.waker.clone(),
            waiting: Arc::new(Mutex::default()),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.edge.address()
    }

    /// Ends what this control plane has started, if it has.
    pub(crate) fn end_if_new(&self) {
        if self.keeper.is_new() {
            let _ = self.end();
        }
    }

    /// Starts again what has died, as long as the host runs.
    pub(crate) fn supervise(&self, driver: &Driver) {
        while !driver.is_stopped() {
            if matches!(self.keeper.revive(), Ok(true)) {
                // The edge's way to the keeper is gone with the one it had.
                let replaced = self.edge.replace();
                let mut core = lock(&driver.core);
                core.engine_is_new();
                if replaced.is_ok() {
                    core.edge_is_new();
                }
                drop(core);
                self.waker.wake();
            }
            if matches!(self.edge.revive(), Ok(true)) {
                lock(&driver.core).edge_is_new();
                self.waker.wake();
            }
            driver.pause();
        }
    }

    /// Ends both.
    pub(crate) fn end(&self) -> Result<(), Trouble> {
        let edge = self.edge.end();
        let keeper = self.keeper.end();
        edge.and(keeper)
    }
}
