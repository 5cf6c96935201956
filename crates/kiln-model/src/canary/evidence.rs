//! What the edge has seen of a fleet: how many requests, how many of them failed, how long the answers took.

use serde::{Deserialize, Serialize};

use crate::FleetId;

/// Buckets of durations: eight to an octave, from 128 µs to two minutes.
pub const LATENCY_BUCKETS: usize = 1 + OCTAVES * PER_OCTAVE;
const OCTAVES: usize = 20;
const PER_OCTAVE: usize = 8;
/// The first octave begins at two to this many microseconds; everything shorter is in the first bucket.
const FIRST: u32 = 7;

/// The bucket that a duration of so many microseconds belongs to.
pub fn latency_bucket(micros: u64) -> usize {
    if micros < 1 << FIRST {
        return 0;
    }
    let octave = micros.ilog2();
    let part = (micros >> (octave - 3)) & 7;
    let bucket = 1 + (octave - FIRST) as usize * PER_OCTAVE + part as usize;
    bucket.min(LATENCY_BUCKETS - 1)
}

/// The longest duration, in microseconds, that still belongs to a bucket.
fn upper_bound(bucket: usize) -> f64 {
    let Some(above) = bucket.checked_sub(1) else { return f64::from(1 << FIRST) };
    let octave = f64::from(1_u32 << FIRST) * 2_f64.powi((above / PER_OCTAVE) as i32);
    octave * (1.0 + (above % PER_OCTAVE + 1) as f64 / PER_OCTAVE as f64)
}

/// Evidence for or against a fleet. Only requests that chance sent there count, not those that asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Requests that were answered, by the fleet or in its place, or that were given up by their clients.
    pub requests: u64,
    /// Of these, failed by the fleet: answered with 5xx, broken off, or not answered in time.
    pub failed: u64,
    /// How long they took to the head of their answer, by [`latency_bucket`].
    pub latency: Vec<u64>,
}

impl Default for Evidence {
    fn default() -> Self {
        Self { requests: 0, failed: 0, latency: vec![0; LATENCY_BUCKETS] }
    }
}

impl Evidence {
    /// What came since `before`; none if this is not later than that.
    pub fn since(&self, before: &Self) -> Option<Self> {
        let latency: Option<Vec<u64>> =
            self.latency.iter().zip(&before.latency).map(|(now, then)| now.checked_sub(*then)).collect();
        Some(Self {
            requests: self.requests.checked_sub(before.requests)?,
            failed: self.failed.checked_sub(before.failed)?,
            latency: latency?,
        })
    }

    /// Adds what somebody else saw.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.latency.iter_mut().zip(&other.latency).for_each(|(ours, theirs)| *ours += theirs);
    }

    /// The part that failed.
    pub fn error_rate(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.failed as f64 / self.requests as f64 }
    }

    /// The bucket in which the quantile `q` lies, and the requests that took longer than it.
    pub(super) fn at(&self, q: f64) -> (usize, u64) {
        let all: u64 = self.latency.iter().sum();
        let mut sum = 0;
        for (bucket, count) in self.latency.iter().enumerate() {
            sum += count;
            if sum as f64 >= q * all as f64 {
                return (bucket, all - sum);
            }
        }
        (LATENCY_BUCKETS - 1, 0)
    }

    /// The requests that took longer than those of `bucket`.
    pub(super) fn above(&self, bucket: usize) -> u64 {
        self.latency.iter().skip(bucket + 1).sum()
    }

    /// The quantile `q` of the durations, in milliseconds, to the width of a bucket.
    pub fn millis(&self, q: f64) -> f64 {
        upper_bound(self.at(q).0) / 1000.0
    }
}

/// Evidence with whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetEvidence {
    /// The fleet.
    pub fleet: FleetId,
    /// What was seen of it since the edge knows it.
    pub evidence: Evidence,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_an_eighth_of_an_octave_wide() {
        let mut last = 0;
        for micros in (0..3_000_000).step_by(7) {
            let bucket = latency_bucket(micros);
            assert!(bucket == last || bucket == last + 1, "{micros}");
            assert!(micros as f64 <= upper_bound(bucket), "{micros} is in {bucket}");
            assert!(bucket == 0 || micros as f64 >= upper_bound(bucket) * 0.88, "{micros} is in {bucket}");
            last = bucket;
        }
        assert_eq!(latency_bucket(u64::MAX), LATENCY_BUCKETS - 1);
    }

    #[test]
    fn what_is_not_later_has_no_difference() {
        let mut before = Evidence { requests: 5, failed: 1, ..Evidence::default() };
        before.latency[3] = 5;
        let mut after = before.clone();
        after.add(&before);
        assert_eq!(after.since(&before), Some(before.clone()));
        assert_eq!(before.since(&after), None);
        assert_eq!(after.at(0.5), (3, 0));
    }
}
