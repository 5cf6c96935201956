//! How long the steps of launches take, for whoever measures: a keeper does so only if it is told to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::raw;
use super::step::Step;

/// The clock of one child, which notes on it how long each step has taken.
pub(super) struct Times {
    last: AtomicU64,
    taken: [AtomicU64; Step::ALL.len()],
}

impl Times {
    pub(super) fn new() -> Self {
        Self { last: AtomicU64::new(0), taken: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// The child is about to be born: its first step begins.
    pub(super) fn begin(&self) {
        self.last.store(raw::nanoseconds(), Ordering::Relaxed);
    }

    /// A step is done, or a part of one: parts add up. Runs in the child.
    pub(super) fn mark(&self, step: Step) {
        let now = raw::nanoseconds();
        let before = self.last.swap(now, Ordering::Relaxed);
        if let Some(taken) = self.taken.get(step as usize) {
            taken.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
        }
    }

    /// The steps that were done, and how many nanoseconds each has taken.
    fn taken(&self) -> impl Iterator<Item = (Step, u64)> {
        let all = Step::ALL.iter().map(|step| (*step, self.taken[*step as usize].load(Ordering::Relaxed)));
        all.filter(|(_, taken)| *taken > 0)
    }
}

/// Where times are written to: one JSON object a launch, with nanoseconds by step.
#[derive(Debug)]
pub(crate) struct TimesFile(File);

impl TimesFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(path)?))
    }

    /// Of a child, with what its parent did.
    pub(super) fn write(&self, parents: &ParentTimes, child: Option<&Times>) -> io::Result<()> {
        let mut all = serde_json::Map::new();
        for (name, nanoseconds) in &parents.taken {
            all.insert(format!("keeper: {name}"), (*nanoseconds).into());
        }
        for (step, nanoseconds) in child.into_iter().flat_map(Times::taken) {
            all.insert(format!("child: {}", step.words()), nanoseconds.into());
        }
        (&self.0).write_all(format!("{}\n", serde_json::Value::Object(all)).as_bytes())
    }
}

/// What a parent does for one child.
#[derive(Debug)]
pub(crate) struct ParentTimes {
    last: Instant,
    taken: Vec<(&'static str, u64)>,
}

impl ParentTimes {
    pub(crate) fn begin() -> Self {
        Self { last: Instant::now(), taken: Vec::new() }
    }

    /// Something is done.
    pub(crate) fn mark(&mut self, what: &'static str) {
        let now = Instant::now();
        self.taken.push((what, u64::try_from((now - self.last).as_nanos()).unwrap_or(u64::MAX)));
        self.last = now;
    }

    /// Something that was begun later is done.
    pub(super) fn add(&mut self, what: &'static str, begun: Instant) {
        self.last = begun;
        self.mark(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_in_parts_adds_up_and_nothing_else_is_counted() {
        let times = Times::new();
        let begun = raw::nanoseconds();
        let pass_a_millisecond = || {
            let now = raw::nanoseconds();
            while raw::nanoseconds() < now + 1_000_000 {}
        };
        times.begin();
        pass_a_millisecond();
        times.mark(Step::Capabilities);
        times.mark(Step::Ids);
        pass_a_millisecond();
        times.mark(Step::Capabilities);
        let all = raw::nanoseconds() - begun;
        let taken: Vec<(Step, u64)> = times.taken().collect();
        assert_eq!(taken.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [Step::Ids, Step::Capabilities]);
        assert!(taken[1].1 >= 2_000_000 && taken[0].1 + taken[1].1 <= all, "{taken:?} of {all}");
    }
}
