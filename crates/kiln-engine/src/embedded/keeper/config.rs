//! Where a keeper works, and for whom.

use std::io;
use std::path::PathBuf;

/// All a keeper is told when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The directory of its sockets, its lock and its log; made if it is not there. It also names the keeper's
    /// control groups: two keepers never share one.
    pub run_dir: PathBuf,
    /// The directory the output of instances is kept in; made if it is not there.
    pub output_dir: PathBuf,
    /// The user the edge runs as, who may ask for sockets into the networks of instances. Root may anyway.
    pub edge_uid: Option<u32>,
    /// A file to which the times of the steps of each launch are appended, for benchmarks.
    pub times: Option<PathBuf>,
}

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// One runs already.
    #[error("a keeper already works in {}", run_dir.display())]
    AlreadyRunning {
        /// Its run directory.
        run_dir: PathBuf,
    },
    /// The host lacks something.
    #[error("this host cannot run instances: {0}")]
    Unsupported(String),
    /// A call to the system failed.
    #[error("the keeper could not {attempted}")]
    System {
        /// What was attempted, and on what.
        attempted: String,
        /// What the system answered.
        source: io::Error,
    },
}

impl KeeperError {
    pub(super) fn new(attempted: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { attempted: attempted.into(), source: source.into() }
    }
}
