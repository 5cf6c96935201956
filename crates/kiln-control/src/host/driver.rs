//! The threads that drive the core: one turns it, one listens to the engine.

use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use kiln_engine::Engine;
use kiln_model::Timestamp;

use super::board::Board;
use crate::core::Core;
use crate::sync::lock;

/// Wakes the loop.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    woken: Mutex<bool>,
    news: Condvar,
}

impl Waker {
    /// The core's next turn is now.
    pub(crate) fn wake(&self) {
        *lock(&self.woken) = true;
        self.news.notify_one();
    }

    /// Returns when woken, or after `at_most`.
    fn wait(&self, at_most: Duration) {
        let woken = lock(&self.woken);
        let waited = self.news.wait_timeout_while(woken, at_most, |woken| !*woken);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// What the threads share.
pub(crate) struct Driver {
    pub(crate) core: Mutex<Core>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) board: Board,
    stopped: Mutex<bool>,
    stopping: Condvar,
}

/// The longest the core is left alone.
const ROUND: Duration = Duration::from_secs(5);
/// How long somebody who asks waits for the core if what it waits for itself does not come.
const MOMENT: Duration = Duration::from_secs(1);
/// How long the engine is listened to at a time.
const LISTEN: Duration = Duration::from_secs(60);

impl Driver {
    /// A driver that does not drive yet.
    pub(crate) fn new(core: Core, waker: Arc<Waker>) -> Arc<Self> {
        let (board, stopped, stopping) = Default::default();
        Arc::new(Self { core: Mutex::new(core), waker, board, stopped, stopping })
    }

    /// Ends the threads; they are gone soon after.
    pub(crate) fn stop(&self) {
        *lock(&self.stopped) = true;
        self.stopping.notify_all();
        self.waker.wake();
    }

    /// Whether the core can be spoken with, which waits for a moment if it is at work.
    pub(crate) fn is_free(&self) -> bool {
        let deadline = Instant::now() + MOMENT;
        while let Err(TryLockError::WouldBlock) = self.core.try_lock() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        true
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *lock(&self.stopped)
    }

    /// Turns the core whenever it is woken or wants to be.
    pub(crate) fn turn(&self) {
        while !self.is_stopped() {
            let (wake, now) = {
                let mut core = lock(&self.core);
                (core.turn(), core.now())
            };
            let until = |at: Timestamp| now.until(at).duration().min(ROUND);
            self.waker.wait(wake.map_or(ROUND, until));
        }
    }

    /// Passes on what the engine reports.
    pub(crate) fn listen(&self, engine: &dyn Engine) {
        while !self.is_stopped() {
            // Whoever stops the threads calls it back.
            match engine.changes(LISTEN) {
                Ok(statuses) if statuses.is_empty() => {}
                Ok(statuses) => {
                    self.board.post(&statuses);
                    lock(&self.core).observe(statuses);
                    self.waker.wake();
                }
                // Whoever supervises the keeper sees the same and starts another.
                Err(_) => self.pause(),
            }
        }
    }

    /// Lets a moment pass in which asking again would be in vain.
    pub(crate) fn pause(&self) {
        self.pause_for(Duration::from_millis(100));
    }

    /// Lets some time pass, less if the threads are told to end.
    pub(crate) fn pause_for(&self, span: Duration) {
        let stopped = lock(&self.stopped);
        drop(self.stopping.wait_timeout_while(stopped, span, |stopped| !*stopped));
    }
}
