//! Buffers of one thread: whoever reads or writes has one, and whoever waits has none.

use std::cell::RefCell;

/// What a buffer holds before it grows.
pub(crate) const SIZE: usize = 16 * 1024;
/// One that has grown beyond this is not kept.
const LARGEST: usize = 2 * SIZE;
/// So many are kept; more are in use at once only when much waits.
const KEPT: usize = 128;

/// Those that nobody uses.
#[derive(Default)]
pub(crate) struct Buffers(RefCell<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty one.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(SIZE))
    }

    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        let mut kept = self.0.borrow_mut();
        if (SIZE..=LARGEST).contains(&buffer.capacity()) && kept.len() < KEPT {
            buffer.clear();
            kept.push(buffer);
        }
    }
}
