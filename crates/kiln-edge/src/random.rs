//! Numbers nobody has to keep secret: for choosing between instances, and for ids of requests.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

use kiln_model::hex_pair;

/// A generator of one thread (splitmix64), seeded from the system.
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn new() -> Self {
        // The standard library's only door to the system's randomness.
        Self(Cell::new(RandomState::new().build_hasher().finish()))
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&self, bound: usize) -> usize {
        if bound <= 1 { 0 } else { (self.next() % bound as u64) as usize }
    }

    /// 32 hex digits.
    pub(crate) fn id(&self) -> String {
        let mut id = Vec::with_capacity(32);
        self.write_id(&mut id);
        String::from_utf8(id).unwrap_or_default()
    }

    /// The same, at the end of `text`.
    pub(crate) fn write_id(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(&hex(self.next()));
        text.extend_from_slice(&hex(self.next()));
    }
}

/// A number in 16 hex digits.
pub(crate) fn hex(number: u64) -> [u8; 16] {
    let mut text = [0; 16];
    for (digits, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        digits.copy_from_slice(&hex_pair(byte));
    }
    text
}
