//! Latencies in bounded space: buckets that grow with what they hold, so that every figure is right to 2 %.

use std::time::Duration;

/// Buckets per doubling.
const FINE: u32 = 64;

/// How long things took.
#[derive(Debug, Clone)]
pub(super) struct Latencies {
    /// Counts per bucket of microseconds.
    buckets: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self { buckets: vec![0; (FINE * 40) as usize], total: 0, max: Duration::ZERO }
    }

    pub(super) fn add(&mut self, took: Duration) {
        let at = bucket(took.as_micros() as u64).min(self.buckets.len() - 1);
        self.buckets[at] += 1;
        self.total += 1;
        self.max = self.max.max(took);
    }

    /// What `share` of them (0 to 1) did not exceed.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return Duration::from_micros(upper(at)).min(self.max);
            }
        }
        self.max
    }

    pub(super) fn max(&self) -> Duration {
        self.max
    }
}

fn bucket(micros: u64) -> usize {
    let fine = u64::from(FINE);
    if micros < fine {
        return micros as usize;
    }
    let doublings = micros.ilog2() - FINE.ilog2();
    (u64::from(doublings) * fine + (micros >> doublings)) as usize
}

/// The largest number of microseconds in a bucket.
fn upper(at: usize) -> u64 {
    let (at, fine) = (at as u64, u64::from(FINE));
    if at < fine {
        return at;
    }
    let doublings = at / fine - 1;
    ((at % fine + fine + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_within_two_percent() {
        for micros in (0..5_000).chain([99_999, 1_234_567, 10_000_000]) {
            let upper = upper(bucket(micros));
            assert!(upper >= micros && upper <= micros + micros / 50, "{micros}: {upper}");
        }
    }

    #[test]
    fn quantiles() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.quantile(0.99), Duration::ZERO);
        (1..=1000).for_each(|n| latencies.add(Duration::from_millis(n)));
        let p50 = latencies.quantile(0.5).as_millis();
        assert!((500..=510).contains(&p50), "{p50}");
        assert_eq!(latencies.quantile(1.0), Duration::from_secs(1));
    }
}
