//! How long the steps of launches take, for whoever measures: a keeper does so only if it is told to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::raw;
use super::step::Step;

/// The clock of one child, which writes on it what time it is after each step.
pub(super) struct Times([AtomicU64; Step::ALL.len()]);

impl Times {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// A step is done. Runs in the child.
    pub(super) fn mark(&self, step: Step) {
        if let Some(at) = self.0.get(step as usize) {
            at.store(raw::nanoseconds(), Ordering::Relaxed);
        }
    }

    /// What each step has taken since the one before it, in the order in which they were done; the first since `born`.
    fn taken(&self, born: u64) -> Vec<(Step, u64)> {
        let all = Step::ALL.iter().map(|step| (*step, self.0[*step as usize].load(Ordering::Relaxed)));
        let mut done: Vec<(Step, u64)> = all.filter(|(_, at)| *at > 0).collect();
        done.sort_by_key(|(_, at)| *at);
        let before = std::iter::once(born).chain(done.iter().map(|(_, at)| *at)).collect::<Vec<_>>();
        done.iter().zip(before).map(|((step, at), before)| (*step, at.saturating_sub(before))).collect()
    }
}

/// Where times are written to: one JSON object a launch, with nanoseconds by step.
#[derive(Debug)]
pub(crate) struct TimesFile(File);

impl TimesFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(path)?))
    }

    /// Of a child that was born at `born`, with what its parent did.
    pub(super) fn write(&self, parents: &ParentTimes, child: Option<&Times>) -> io::Result<()> {
        let mut all = serde_json::Map::new();
        for (name, nanoseconds) in &parents.taken {
            all.insert(format!("keeper: {name}"), (*nanoseconds).into());
        }
        for (step, nanoseconds) in child.into_iter().flat_map(|times| times.taken(parents.born)) {
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
    born: u64,
}

impl ParentTimes {
    pub(crate) fn begin() -> Self {
        Self { last: Instant::now(), taken: Vec::new(), born: 0 }
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

    /// The child is about to be born.
    pub(super) fn birth(&mut self) {
        self.born = raw::nanoseconds();
    }
}
