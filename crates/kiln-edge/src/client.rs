//! How control talks to the edge.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_model::{EdgeCounts, FleetId, Millis, RouteTable};

use crate::EdgeError;
use crate::protocol::{EdgeStats, Reply, Request, ask};

/// How much longer than it was asked to take the edge may take to answer before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Talks to the edge on its control socket. Every question goes over a connection of its own, so that a long wait
/// holds up nobody, and an edge that was replaced meanwhile is simply the one that answers. Calls block; they may be
/// made from several threads.
#[derive(Debug, Clone)]
pub struct EdgeClient {
    path: PathBuf,
}

impl EdgeClient {
    /// Makes sure that an edge answers on `path`.
    ///
    /// # Errors
    /// [`EdgeError::Unreachable`] if none does.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, EdgeError> {
        let client = Self { path: path.as_ref().to_owned() };
        client.counts()?;
        Ok(client)
    }

    /// Puts `table` in force on all of the edge's threads. After this returns no request begins by an older one.
    /// Fleets that `table` does not name are cut.
    ///
    /// # Errors
    /// [`EdgeError::StaleTable`] if the edge has one at least as new.
    pub fn set_table(&self, table: &RouteTable) -> Result<EdgeCounts, EdgeError> {
        let attempted = "take a new routing table";
        match self.ask(&Request::SetTable { table: table.clone() }, attempted, Duration::ZERO)? {
            Reply::Stale { in_force } => Err(EdgeError::StaleTable { offered: table.version, in_force }),
            reply => counts(reply, attempted),
        }
    }

    /// What is in flight now.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn counts(&self) -> Result<EdgeCounts, EdgeError> {
        let attempted = "say what is in flight";
        counts(self.ask(&Request::Counts, attempted, Duration::ZERO)?, attempted)
    }

    /// Returns as soon as nothing is in flight at any of `fleets`, or after `timeout`; the counts tell which. A
    /// fleet that the table in force does not name has nothing in flight.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn wait_drained(&self, fleets: &[FleetId], timeout: Duration) -> Result<EdgeCounts, EdgeError> {
        let attempted = "wait until nothing is in flight";
        let request = Request::WaitDrained { fleets: fleets.to_vec(), timeout: millis(timeout) };
        counts(self.ask(&request, attempted, timeout)?, attempted)
    }

    /// Figures of the edge as a whole.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn stats(&self) -> Result<EdgeStats, EdgeError> {
        let attempted = "give its figures";
        stats(self.ask(&Request::Stats, attempted, Duration::ZERO)?, attempted)
    }

    /// Ends the edge: no new connections, then what is in flight, for at most `grace`. Returns when the process is
    /// about to end; `in_flight` is what it cuts.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn shutdown(&self, grace: Duration) -> Result<EdgeStats, EdgeError> {
        let attempted = "shut down";
        stats(self.ask(&Request::Shutdown { grace: millis(grace) }, attempted, grace)?, attempted)
    }

    fn ask(&self, request: &Request, attempted: &'static str, takes: Duration) -> Result<Reply, EdgeError> {
        let unreachable = |source| EdgeError::Unreachable { attempted, path: self.path.clone(), source };
        let mut stream = UnixStream::connect(&self.path).map_err(unreachable)?;
        let patience = Some(takes.saturating_add(PATIENCE));
        stream.set_read_timeout(patience).map_err(unreachable)?;
        stream.set_write_timeout(patience).map_err(unreachable)?;
        ask(&mut stream, request).map_err(|source| EdgeError::NoAnswer { attempted, source })
    }
}

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn counts(reply: Reply, attempted: &'static str) -> Result<EdgeCounts, EdgeError> {
    match reply {
        Reply::Counts { counts } => Ok(counts),
        other => Err(unexpected(other, attempted)),
    }
}

fn stats(reply: Reply, attempted: &'static str) -> Result<EdgeStats, EdgeError> {
    match reply {
        Reply::Stats { stats } => Ok(stats),
        other => Err(unexpected(other, attempted)),
    }
}

fn unexpected(reply: Reply, attempted: &'static str) -> EdgeError {
    let why = match reply {
        Reply::Refused { why } => why,
        other => format!("it answered something else: {other:?}"),
    };
    EdgeError::Refused { attempted, why }
}
