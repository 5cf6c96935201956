//! One step of a canary: looked at now and then until there is a verdict.
//!
//! Errors are held against those of the old release over the same time with Fisher's exact test, one-sided. It is
//! exact at any size, so that it neither cries at the first of three failures nor needs a normal approximation that
//! low traffic does not allow. Latency is held against it in the same way: the median and the 90 % quantile of both
//! together divide all requests into quick and slow ones, and slow ones are counted like failures. (The two are
//! a function of the pooled sample, on which Fisher's test is conditioned anyway, so it stays exact; no shape of the
//! distribution is assumed.)
//!
//! A test that is repeated finds something in the end. Looks are taken when there is a quarter more evidence, not
//! when somebody likes; the k-th may spend 1 / k(k+1) of the probability of a false alarm, which is 1 % a step in
//! all, divided by the number of tests. A difference that is real but smaller than what the spec puts up with is
//! no reason either.

use super::fisher::{Count, p_value, upper_bound};
use super::{Evidence, Terms};
use crate::{Millis, ServiceName};

/// How likely a step of a canary that is as good as the old release is given up.
const FALSE_ALARM: f64 = 0.01;
/// Requests at the first look.
const FIRST_LOOK: u64 = 10;
/// What divides requests into quick and slow ones.
const QUANTILES: [f64; 2] = [0.5, 0.9];
/// Who is slower by less than this is not slower.
const LEAST_MILLIS: f64 = 2.0;
/// How far the part of slow requests may be from what it should be when it is said that there is no difference.
const SLOW_POINTS: f64 = 0.1;

/// Both fleets of a service, since the step began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The service.
    pub service: ServiceName,
    /// The old release.
    pub blue: Evidence,
    /// The new one.
    pub green: Evidence,
}

/// What came of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is worse.
    Worse(String),
    /// It is as good, as far as the terms ask.
    AsGood(String),
    /// Its time is over, and there was too little evidence to tell.
    NoEvidence(String),
    /// It is too early to tell.
    Open(String),
}

/// The looks that were taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    looks: u32,
    /// Requests at the new release when the next look is due.
    next: u64,
}

impl Default for Trial {
    fn default() -> Self {
        Self { looks: 0, next: FIRST_LOOK }
    }
}

impl Trial {
    /// Looks at what there is after `span` of the step's time.
    pub fn look(&mut self, pairs: &[Pair], terms: &Terms, span: Millis) -> Verdict {
        let requests: u64 = pairs.iter().map(|p| p.green.requests).sum();
        let is_over = span >= terms.within;
        if requests >= self.next || is_over {
            self.looks += 1;
            self.next = requests + (requests / 4).max(1);
            let looks = f64::from(self.looks);
            let tests = (pairs.len() * (1 + QUANTILES.len())).max(1) as f64;
            let alpha = FALSE_ALARM / tests / (looks * (looks + 1.0));
            if let Some(why) = pairs.iter().find_map(|pair| worse(pair, terms, alpha)) {
                return Verdict::Worse(why);
            }
        }
        let figures = figures(pairs);
        if span >= terms.hold && !pairs.is_empty() && pairs.iter().all(|pair| is_as_good(pair, terms)) {
            return Verdict::AsGood(figures);
        }
        if is_over { Verdict::NoEvidence(figures) } else { Verdict::Open(figures) }
    }
}

fn worse(pair: &Pair, terms: &Terms, alpha: f64) -> Option<String> {
    fails_more(pair, terms, alpha)
        .or_else(|| QUANTILES.iter().find_map(|q| is_slower(pair, terms, *q, alpha)))
}

fn errors(evidence: &Evidence) -> Count {
    Count { hits: evidence.failed, of: evidence.requests }
}

fn fails_more(pair: &Pair, terms: &Terms, alpha: f64) -> Option<String> {
    let (green, blue) = (errors(&pair.green), errors(&pair.blue));
    let excess = pair.green.error_rate() - pair.blue.error_rate();
    let p = p_value(green, blue);
    (p < alpha && excess >= terms.errors.ratio()).then(|| {
        format!(
            "{} fails more: {} against {} of the release that serves (p = {p:.1e} by Fisher's exact test, {alpha:.1e} \
             at this look is enough)",
            pair.service,
            rate(green),
            rate(blue)
        )
    })
}

fn is_slower(pair: &Pair, terms: &Terms, q: f64, alpha: f64) -> Option<String> {
    let mut both = pair.blue.clone();
    both.add(&pair.green);
    let bucket = both.at(q).0;
    let slow = |e: &Evidence| Count { hits: e.above(bucket), of: e.latency.iter().sum() };
    let p = p_value(slow(&pair.green), slow(&pair.blue));
    let (green, blue) = (pair.green.millis(q), pair.blue.millis(q));
    let is_much = green >= blue * (1.0 + terms.slower.ratio()) && green - blue >= LEAST_MILLIS;
    (p < alpha && is_much).then(|| {
        format!(
            "{} is slower: {:.0} % of its {} requests within {green:.1} ms, of the release that serves (of {}) within \
             {blue:.1} ms (p = {p:.1e} by Fisher's exact test of the slow ones, {alpha:.1e} at this look is enough)",
            pair.service,
            q * 100.0,
            pair.green.requests,
            pair.blue.requests
        )
    })
}

fn is_as_good(pair: &Pair, terms: &Terms) -> bool {
    let fails_no_more =
        upper_bound(errors(&pair.green)) < pair.blue.error_rate() + terms.errors.ratio().max(0.0005);
    // Against nobody nothing can be slow.
    if pair.blue.requests == 0 {
        return fails_no_more;
    }
    let (bucket, above) = pair.blue.at(QUANTILES[1]);
    let expected = above as f64 / pair.blue.requests.max(1) as f64;
    let slow = Count { hits: pair.green.above(bucket), of: pair.green.requests };
    let is_much = pair.green.millis(QUANTILES[1]) - pair.blue.millis(QUANTILES[1]) >= LEAST_MILLIS;
    fails_no_more && (!is_much || upper_bound(slow) < expected + SLOW_POINTS)
}

fn rate(count: Count) -> String {
    let percent = if count.of == 0 { 0.0 } else { 100.0 * count.hits as f64 / count.of as f64 };
    format!("{} of {} requests ({percent:.2} %)", count.hits, count.of)
}

fn figures(pairs: &[Pair]) -> String {
    let words = pairs.iter().map(|pair| {
        let of = |e: &Evidence| match e.requests {
            0 => "no request".to_owned(),
            _ => format!(
                "{} failed, median {:.1} ms, 90 % {:.1} ms",
                rate(errors(e)),
                e.millis(0.5),
                e.millis(0.9)
            ),
        };
        format!("{}: {}, against {}", pair.service, of(&pair.green), of(&pair.blue))
    });
    words.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
