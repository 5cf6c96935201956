//! What became of the streams.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::super::report::LoadFailure;

/// Every stream that began and how it ended, by the name of its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Of each kind that was wanted.
    pub by_kind: BTreeMap<&'static str, StreamCounts>,
}

/// Streams of one kind: `begun == whole + declined + failures.len()` when all have ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Streams that began.
    pub begun: u64,
    /// Those that were answered as they should, to their end.
    pub whole: u64,
    /// Those of HTTP/2 that the service said it has not begun, for the client to ask again over another connection.
    pub declined: u64,
    /// All others.
    pub failures: Vec<LoadFailure>,
    /// The longest wait for the beginning of an answer.
    pub slowest: Duration,
}

impl StreamReport {
    /// Streams of all kinds that were whole.
    pub fn whole(&self) -> u64 {
        self.by_kind.values().map(|counts| counts.whole).sum()
    }

    /// What went wrong, with the kind and the time.
    pub fn failures(&self) -> Vec<String> {
        let of = |(kind, counts): (&&str, &StreamCounts)| {
            let told = |LoadFailure { at, what }: &LoadFailure| format!("{kind} at {at:.1?}: {what}");
            counts.failures.iter().map(told).collect::<Vec<_>>()
        };
        self.by_kind.iter().flat_map(of).collect()
    }

    /// How many of each kind went wrong, and how the first of them did.
    pub fn losses(&self) -> Vec<String> {
        let of = |(kind, counts): (&&str, &StreamCounts)| {
            let (lost, begun) = (counts.failures.len(), counts.begun);
            let first = |LoadFailure { at, what }: &LoadFailure| {
                format!("{lost} of {begun} {kind}, the first at {at:.1?}: {what}")
            };
            counts.failures.first().map(first)
        };
        self.by_kind.iter().filter_map(of).collect()
    }

    /// The longest wait for the beginning of an answer, of any kind.
    pub fn slowest(&self) -> Duration {
        self.by_kind.values().map(|counts| counts.slowest).max().unwrap_or_default()
    }
}

impl fmt::Display for StreamReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, counts)) in self.by_kind.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{} {kind}", counts.whole)?;
            if counts.declined > 0 {
                write!(f, " ({} more declined and asked again)", counts.declined)?;
            }
        }
        Ok(())
    }
}
