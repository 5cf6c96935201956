//! How an instance is, as far as it could be asked.

use kiln_model::{Millis, Timestamp};

/// How an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether it is healthy.
    pub healthy: bool,
    /// Since when that is so.
    pub since: Timestamp,
    /// Whether it ever was.
    pub was_healthy: bool,
    /// What was wrong with the last answer, if anything.
    pub last_problem: Option<String>,
    /// The part of the time since then that says nothing of it.
    pub unasked: Unasked,
}

/// How long an instance could not be asked how it is: no keeper answered, or a limit of the host was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unasked {
    /// Since when, if it cannot be asked now.
    pub since: Option<Timestamp>,
    /// How long altogether before.
    pub before: Millis,
}

impl Condition {
    /// Of one that is watched from `since` on, and that is taken for healthy or not until it has answered.
    pub fn presumed(healthy: bool, since: Timestamp) -> Self {
        Self { healthy, since, was_healthy: healthy, last_problem: None, unasked: Unasked::NEVER }
    }

    /// From when on an instance that is not healthy has had time to become it. None while it cannot be asked: nobody can
    /// tell whether it has.
    pub fn counts_from(&self) -> Option<Timestamp> {
        self.unasked.since.is_none().then(|| self.since.after(self.unasked.before))
    }
}

impl Unasked {
    /// It always could be.
    pub const NEVER: Self = Self { since: None, before: Millis(0) };

    /// It has not been possible to ask it since `at`.
    pub fn begin(&mut self, at: Timestamp) {
        self.since.get_or_insert(at);
    }

    /// It is possible again. Whether it was not before.
    pub fn end(&mut self, now: Timestamp) -> bool {
        let since = self.since.take();
        self.before = Millis(self.before.0 + since.map_or(0, |since| since.until(now).0));
        since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_it_could_not_be_asked_does_not_count() {
        let mut condition = Condition::presumed(false, Timestamp(1_000));
        assert_eq!(condition.counts_from(), Some(Timestamp(1_000)));
        condition.unasked.begin(Timestamp(2_000));
        condition.unasked.begin(Timestamp(5_000));
        assert_eq!(condition.counts_from(), None);
        assert!(condition.unasked.end(Timestamp(9_000)) && !condition.unasked.end(Timestamp(9_500)));
        assert_eq!(condition.counts_from(), Some(Timestamp(8_000)));
    }
}
