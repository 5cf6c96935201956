//! News of one task, told as it changes.

use std::sync::atomic::{AtomicU64, Ordering};

use kiln_model::Progress;

use crate::order::Report;

/// A task under way. Counting is cheap and may be done by many threads; whoever listens is told of the whole count.
pub(crate) struct Task<'a> {
    report: &'a dyn Report,
    name: String,
    unit: &'static str,
    total: Option<u64>,
    done: AtomicU64,
}

impl<'a> Task<'a> {
    pub(crate) fn new(
        report: &'a dyn Report,
        name: impl Into<String>,
        unit: &'static str,
        total: Option<u64>,
    ) -> Self {
        let task = Self { report, name: name.into(), unit, total, done: AtomicU64::new(0) };
        task.tell(false);
        task
    }

    /// Counts `n` more as done.
    pub(crate) fn add(&self, n: u64) {
        self.done.fetch_add(n, Ordering::Relaxed);
        self.tell(false);
    }

    /// Says that the task has ended.
    pub(crate) fn finish(&self) {
        self.tell(true);
    }

    fn tell(&self, finished: bool) {
        self.report.progress(Progress {
            task: self.name.clone(),
            done: self.done.load(Ordering::Relaxed),
            total: self.total,
            unit: self.unit.into(),
            finished,
        });
    }
}
