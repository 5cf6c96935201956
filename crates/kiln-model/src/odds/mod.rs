//! The arithmetic of fleets: what becomes of N servers when each upgrade succeeds with probability p.
//!
//! | way | a fleet comes out whole with |
//! |---|---|
//! | in place, each server changed where it stands | p^N |
//! | replaced: what fails is thrown away and made again, up to R instances of the fleet, before anybody sees it | Σ C(N+k−1, k) p^N (1 − p)^k over k from 0 to R |
//!
//! The second is what control does with a fleet that has yet to serve: it has one budget ([`loss_budget`]), and an
//! instance made again may fail again. With R failures or fewer on the way to N that are well it comes out whole.
//!
//! All digits shown are right: see `decimal`.

mod decimal;
mod replacing;

use std::fmt;
use std::str::FromStr;

use decimal::Between;
pub use decimal::Digits;

/// Limbs of nine digits that are tried first; twice as many where bounds do not agree.
const PRECISION: usize = 16;
/// A number that is not told apart from a rounding boundary with this many is taken to lie on it.
const HIGHEST_PRECISION: usize = 1024;

/// How many losses make a fleet that has yet to serve be given up: half of its size, three at least.
pub const fn loss_budget(servers: u64) -> u64 {
    if servers < 6 { 3 } else { servers / 2 }
}

/// A probability as it was written: `99.99%`, `0.9999` or `9999/10000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chance {
    text: String,
    above: u64,
    below: u64,
}

/// Text that is no probability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no probability: write `99.9%`, `0.999` or `999/1000`, above 0 and at most 1")]
pub struct BadChance(String);

impl FromStr for Chance {
    type Err = BadChance;

    fn from_str(text: &str) -> Result<Self, BadChance> {
        let bad = || BadChance(text.to_owned());
        let bare = text.trim();
        let (above, below) = match (bare.strip_suffix('%'), bare.split_once('/')) {
            (Some(percent), _) => decimal(percent.trim()).and_then(|(a, b)| Some((a, b.checked_mul(100)?))),
            (_, Some((above, below))) => above.trim().parse().ok().zip(below.trim().parse().ok()),
            _ => decimal(bare),
        }
        .ok_or_else(bad)?;
        if above == 0 || above > below {
            return Err(bad());
        }
        Ok(Self { text: bare.replace(' ', ""), above, below })
    }
}

/// `12.5` as 125 and 10.
fn decimal(text: &str) -> Option<(u64, u64)> {
    let (whole, behind) = text.split_once('.').unwrap_or((text, ""));
    let all = [whole, behind].concat();
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((all.parse().ok()?, 10_u64.checked_pow(u32::try_from(behind.len()).ok()?)?))
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Chance {
    /// About this number.
    pub fn about(&self) -> f64 {
        self.above as f64 / self.below as f64
    }

    /// Whether nothing ever fails.
    pub fn is_certain(&self) -> bool {
        self.above == self.below
    }

    /// The chance that `servers` upgrades in place all succeed.
    pub fn in_place(&self, servers: u64, digits: usize) -> Digits {
        shown(digits, |precision| self.between(precision).power(servers))
    }

    /// How many of `servers` are expected to be left in a state between versions.
    pub fn left_between(&self, servers: u64, digits: usize) -> Digits {
        let servers = |precision| Between::ratio(servers, 1, precision);
        shown(digits, |precision| self.failure(precision).times(&servers(precision)))
    }

    /// The chance that a fleet of `servers` becomes whole if up to `retries` instances in all are made again.
    pub fn replaced(&self, servers: u64, retries: u64, digits: usize) -> Digits {
        shown(digits, |precision| replacing::Fleet { p: self, servers, retries, precision }.whole())
    }

    /// The chance that it does not: one more fails than may.
    pub fn not_replaced(&self, servers: u64, retries: u64, digits: usize) -> Digits {
        shown(digits, |precision| replacing::Fleet { p: self, servers, retries, precision }.not_whole())
    }

    /// The least number of servers with which an upgrade in place comes out whole less likely than `target`; nothing
    /// if that never happens, or only with more than 10^15.
    pub fn falls_below(&self, target: &Self) -> Option<u64> {
        if self.is_certain() {
            return None;
        }
        // A first guess; the bounds decide.
        let failure = (self.below - self.above) as f64 / self.below as f64;
        let guess = target.about().ln() / (-failure).ln_1p();
        if guess > 1e15 {
            return None;
        }
        let mut servers = (guess as u64).max(1);
        while servers > 1 && self.is_below(target, servers - 1) {
            servers -= 1;
        }
        while !self.is_below(target, servers) {
            servers += 1;
        }
        Some(servers)
    }

    fn is_below(&self, target: &Self, servers: u64) -> bool {
        let told = |precision| self.between(precision).power(servers).is_less(&target.between(precision));
        precisions().find_map(told).unwrap_or(false)
    }

    fn between(&self, precision: usize) -> Between {
        Between::ratio(self.above, self.below, precision)
    }

    fn failure(&self, precision: usize) -> Between {
        Between::ratio(self.below - self.above, self.below, precision)
    }
}

fn precisions() -> impl Iterator<Item = usize> {
    std::iter::successors(Some(PRECISION), |p| Some(2 * p)).take_while(|p| *p <= HIGHEST_PRECISION)
}

/// The first digits of a number, calculated as precisely as it takes.
fn shown(digits: usize, number: impl Fn(usize) -> Between) -> Digits {
    let fewer = |digits: usize| precisions().find_map(|precision| number(precision).digits(digits));
    (1..=digits).rev().find_map(fewer).expect("bounds of nine thousand digits agree on the first")
}
