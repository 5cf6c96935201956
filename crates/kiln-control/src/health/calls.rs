//! Calls of the engine, and whether they come back.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// After how long without any call that has come back those that have not are late.
pub(super) const LATE: Duration = Duration::from_secs(1);

/// Those that are under way.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    count: u32,
    /// When the first of them began, or another one came back since.
    moved: Option<Instant>,
}

impl Calls {
    /// Makes a call.
    pub(super) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        {
            let mut under_way = lock(&self.0);
            if under_way.count == 0 {
                under_way.moved = Some(Instant::now());
            }
            under_way.count += 1;
        }
        let _back = Back(self);
        call()
    }

    /// Whether the engine has answered none of them for so long that it is to be taken for standing still.
    pub(super) fn hang(&self) -> bool {
        let under_way = lock(&self.0);
        under_way.count > 0 && under_way.moved.is_some_and(|moved| moved.elapsed() >= LATE)
    }
}

/// A call that comes back when this is dropped, however it does.
struct Back<'a>(&'a Calls);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        let mut under_way = lock(&self.0.0);
        under_way.count -= 1;
        under_way.moved = Some(Instant::now());
    }
}
