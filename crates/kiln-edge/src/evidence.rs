//! What is seen of a fleet while two releases serve, for the verdict about the newer one.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use kiln_model::{Evidence, LATENCY_BUCKETS, latency_bucket};

/// Counted where it happens, by all threads.
#[derive(Debug)]
pub(crate) struct Seen {
    failed: AtomicU64,
    latency: [AtomicU64; LATENCY_BUCKETS],
}

impl Default for Seen {
    fn default() -> Self {
        Self { failed: AtomicU64::new(0), latency: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Seen {
    /// The head of an answer has come after this time, or nobody waits for it any longer.
    pub(crate) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.latency[latency_bucket(micros)].fetch_add(1, Relaxed);
    }

    /// One that was counted has failed.
    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Release);
    }

    /// Another fleet had to answer.
    pub(crate) fn could_not_answer(&self) {
        self.took(Duration::ZERO);
        self.failed();
    }

    pub(crate) fn evidence(&self) -> Evidence {
        // Those who failed were counted before: what is read first is never more than what is read after it.
        let failed = self.failed.load(Acquire);
        let latency: Vec<u64> = self.latency.iter().map(|n| n.load(Relaxed)).collect();
        Evidence { requests: latency.iter().sum(), failed, latency }
    }
}
