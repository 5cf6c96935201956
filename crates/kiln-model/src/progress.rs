//! What is told to whoever waits.

use serde::{Deserialize, Serialize};

/// One piece of news about work under way. `done` and `total` are in `unit`s; `total` is absent while unknown.
/// A later piece with the same `task` replaces an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, e.g. `fetching packages`; short, without end punctuation.
    pub task: String,
    /// How much of it is done.
    pub done: u64,
    /// How much there is in all.
    pub total: Option<u64>,
    /// What is counted: `bytes`, `packages`, `instances`, or empty.
    pub unit: String,
    /// Whether this task has ended.
    pub finished: bool,
}
