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
//!
//! A process that was just started is slow at first: its caches are cold, its code is not compiled yet. During the
//! first quarter of `hold` failures count and times do not.

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
/// The part of `hold` in which times do not count is one to this.
const WARM_UP: u64 = 4;
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
    /// What was seen while it warmed up, by service.
    cold: Vec<Pair>,
}

impl Default for Trial {
    fn default() -> Self {
        Self { looks: 0, next: FIRST_LOOK, cold: Vec::new() }
    }
}

impl Trial {
    /// Looks at what there is after `span` of the step's time.
    pub fn look(&mut self, pairs: &[Pair], terms: &Terms, span: Millis) -> Verdict {
        if span.0 < terms.hold.0 / WARM_UP {
            self.cold = pairs.to_vec();
        }
        let pairs: Vec<Judged> = pairs.iter().map(|pair| self.judged(pair)).collect();
        let pairs = &pairs[..];
        let requests: u64 = pairs.iter().map(|p| p.all.green.requests).sum();
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

    fn judged<'a>(&self, pair: &'a Pair) -> Judged<'a> {
        let cold = self.cold.iter().find(|cold| cold.service == pair.service);
        let since = |now: &Evidence, then: Option<&Evidence>| {
            then.and_then(|then| now.since(then)).unwrap_or_else(|| now.clone())
        };
        let (blue, green) = (cold.map(|c| &c.blue), cold.map(|c| &c.green));
        Judged { all: pair, warm_blue: since(&pair.blue, blue), warm_green: since(&pair.green, green) }
    }
}

/// What is judged: failures of all that was seen, times of what came after the warming up.
struct Judged<'a> {
    all: &'a Pair,
    warm_blue: Evidence,
    warm_green: Evidence,
}

fn worse(pair: &Judged, terms: &Terms, alpha: f64) -> Option<String> {
    fails_more(pair.all, terms, alpha)
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

fn is_slower(pair: &Judged, terms: &Terms, q: f64, alpha: f64) -> Option<String> {
    let (service, warm_green, warm_blue) = (&pair.all.service, &pair.warm_green, &pair.warm_blue);
    let mut both = warm_blue.clone();
    both.add(warm_green);
    let bucket = both.at(q).0;
    let slow = |e: &Evidence| Count { hits: e.above(bucket), of: e.latency.iter().sum() };
    let p = p_value(slow(warm_green), slow(warm_blue));
    let (green, blue) = (warm_green.millis(q), warm_blue.millis(q));
    let is_much = green >= blue * (1.0 + terms.slower.ratio()) && green - blue >= LEAST_MILLIS;
    (p < alpha && is_much).then(|| {
        format!(
            "{service} is slower: {:.0} % of its {} requests within {green:.1} ms, of the release that serves (of {}) within \
             {blue:.1} ms (p = {p:.1e} by Fisher's exact test of the slow ones, {alpha:.1e} at this look is enough)",
            q * 100.0,
            warm_green.requests,
            warm_blue.requests
        )
    })
}

fn is_as_good(pair: &Judged, terms: &Terms) -> bool {
    let most = pair.all.blue.error_rate() + terms.errors.ratio().max(0.0005);
    let fails_no_more = upper_bound(errors(&pair.all.green)) < most;
    let (green, blue) = (&pair.warm_green, &pair.warm_blue);
    // Against nobody nothing can be slow.
    if blue.requests == 0 {
        return fails_no_more;
    }
    let (bucket, above) = blue.at(QUANTILES[1]);
    let expected = above as f64 / blue.requests.max(1) as f64;
    let slow = Count { hits: green.above(bucket), of: green.requests };
    let is_much = green.millis(QUANTILES[1]) - blue.millis(QUANTILES[1]) >= LEAST_MILLIS;
    fails_no_more && (!is_much || upper_bound(slow) < expected + SLOW_POINTS)
}

fn rate(count: Count) -> String {
    let percent = if count.of == 0 { 0.0 } else { 100.0 * count.hits as f64 / count.of as f64 };
    format!("{} of {} requests ({percent:.2} %)", count.hits, count.of)
}

fn figures(pairs: &[Judged]) -> String {
    let words = pairs.iter().map(|Judged { all: pair, .. }| {
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
