//! How control talks to the edge.

use std::borrow::Cow;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_model::{EdgeCounts, FleetEvidence, FleetId, Millis, RouteTable};

use crate::protocol::{EdgeStats, Estate, Reply, Request, ask};
use crate::sockets::{Door, Listener};
use crate::terse::Terse;
use crate::{Certificate, EdgeError, Proof};

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
    /// Talks to whichever edge answers on `path` when it is asked.
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned() }
    }

    /// The control socket it talks to.
    pub fn path(&self) -> &Path {
        &self.path
    }

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
        let terse = Request::TakeTable { terse: Terse::of(table) };
        let reply = match self.ask(&terse, attempted, Duration::ZERO) {
            Err(EdgeError::NoAnswer { source, .. }) if source.kind() == ErrorKind::UnexpectedEof => {
                // What it does not understand an edge hangs up on: an older one is told in the older way.
                let whole = Request::SetTable { table: Cow::Borrowed(table) };
                self.ask(&whole, attempted, Duration::ZERO)?
            }
            reply => reply?,
        };
        match reply {
            Reply::Stale { in_force } => Err(EdgeError::StaleTable { offered: table.version, in_force }),
            reply => counts(reply, attempted),
        }
    }

    /// Shows these to clients of HTTPS from the next handshake on; connections that stand are not touched.
    ///
    /// # Errors
    /// If one of them cannot be used; then none is, and those from before stay.
    pub fn set_certificates(&self, certificates: &[Certificate]) -> Result<(), EdgeError> {
        let attempted = "take certificates";
        let request = Request::SetCertificates { certificates: certificates.to_vec() };
        done(self.ask(&request, attempted, Duration::ZERO)?, attempted)
    }

    /// Shows these to an authority that looks, and no others.
    ///
    /// # Errors
    /// If one of them cannot be shown, or the edge cannot be reached.
    pub fn set_proofs(&self, proofs: &[Proof]) -> Result<(), EdgeError> {
        let attempted = "show proofs";
        done(self.ask(&Request::SetProofs { proofs: proofs.to_vec() }, attempted, Duration::ZERO)?, attempted)
    }

    /// What is in flight now.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn counts(&self) -> Result<EdgeCounts, EdgeError> {
        let attempted = "say what is in flight";
        counts(self.ask(&Request::Counts, attempted, Duration::ZERO)?, attempted)
    }

    /// What was seen of these fleets while two releases served, and which process has seen it: another one begins
    /// anew.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn evidence(&self, fleets: &[FleetId]) -> Result<(u32, Vec<FleetEvidence>), EdgeError> {
        let attempted = "say what it has seen";
        let request = Request::Evidence { fleets: fleets.to_vec() };
        match self.ask(&request, attempted, Duration::ZERO)? {
            Reply::Evidence { pid, evidence } => Ok((pid, evidence)),
            other => Err(unexpected(other, attempted)),
        }
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

    /// Makes the edge go on with its access log in `file`, which is open for appending. When this returns nothing more
    /// is written to the one before.
    ///
    /// # Errors
    /// If the edge cannot be reached, or keeps no log.
    pub fn take_log(&self, file: &File) -> Result<(), EdgeError> {
        let attempted = "go on with its access log";
        done(self.ask_with(&Request::TakeLog, attempted, Duration::ZERO, &[file.as_fd()])?.0, attempted)
    }

    /// Figures of the edge as a whole.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn stats(&self) -> Result<EdgeStats, EdgeError> {
        let attempted = "give its figures";
        stats(self.ask(&Request::Stats, attempted, Duration::ZERO)?, attempted)
    }

    /// All figures in Prometheus's text format.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn metrics(&self) -> Result<String, EdgeError> {
        let attempted = "give its figures";
        match self.ask(&Request::Metrics, attempted, Duration::ZERO)? {
            Reply::Text { text } => Ok(text),
            other => Err(unexpected(other, attempted)),
        }
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

    /// Makes the edge listen on these as well.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn listen(&self, listeners: &[Listener]) -> Result<(), EdgeError> {
        let attempted = "listen at more doors";
        let doors = listeners.iter().map(|l| l.door.to_string()).collect();
        let fds: Vec<_> = listeners.iter().map(|l| l.socket.as_fd()).collect();
        done(self.ask_with(&Request::Listen { doors }, attempted, Duration::ZERO, &fds)?.0, attempted)
    }

    /// Makes the edge close these doors; whoever came in by them stays.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn deafen(&self, doors: &[Door]) -> Result<(), EdgeError> {
        let attempted = "close doors";
        let doors = doors.iter().map(Door::to_string).collect();
        done(self.ask(&Request::Deafen { doors }, attempted, Duration::ZERO)?, attempted)
    }

    /// What a successor of this edge needs: its listening sockets, and what it serves by.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn hand_over(&self) -> Result<Inheritance, EdgeError> {
        let attempted = "hand over its sockets";
        match self.ask_with(&Request::HandOver, attempted, Duration::ZERO, &[])? {
            (Reply::Estate { estate }, sockets) => Inheritance::new(estate, sockets)
                .ok_or_else(|| EdgeError::Refused { attempted, why: "it gave something else".into() }),
            (other, _) => Err(unexpected(other, attempted)),
        }
    }

    /// Has the edge take no new connections, see those it has to their end, or for `grace`, and end. Returns at once.
    ///
    /// # Errors
    /// If the edge cannot be reached.
    pub fn leave(&self, grace: Duration) -> Result<(), EdgeError> {
        let attempted = "leave";
        done(self.ask(&Request::Leave { grace: millis(grace) }, attempted, Duration::ZERO)?, attempted)
    }

    fn ask(
        &self,
        request: &Request<'_>,
        attempted: &'static str,
        takes: Duration,
    ) -> Result<Reply, EdgeError> {
        Ok(self.ask_with(request, attempted, takes, &[])?.0)
    }

    fn ask_with(
        &self,
        request: &Request<'_>,
        attempted: &'static str,
        takes: Duration,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), EdgeError> {
        let unreachable = |source| EdgeError::Unreachable { attempted, path: self.path.clone(), source };
        let mut stream = UnixStream::connect(&self.path).map_err(unreachable)?;
        let patience = Some(takes.saturating_add(PATIENCE));
        stream.set_read_timeout(patience).map_err(unreachable)?;
        stream.set_write_timeout(patience).map_err(unreachable)?;
        ask(&mut stream, request, fds).map_err(|source| EdgeError::NoAnswer { attempted, source })
    }
}

/// What an edge leaves to its successor.
#[derive(Debug)]
pub struct Inheritance {
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// What it was started as.
    pub identity: String,
    /// Its process.
    pub pid: u32,
    /// The table it serves by, if it has one.
    pub table: Option<RouteTable>,
    /// What it shows to clients of HTTPS.
    pub certificates: Vec<Certificate>,
}

impl Inheritance {
    fn new(estate: Estate, sockets: Vec<OwnedFd>) -> Option<Self> {
        let Estate { doors, identity, pid, table, certificates } = estate;
        if doors.len() != sockets.len() {
            return None;
        }
        let listener =
            |(door, socket): (String, OwnedFd)| Some(Listener { door: door.parse().ok()?, socket });
        let listeners = doors.into_iter().zip(sockets).map(listener).collect::<Option<_>>()?;
        Some(Self { listeners, identity, pid, table, certificates })
    }
}

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn done(reply: Reply, attempted: &'static str) -> Result<(), EdgeError> {
    match reply {
        Reply::Done => Ok(()),
        other => Err(unexpected(other, attempted)),
    }
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
