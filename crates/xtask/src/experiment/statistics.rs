//! How sure a share of a few hundred is.

/// The exact interval (Clopper and Pearson) in which the chance of success lies with 95 %.
pub(super) fn interval(successes: usize, trials: usize) -> (f64, f64) {
    const TAIL: f64 = 0.025;
    let low = match successes {
        0 => 0.0,
        k => bisect(|p| at_least(k, trials, p) >= TAIL),
    };
    let high =
        if successes == trials { 1.0 } else { bisect(|p| at_least(successes + 1, trials, p) >= 1.0 - TAIL) };
    (low, high)
}

/// The least chance for which it is so; it is so from some chance on.
fn bisect(is_so: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if is_so(middle) { high = middle } else { low = middle }
    }
    high
}

/// The chance of `k` successes or more of `n`.
fn at_least(k: usize, n: usize, p: f64) -> f64 {
    (k..=n).map(|k| exactly(k, n, p)).sum()
}

fn exactly(k: usize, n: usize, p: f64) -> f64 {
    let choose: f64 = (0..k).map(|i| ((n - i) as f64 / (k - i) as f64).ln()).sum();
    (choose + k as f64 * p.ln() + (n - k) as f64 * (-p).ln_1p()).exp()
}

/// The one in the middle; of none, nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::{interval, median};

    /// From tables.
    #[test]
    fn intervals_are_exact() {
        let close = |(a, b): (f64, f64), (c, d): (f64, f64)| (a - c).abs() < 5e-5 && (b - d).abs() < 5e-5;
        assert!(close(interval(100, 100), (0.96378, 1.0)), "{:?}", interval(100, 100));
        assert!(close(interval(0, 100), (0.0, 0.03622)));
        assert!(close(interval(90, 100), (0.82378, 0.95099)), "{:?}", interval(90, 100));
        assert!(close(interval(1, 3), (0.00840, 0.90570)), "{:?}", interval(1, 3));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }
}
