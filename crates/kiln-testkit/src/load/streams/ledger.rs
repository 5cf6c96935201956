//! The books of streams.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::report::LoadFailure;
use super::report::{StreamCounts, StreamReport};

/// How a stream ended that was not answered to its end.
#[derive(Debug)]
pub(super) enum Loss {
    /// The service said that it has not begun it.
    Declined,
    /// It was cut, or was not what it should be.
    Failed(String),
}

impl From<String> for Loss {
    fn from(what: String) -> Self {
        Self::Failed(what)
    }
}

/// The time until the answer began, of a stream that ended well.
pub(super) type Outcome = Result<Duration, Loss>;

/// Shared by the thread that makes the streams and whoever asks how they went.
pub(super) struct Ledger {
    begun: Instant,
    books: Mutex<StreamReport>,
}

impl Ledger {
    pub(super) fn open() -> Self {
        Self { begun: Instant::now(), books: Mutex::default() }
    }

    pub(super) fn report(&self) -> StreamReport {
        self.books().clone()
    }

    pub(super) fn began(&self, kind: &'static str) {
        self.books().by_kind.entry(kind).or_default().begun += 1;
    }

    pub(super) fn ended(&self, kind: &'static str, outcome: &Outcome) {
        let at = self.begun.elapsed();
        let mut books = self.books();
        let counts: &mut StreamCounts = books.by_kind.entry(kind).or_default();
        match outcome {
            Ok(waited) => {
                counts.whole += 1;
                counts.slowest = counts.slowest.max(*waited);
            }
            Err(Loss::Declined) => counts.declined += 1,
            Err(Loss::Failed(what)) => counts.failures.push(LoadFailure { at, what: what.clone() }),
        }
    }

    fn books(&self) -> MutexGuard<'_, StreamReport> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
