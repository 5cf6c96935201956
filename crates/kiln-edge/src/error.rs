//! Why the edge could not do something, or could not be told to.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What was attempted, on what; the system's own words are the source.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// Somebody else listens there.
    #[error("{address} is in use by another program")]
    AddressInUse {
        /// Where the edge was to listen.
        address: SocketAddr,
        /// What the system answered.
        source: io::Error,
    },
    /// A listening socket could not be made.
    #[error("could not listen on {address}")]
    Listen {
        /// Where the edge was to listen.
        address: SocketAddr,
        /// What the system answered.
        source: io::Error,
    },
    /// The socket on which the edge is told what to do could not be made.
    #[error("could not make the edge's control socket {path}", path = path.display())]
    ControlSocket {
        /// Its path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// An edge answers on that control socket already.
    #[error("an edge runs already: it answers on {path}", path = path.display())]
    AlreadyRunning {
        /// Its path.
        path: PathBuf,
    },
    /// The process was not started as an edge.
    #[error("no sockets were handed to this process: it is started by `kiln serve`, not by hand")]
    NoSockets,
    /// The edge's process could not be started.
    #[error("could not start the edge's process")]
    Spawn {
        /// What the system answered.
        source: io::Error,
    },
    /// The edge could not set itself up.
    #[error("the edge could not {attempted}")]
    Setup {
        /// What it tried.
        attempted: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// The edge could not give up its privileges, and does not serve with them.
    #[error("the edge could not confine itself: {attempted}")]
    Confine {
        /// What it tried.
        attempted: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// One of the edge's threads ended, which none does before it is told to.
    #[error("thread {thread} of the edge ended unexpectedly")]
    ThreadEnded {
        /// Which, counted from 0.
        thread: usize,
    },
    /// Nobody answers on the control socket.
    #[error("could not {attempted}: no edge answers on {path}", path = path.display())]
    Unreachable {
        /// What the edge was asked to do.
        attempted: &'static str,
        /// The control socket.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The edge was reached, but the talk with it broke off, so that it is not known whether it did what it was asked.
    #[error("the edge was asked to {attempted} and did not answer")]
    NoAnswer {
        /// What it was asked to do.
        attempted: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// The edge holds a table at least as new.
    #[error("the edge refused table {offered}: it is at table {in_force}")]
    StaleTable {
        /// The version it was given.
        offered: u64,
        /// The version it serves.
        in_force: u64,
    },
    /// The edge refused for a reason of its own.
    #[error("the edge refused to {attempted}: {why}")]
    Refused {
        /// What it was asked to do.
        attempted: &'static str,
        /// Its reason.
        why: String,
    },
}
