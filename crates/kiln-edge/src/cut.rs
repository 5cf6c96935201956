//! How a request in flight is told, from outside its task, that its time is up.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::counts::Tally;

/// One request in flight (or the tunnel it has become), as the rest of its thread sees it.
#[derive(Default)]
pub(crate) struct Ticket {
    /// The fleet it is at.
    fleet: RefCell<Option<Arc<Tally>>>,
    told: Cell<Option<Instant>>,
    /// Since when the head of an answer is awaited, if somebody is to be told when that has taken too long.
    awaits: Cell<Option<Instant>>,
    is_late: Cell<bool>,
    /// Whether the body of its request grew too large.
    has_overrun: Cell<bool>,
    /// Since when it is over.
    over: Cell<Option<Instant>>,
    /// How long that may take, if its route says so.
    limit: Cell<Option<Duration>>,
    /// Whoever waits for something on behalf of the request: one task at a time.
    waiting: RefCell<Option<Waker>>,
    /// Since when a piece of the answer waits for the client to take it, if the request is one of several on its
    /// connection: then the socket does not tell.
    untaken: Cell<Option<Instant>>,
    /// Ends it the hard way, if it is one of several on its connection.
    abort: RefCell<Option<AbortHandle>>,
}

impl Ticket {
    /// How long what is asked to end may take before it is ended.
    pub(crate) const GRACE: Duration = Duration::from_millis(500);

    pub(crate) fn enter_fleet(&self, tally: Arc<Tally>) {
        *self.fleet.borrow_mut() = Some(tally);
    }

    pub(crate) fn ended_by(&self, handle: AbortHandle) {
        *self.abort.borrow_mut() = Some(handle);
    }

    /// Whether its fleet has left the table.
    pub(crate) fn is_at_a_fleet_gone(&self) -> bool {
        self.fleet.borrow().as_ref().is_some_and(|t| t.is_gone())
    }

    /// Asks it to end in the way that its protocol knows as an end.
    pub(crate) fn tell(&self) {
        if self.told.get().is_none() {
            self.told.set(Some(Instant::now()));
        }
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The head of an answer is awaited from now on. Whoever waits is woken when it takes too long, by the walk over all
    /// connections: no timer is set.
    pub(crate) fn awaits(&self, since: Option<Instant>) {
        self.awaits.set(since);
    }

    /// How long the head of an answer may take; what the edge puts up with, if none.
    pub(crate) fn is_answered_within(&self, limit: Option<Duration>) {
        self.limit.set(limit);
    }

    /// The same, with what the edge puts up with.
    pub(crate) fn limit(&self, otherwise: Duration) -> Duration {
        self.limit.get().unwrap_or(otherwise)
    }

    /// Tells whoever waits for the head of an answer that it has taken too long, if it has; `otherwise`: where nothing else
    /// is said.
    pub(crate) fn note_late(&self, otherwise: Duration) {
        let limit = self.limit(otherwise);
        if self.awaits.get().is_some_and(|since| since.elapsed() > limit) {
            self.is_late.set(true);
            if let Some(waker) = self.waiting.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// Whether it has taken too long.
    /// It is answered, or will not be.
    pub(crate) fn ends(&self) {
        self.over.set(Some(Instant::now()));
    }

    pub(crate) fn over_since(&self) -> Option<Instant> {
        self.over.get()
    }

    pub(crate) fn overruns(&self) {
        self.has_overrun.set(true);
    }

    /// Whether what goes wrong with its answer is so because the body of its request grew too large.
    pub(crate) fn has_overrun(&self) -> bool {
        self.has_overrun.get()
    }

    pub(crate) fn is_late(&self) -> bool {
        self.is_late.get()
    }

    /// A piece of the answer has been given.
    pub(crate) fn gave(&self) {
        if self.abort.borrow().is_some() {
            self.untaken.set(Some(Instant::now()));
        }
    }

    /// The next one is asked for.
    pub(crate) fn is_asked(&self) {
        self.untaken.set(None);
    }

    /// Whether the client has taken nothing for so long.
    pub(crate) fn is_stalled(&self, limit: Duration) -> bool {
        self.untaken.get().is_some_and(|since| since.elapsed() > limit)
    }

    /// Since when it has been asked to end.
    pub(crate) fn told_at(&self) -> Option<Instant> {
        self.told.get()
    }

    /// Ends its task, if it has one of its own.
    pub(crate) fn abort(&self) -> bool {
        self.abort.borrow().as_ref().map(AbortHandle::abort).is_some()
    }

    /// Whether it is to end; if not, the task polling is woken when it is.
    pub(crate) fn poll_told(&self, cx: &Context<'_>) -> bool {
        if self.told.get().is_some() {
            return true;
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        false
    }

    /// Waits until it is to end.
    pub(crate) async fn told(&self) {
        poll_fn(|cx| if self.poll_told(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}
