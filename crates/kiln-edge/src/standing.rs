//! How an instance has done lately, as one thread saw it: who fails several times in a row is left alone for a while,
//! and who is new is not thrown in at the deep end.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which an instance is left alone.
const FAILURES: u32 = 3;
/// For how long, the first time; twice as long each time after that.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// How long it takes until a new instance gets as much as the others.
const WARM_UP: Duration = Duration::from_secs(2);

/// What is remembered.
pub(crate) struct Standing {
    since: Instant,
    is_warm: Cell<bool>,
    failures: Cell<u32>,
    ejections: Cell<u32>,
    until: Cell<Option<Instant>>,
}

impl Standing {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            is_warm: Cell::new(false),
            failures: Cell::new(0),
            ejections: Cell::new(0),
            until: Cell::new(None),
        }
    }

    /// It answered.
    pub(crate) fn answered(&self) {
        if self.failures.get() > 0 {
            self.failures.set(0);
            self.ejections.set(0);
        }
    }

    /// It did not; whether that was once too often.
    pub(crate) fn failed(&self) -> bool {
        self.failures.set(self.failures.get() + 1);
        self.failures.get() >= FAILURES && self.until.get().is_none()
    }

    /// Leaves it alone for a while. After that one failure is enough to be left alone again.
    pub(crate) fn eject(&self) {
        let times = self.ejections.get();
        self.ejections.set(times + 1);
        let span = FIRST.saturating_mul(1 << times.min(16)).min(LONGEST);
        self.until.set(Some(Instant::now() + span));
    }

    /// Whether it is being left alone.
    pub(crate) fn is_ejected(&self) -> bool {
        match self.until.get() {
            None => false,
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                self.until.set(None);
                false
            }
        }
    }

    /// The part of its full load that it takes by now, from 0 to 1000.
    pub(crate) fn warmth(&self) -> usize {
        if self.is_warm.get() {
            return 1000;
        }
        let age = self.since.elapsed();
        if age >= WARM_UP {
            self.is_warm.set(true);
            return 1000;
        }
        // Not nothing at the beginning: it is healthy, and somebody has to be the first.
        100 + usize::try_from(age.as_millis() * 900 / WARM_UP.as_millis()).unwrap_or(900)
    }
}

/// What may be spent on asking again: a part of what is asked, so that trouble does not multiply itself.
pub(crate) struct Budget(Cell<u32>);

/// In tenths of a retry: two for each request, and no more saved than for a hundred.
const EARNED: u32 = 2;
const SAVED: u32 = 1000;
const COST: u32 = 10;

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Cell::new(SAVED))
    }

    pub(crate) fn earn(&self) {
        self.0.set((self.0.get() + EARNED).min(SAVED));
    }

    /// Whether one more may be asked again.
    pub(crate) fn spend(&self) -> bool {
        let left = self.0.get().checked_sub(COST);
        if let Some(left) = left {
            self.0.set(left);
        }
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_fails_in_a_row_is_left_alone_for_longer_each_time() {
        let standing = Standing::new();
        assert!(!standing.failed() && !standing.failed());
        standing.answered();
        assert!(!standing.failed() && !standing.failed() && standing.failed());
        for wait in [500, 1000, 2000] {
            standing.eject();
            assert!(standing.is_ejected() && !standing.failed());
            tokio::time::advance(Duration::from_millis(wait - 1)).await;
            assert!(standing.is_ejected());
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(!standing.is_ejected());
            assert!(standing.failed(), "one more is enough");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_instance_warms_up() {
        let standing = Standing::new();
        assert_eq!(standing.warmth(), 100);
        tokio::time::advance(WARM_UP / 2).await;
        assert_eq!(standing.warmth(), 550);
        tokio::time::advance(WARM_UP / 2).await;
        assert_eq!(standing.warmth(), 1000);
    }

    #[test]
    fn a_fifth_of_all_requests_may_be_asked_again() {
        let budget = Budget::new();
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 100);
        let again = (0..1000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert_eq!(again.count(), 200);
    }
}
