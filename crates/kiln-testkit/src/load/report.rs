//! What became of the load.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Every request that began, and how it ended: `requests == succeeded + failures.len()`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Requests that began.
    pub requests: u64,
    /// Those answered with 200 and a whole body.
    pub succeeded: u64,
    /// All others.
    pub failures: Vec<LoadFailure>,
    /// Successful answers by their marker.
    pub by_marker: BTreeMap<String, u64>,
    /// Kept connections that the service closed, properly, between requests.
    pub reconnects: u64,
    /// Half of the successful requests took no longer, counted from when they were due.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// None took longer.
    pub max: Duration,
}

/// A request that did not end as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadFailure {
    /// When it failed, since the start of the load.
    pub at: Duration,
    /// What happened.
    pub what: String,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, failures, p50, p99, max, .. } = self;
        let failed = failures.len();
        write!(f, "{requests} requests, {failed} failed, p50 {p50:?}, p99 {p99:?}, max {max:?}")?;
        for LoadFailure { at, what } in failures.iter().take(10) {
            write!(f, "\n  at {at:?}: {what}")?;
        }
        Ok(())
    }
}
