//! Where bytes are written: a part of the file that is all zeroes so far.

/// Writes on from where it is.
pub(super) struct Pen<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl<'b> Pen<'b> {
    /// At the beginning of `bytes`, which are zeroes.
    pub(super) fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// Leaves `count` zeroes.
    pub(super) fn skip(&mut self, count: usize) {
        self.at += count;
    }

    /// Goes on at this place, which is not before the one it is at.
    pub(super) fn go_to(&mut self, at: usize) {
        debug_assert!(at >= self.at, "nothing is written twice");
        self.at = at;
    }
}
