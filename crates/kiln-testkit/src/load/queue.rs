//! Requests that are due and wait for a kept connection.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::Notify;

/// When each was due; of one thread.
#[derive(Default)]
pub(super) struct Queue {
    due: RefCell<VecDeque<Instant>>,
    closed: Cell<bool>,
    changed: Notify,
}

impl Queue {
    pub(super) fn push(&self, due: Instant) {
        self.due.borrow_mut().push_back(due);
        self.changed.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.due.borrow().len()
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.changed.notify_waiters();
    }

    /// The next that is due; None when there will be none.
    pub(super) async fn next(&self) -> Option<Instant> {
        loop {
            let changed = self.changed.notified();
            if let Some(due) = self.due.borrow_mut().pop_front() {
                return Some(due);
            }
            if self.closed.get() {
                return None;
            }
            changed.await;
        }
    }
}
