//! Fisher's exact test, and an upper bound for a rate.

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) hits: u64,
    pub(super) of: u64,
}

/// The natural logarithm of n!, by Stirling's series: exact to 1e-10 and better.
fn ln_factorial(n: u64) -> f64 {
    if n < 16 {
        return (2..=n).map(|k| (k as f64).ln()).sum();
    }
    let x = n as f64;
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    x * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI * x).ln() + series
}

fn ln_choose(n: u64, k: u64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// How likely `ours` would have at least so many hits if hits fell on all requests alike (one-sided, exact for any
/// size: that is why it is used).
pub(super) fn p_value(ours: Count, theirs: Count) -> f64 {
    let (hits, all) = (ours.hits + theirs.hits, ours.of + theirs.of);
    let most = hits.min(ours.of);
    if ours.hits == 0 || most < ours.hits {
        return 1.0;
    }
    let first =
        ln_choose(hits, ours.hits) + ln_choose(all - hits, ours.of - ours.hits) - ln_choose(all, ours.of);
    // Each term from the one before: P(x+1)/P(x).
    let (mut term, mut sum) = (1.0, 1.0);
    for x in ours.hits..most {
        let up = (hits - x) as f64 * (ours.of - x) as f64;
        let down = (x + 1) as f64 * ((all - hits) as f64 - (ours.of - x) as f64 + 1.0);
        term *= up / down;
        sum += term;
        if term < sum * 1e-16 {
            break;
        }
    }
    (first.exp() * sum).min(1.0)
}

/// The rate that is exceeded with a probability of one in twenty at most (Wilson's upper bound).
pub(super) fn upper_bound(count: Count) -> f64 {
    const Z: f64 = 1.6449;
    if count.of == 0 {
        return 1.0;
    }
    let (n, rate) = (count.of as f64, count.hits as f64 / count.of as f64);
    let spread = Z * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
    (rate + Z * Z / (2.0 * n) + spread) / (1.0 + Z * Z / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(ours: (u64, u64), theirs: (u64, u64)) -> f64 {
        p_value(Count { hits: ours.0, of: ours.1 }, Count { hits: theirs.0, of: theirs.1 })
    }

    #[test]
    fn agrees_with_what_can_be_counted_by_hand() {
        // Fisher's tea: all four of four is one in C(8, 4) = 70; at least three of four is 17 in 70.
        assert!((p((4, 4), (0, 4)) - 1.0 / 70.0).abs() < 1e-12);
        assert!((p((3, 4), (1, 4)) - 17.0 / 70.0).abs() < 1e-12);
        assert!((p((0, 4), (4, 4)) - 1.0).abs() < 1e-12);
        // Three hits of all fall on ours: C(10, 3) of C(110, 3).
        assert!((p((3, 10), (0, 100)) - 120.0 / 215_820.0).abs() < 1e-12);
    }

    #[test]
    fn all_outcomes_together_are_certain() {
        // The probabilities of exactly k hits sum to one: those of at least k fall from one.
        for (n, m, hits) in [(20, 300, 7), (1000, 19_000, 40), (500_000, 9_500_000, 90)] {
            let at_least = |k: u64| if k > hits { 0.0 } else { p((k, n), (hits - k, m)) };
            let sum: f64 = (0..=hits).map(|k| at_least(k) - at_least(k + 1)).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{n} {m}: {sum}");
            assert!((1..=hits).all(|k| at_least(k) <= at_least(k - 1)), "{n} {m}");
        }
    }

    #[test]
    fn nothing_is_known_of_what_was_never_asked() {
        assert!((upper_bound(Count { hits: 0, of: 0 }) - 1.0).abs() < 1e-12);
        assert!(upper_bound(Count { hits: 0, of: 300 }) < 0.01);
        assert!(upper_bound(Count { hits: 0, of: 100 }) > 0.02);
    }
}
