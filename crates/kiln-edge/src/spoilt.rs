//! Bytes with a few of them changed, the same ones at each run; for tests of parsers.

/// The same numbers at each run.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn from(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    /// `bytes` with `count` of them put to what `odd` gives.
    pub(crate) fn spoil(&mut self, bytes: &[u8], count: usize, odd: impl Fn(&mut Self) -> u8) -> Vec<u8> {
        let mut spoilt = bytes.to_vec();
        for _ in 0..count {
            let at = self.below(spoilt.len());
            spoilt[at] = odd(self);
        }
        spoilt
    }
}
