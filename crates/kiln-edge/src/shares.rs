//! Sharing a route's requests among its targets by weight, smoothly: 3:1 gives A A B A, not A A A B.

/// What each target is owed. The same requests give the same choices.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Empty until the first request: most routes of a large table see none before the next table.
    owed: Vec<i64>,
}

impl Shares {
    /// The next of `targets` targets, among those whose weight `weight_of` gives. Those without take no part this
    /// time and lose nothing by it.
    pub(crate) fn next(&mut self, targets: usize, weight_of: impl Fn(usize) -> Option<u32>) -> Option<usize> {
        self.owed.resize(targets, 0);
        let mut total = 0;
        let mut best: Option<usize> = None;
        for target in 0..targets {
            let Some(weight) = weight_of(target) else { continue };
            total += i64::from(weight);
            self.owed[target] += i64::from(weight);
            if best.is_none_or(|b| self.owed[target] > self.owed[b]) {
                best = Some(target);
            }
        }
        self.owed[best?] -= total;
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept_exactly_and_smoothly() {
        let weights = [5, 1, 1];
        let mut shares = Shares::default();
        let mut got = String::new();
        for _ in 0..14 {
            let target = shares.next(3, |i| Some(weights[i])).unwrap();
            got.push(['a', 'b', 'c'][target]);
        }
        assert_eq!(got, "aabacaaaabacaa");
    }

    #[test]
    fn an_absent_target_leaves_its_share_to_the_others() {
        let mut shares = Shares::default();
        assert!((0..4).all(|_| shares.next(2, |i| (i == 1).then_some(1)) == Some(1)));
        assert_eq!(shares.next(2, |_| None), None);
    }
}
