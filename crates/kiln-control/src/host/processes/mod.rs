//! The two processes beside control: started, taken over from a control plane that died, started again when they
//! die, and ended.

mod edge;
mod keeper;
mod missing;
mod program;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_engine::Engine;
use kiln_model::Failure;
use kiln_store::Store;
use kiln_store::boundary::between;

use super::HostConfig;
use super::driver::{Driver, Waker};
use crate::shelf::time_of_day;
use crate::sync::lock;
use crate::world::Trouble;
pub use edge::EdgeOptions;
use edge::{EdgeProcess, LiveEdge};
pub(super) use edge::{inspect as inspect_certificate, names as names_of_certificate};
use keeper::KeeperProcess;
use missing::Missing;

/// How often it is looked after the processes; the end of an edge is noticed at once.
const ROUND: Duration = Duration::from_millis(100);
/// How often it is looked whether certificates have been renewed.
const RENEWALS: Duration = Duration::from_secs(1);

/// Where a process beside control comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// This control plane has started it where there was none.
    Ours,
    /// It was there, or what it looks after was.
    Found,
}

/// Keeper and edge.
pub(crate) struct Processes {
    keeper: KeeperProcess,
    edge: Arc<EdgeProcess>,
    live: LiveEdge,
    waker: Arc<Waker>,
    missing: Missing,
}

/// Where a process beside control complains: to a file, for it outlives the terminal it was started from.
fn complaints(root: &Path, name: &str) -> Stdio {
    let path = root.join("run").join(format!("{name}.log"));
    let file: Option<File> = OpenOptions::new().create(true).append(true).open(path).ok();
    file.map_or_else(Stdio::null, Stdio::from)
}

/// Writes down what went wrong around a process, beside its own complaints.
pub(super) fn complain(log: &Path, words: &str) {
    if let Ok(mut log) = OpenOptions::new().create(true).append(true).open(log) {
        let _ = writeln!(log, "{} {words}", time_of_day());
    }
}

impl Processes {
    /// Starts them, or takes over those that run already.
    pub(crate) fn start(config: &HostConfig, store: &Store, waker: Arc<Waker>) -> Result<Self, Failure> {
        let keeper = KeeperProcess::start(&config.program, store)?;
        let edge = EdgeProcess::start(config, store).map(Arc::new).inspect_err(|_| keeper.withdraw())?;
        let live = LiveEdge::start(edge.clone(), waker.clone()).map_err(|e| {
            edge.withdraw();
            keeper.withdraw();
            super::failure::system("start the thread that talks to the edge", &e)
        })?;
        let missing = Missing::in_dir(&store.run_dir());
        Ok(Self { keeper, edge, live, waker, missing })
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        self.keeper.engine()
    }

    pub(crate) fn edge(&self) -> LiveEdge {
        self.live.clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.edge.address()
    }

    pub(crate) fn https_address(&self) -> Option<SocketAddr> {
        self.edge.https_address()
    }

    /// What is doubtful about serving a release from this edge.
    pub(crate) fn doubt(&self, release: &kiln_model::Release) -> Option<String> {
        self.edge.doubt(release)
    }

    pub(crate) fn metrics(&self) -> Result<String, Trouble> {
        self.edge.metrics()
    }

    /// Shows certificates that the host got itself; what does not reach the edge now does with the next look.
    pub(crate) fn show_automatic(&self, certificates: Vec<kiln_edge::Certificate>) {
        let _ = self.edge.show_automatic(certificates);
    }

    /// What the certificates are for that are files of this host, as the table in force names them.
    pub(crate) fn names_of_certificates(&self) -> BTreeSet<String> {
        self.edge.names_of_certificates()
    }

    /// What people should know of a keeper that stands still.
    pub(crate) fn silence_of_keeper(&self) -> Option<String> {
        self.keeper.silence()
    }

    /// Why the keeper is of no use just now: it is asked for a word, and waited for as long as before people are told.
    pub(crate) fn keeper_cannot_answer(&self) -> Option<String> {
        self.keeper.cannot_answer()
    }

    /// Why nobody can be ended just now.
    pub(crate) fn keeper_is_stopped(&self) -> Option<String> {
        self.keeper.is_stopped()
    }

    /// What people should know: of a process that is missing or stands still, and of the certificates that clients are shown.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let missing = self.missing.warnings().into_iter().chain(self.keeper.silence());
        let missing = missing.chain(self.keeper.warning_of_holder());
        missing.chain(self.edge.warnings()).collect()
    }

    /// Writes down what went wrong around the edge, beside its own complaints.
    pub(crate) fn complain(&self, words: &str) {
        self.edge.complain(words);
    }

    pub(crate) fn show_proofs(&self, proofs: &[kiln_edge::Proof]) -> Result<(), Trouble> {
        self.edge.show_proofs(proofs)
    }

    /// Gives the edge a successor, the program as it is on the disk now.
    pub(crate) fn renew_edge(&self) -> Result<(), Trouble> {
        self.edge.renew()
    }

    /// Ends an edge that does not answer; another one is started in its place.
    pub(crate) fn end_edge_if_stuck(&self) {
        self.edge.end_if_stuck();
    }

    /// Undoes a start: what this control plane has started ends with all that came of it, and what it found goes on.
    pub(crate) fn withdraw(&self) {
        self.edge.withdraw();
        self.keeper.withdraw();
    }

    /// Starts again what has died, as long as the host runs.
    pub(crate) fn supervise(&self, driver: &Driver) {
        let mut looked = Instant::now();
        while !driver.is_stopped() {
            if self.missing.heed(Missing::KEEPER, self.keeper.revive()) {
                // The core asks it what is there.
                lock(&driver.core).engine_is_new();
                self.waker.wake();
            }
            if self.missing.heed(Missing::EDGE, self.edge.revive()) {
                lock(&driver.core).edge_is_new();
                self.waker.wake();
            }
            let _ = self.edge.open_what_is_shut();
            if looked.elapsed() >= RENEWALS {
                looked = Instant::now();
                // What does not reach the edge now does with the next look, or with its next table.
                let _ = self.edge.refresh_certificates();
                let _ = self.edge.look_after_log();
                self.live.remember_counts();
            }
            self.edge.wait_for_end(ROUND);
        }
    }

    /// Ends both.
    pub(crate) fn end(&self) -> Result<(), Trouble> {
        let edge = between("end", || self.edge.end());
        let keeper = between("end", || self.keeper.end());
        edge.and(keeper)
    }
}
