//! Bakes and locks without a host: in this process, on the store itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kiln_control::contract::{EventSink, Presence};
use kiln_control::refused_by_store;
use kiln_model::{BakeAnswer, Event, Failure, Stamped};
use kiln_store::Store;

use crate::progress::Reporter;
use crate::{output, signals};

const CALLED_OFF: &str = "called off: what was finished stays, and nothing else";

/// What waits for somebody else, a mirror say, may take its time to notice that it was called off. Whatever is ended
/// leaves nothing half-done.
fn leave_in_time() {
    const PATIENCE: Duration = Duration::from_secs(3);
    let begun = Instant::now();
    while let Some(left) = PATIENCE.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
    signals::leave(CALLED_OFF)
}

/// Ctrl-C, for work in this process that can stop by itself.
pub(crate) struct CallingOff(Arc<AtomicBool>);

impl CallingOff {
    pub(crate) fn watch() -> Result<Self, Failure> {
        let asked_for = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&asked_for);
        signals::watch(move || {
            if told.swap(true, Ordering::Relaxed) {
                signals::leave(CALLED_OFF);
            }
            output::aside("calling it off; Ctrl-C once more ends it at once");
            thread::spawn(leave_in_time);
        })?;
        Ok(Self(asked_for))
    }

    pub(crate) fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// What failed because somebody has called it off did not fail: this process ends as any that is ended by Ctrl-C.
    pub(crate) fn end<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() && self.is_asked_for() {
            signals::leave(CALLED_OFF);
        }
        result
    }
}

/// Somebody at this terminal: sees how it goes, keeps what was baked, and may press Ctrl-C.
pub(crate) struct Onlooker {
    reporter: Mutex<Box<dyn Reporter>>,
    baked: Mutex<BakeAnswer>,
    calling_off: CallingOff,
}

impl Onlooker {
    pub(crate) fn new(reporter: Box<dyn Reporter>) -> Result<Self, Failure> {
        let calling_off = CallingOff::watch()?;
        Ok(Self { reporter: Mutex::new(reporter), baked: Mutex::default(), calling_off })
    }

    /// What was done and what was baked; nothing more is shown.
    pub(crate) fn end<T, E>(self, result: Result<T, E>) -> Result<(T, BakeAnswer), E> {
        self.reporter.into_inner().unwrap_or_else(|broken| broken.into_inner()).end();
        let done = self.calling_off.end(result)?;
        Ok((done, self.baked.into_inner().unwrap_or_else(|broken| broken.into_inner())))
    }
}

impl EventSink for Onlooker {
    fn event(&self, stamped: Stamped) {
        self.reporter.lock().unwrap_or_else(|broken| broken.into_inner()).event(&stamped);
        if let Event::Baked { name, image } = stamped.event
            && let Ok(name) = name.parse()
        {
            self.baked.lock().unwrap_or_else(|broken| broken.into_inner()).images.insert(name, image);
        }
    }

    fn presence(&self) -> Presence {
        if self.calling_off.is_asked_for() { Presence::GaveUp } else { Presence::Here }
    }
}

/// The store in `root`.
pub(crate) fn store(root: &Path) -> Result<Store, Failure> {
    Store::open(root).map_err(|e| refused_by_store(&e))
}
