//! A fleet in which what fails is made again, until there are enough or too many have failed.
//!
//! The number of failures on the way to N successes has the negative binomial distribution: exactly k of them have the
//! chance C(N+k−1, k) p^N q^k. Each term follows from the one before by (N+k−1) q / k.

use super::Chance;
use super::decimal::Between;

/// The question.
pub(super) struct Fleet<'a> {
    pub(super) p: &'a Chance,
    pub(super) servers: u64,
    /// So many instances may fail.
    pub(super) retries: u64,
    pub(super) precision: usize,
}

impl Fleet<'_> {
    pub(super) fn whole(&self) -> Between {
        if self.is_likely() { self.beyond().complement() } else { self.within() }
    }

    pub(super) fn not_whole(&self) -> Between {
        if self.is_likely() { self.beyond() } else { self.within().complement() }
    }

    /// Whether no more failures than allowed are to be expected. Then the terms beyond get smaller and smaller, and
    /// what is left of them can be bounded; the sum of the others is near one and says little of what it lacks.
    fn is_likely(&self) -> bool {
        let q = 1.0 - self.p.about();
        q < 0.9 && self.servers as f64 * q <= self.p.about() * (self.retries + 1) as f64
    }

    /// The chance of no failure at all.
    fn first(&self) -> Between {
        Between::ratio(self.p.above, self.p.below, self.precision).power(self.servers)
    }

    /// The chance of `k` failures from that of one less.
    fn next(&self, term: &Between, k: u64) -> Between {
        term.scaled(self.servers + k - 1, k).scaled(self.p.below - self.p.above, self.p.below)
    }

    /// The chance of `retries` failures or fewer.
    fn within(&self) -> Between {
        let first = self.first();
        let (mut sum, mut term) = (first.clone(), first);
        for k in 1..=self.retries {
            term = self.next(&term, k);
            sum = sum.plus(&term);
        }
        sum
    }

    /// The chance of more.
    fn beyond(&self) -> Between {
        let mut term = (1..=self.retries).fold(self.first(), |term, k| self.next(&term, k));
        let mut sum = Between::zero(self.precision);
        for k in self.retries + 1.. {
            term = self.next(&term, k);
            sum = sum.plus(&term);
            // Every ratio of terms from here on is at most this one, so that a geometric series bounds the rest.
            let ratio = (self.servers + k) as f64 / (k + 1) as f64 * (1.0 - self.p.about());
            if ratio < 0.999_999 && term.is_lost_in(&sum) {
                let factor = (ratio / (1.0 - ratio)).ceil() as u64 + 1;
                return sum.and_up_to(&term, factor);
            }
        }
        sum
    }
}
