//! Sharing a route's requests among its targets by weight, smoothly: 3:1 gives A A B A, not A A A B.

/// What each target is owed. The same requests give the same choices.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    owed: Vec<i64>,
}

impl Shares {
    pub(crate) fn new(targets: usize) -> Self {
        Self { owed: vec![0; targets] }
    }

    /// The next target among those whose weight `weight_of` gives. Those without take no part this time and lose
    /// nothing by it.
    pub(crate) fn next(&mut self, weight_of: impl Fn(usize) -> Option<u32>) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for target in 0..self.owed.len() {
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
        let mut shares = Shares::new(3);
        let mut got = String::new();
        for _ in 0..14 {
            let target = shares.next(|i| Some(weights[i])).unwrap();
            got.push(['a', 'b', 'c'][target]);
        }
        assert_eq!(got, "aabacaaaabacaa");
    }

    #[test]
    fn an_absent_target_leaves_its_share_to_the_others() {
        let mut shares = Shares::new(2);
        assert!((0..4).all(|_| shares.next(|i| (i == 1).then_some(1)) == Some(1)));
        assert_eq!(shares.next(|_| None), None);
    }
}
