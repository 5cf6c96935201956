//! The books: what began, and how it ended.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::latency::Latencies;
use super::report::{LoadFailure, LoadReport};

/// Shared by the thread that makes the load and whoever waits for it.
pub(super) struct Ledger {
    begun: Instant,
    books: Mutex<Books>,
    changed: Condvar,
}

struct Books {
    report: LoadReport,
    latencies: Latencies,
}

impl Ledger {
    pub(super) fn open() -> Self {
        let books = Books { report: LoadReport::default(), latencies: Latencies::new() };
        Self { begun: Instant::now(), books: Mutex::new(books), changed: Condvar::new() }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn began(&self) {
        self.books().report.requests += 1;
    }

    pub(super) fn reconnected(&self) {
        self.books().report.reconnects += 1;
    }

    /// Closes the account of a request that was due at `due`.
    pub(super) fn ended(&self, due: Instant, outcome: Result<String, String>) {
        let mut books = self.books();
        match outcome {
            Ok(marker) => {
                books.report.succeeded += 1;
                *books.report.by_marker.entry(marker).or_default() += 1;
                books.latencies.add(due.elapsed());
            }
            Err(what) => {
                let at = self.begun.elapsed();
                books.report.failures.push(LoadFailure { at, what });
            }
        }
        self.changed.notify_all();
    }

    /// Waits until `count` requests have ended; false if they have not within `limit`.
    pub(super) fn wait_for(&self, count: u64, limit: Duration) -> bool {
        let fewer = |b: &mut Books| b.report.succeeded + (b.report.failures.len() as u64) < count;
        let waited = self.changed.wait_timeout_while(self.books(), limit, fewer);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    pub(super) fn report(&self) -> LoadReport {
        let books = self.books();
        let by = |share| books.latencies.quantile(share);
        let max = books.latencies.max();
        let markers: BTreeMap<_, _> = books.report.by_marker.clone();
        LoadReport { p50: by(0.5), p99: by(0.99), max, by_marker: markers, ..books.report.clone() }
    }
}
