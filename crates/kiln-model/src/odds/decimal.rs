//! Numbers from 0 to many, between two bounds that are never wrong.
//!
//! A chance like 0.99 to the power of a thousand has two thousand digits, and to the power of a million two million.
//! Of those only the first few matter, and they must be right. So a number is a pair of bounds of a hundred digits or
//! more; every operation rounds the lower one down and the upper one up, and digits are only shown where both agree.

use std::cmp::Ordering;

/// What one limb counts to.
const BASE: u64 = 1_000_000_000;
/// Decimal digits in a limb.
const DIGITS: i64 = 9;

/// `limbs` (the lowest first) times [`BASE`] to the power of `exponent`. Zero has no limbs; the last is never zero.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    limbs: Vec<u32>,
    exponent: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rounding {
    Down,
    Up,
}

impl Bound {
    fn new(limbs: Vec<u32>, exponent: i64) -> Self {
        let mut bound = Self { limbs, exponent };
        while bound.limbs.last() == Some(&0) {
            bound.limbs.pop();
        }
        bound
    }

    fn of(mut number: u64) -> Self {
        let mut limbs = Vec::new();
        while number > 0 {
            limbs.push((number % BASE) as u32);
            number /= BASE;
        }
        Self { limbs, exponent: 0 }
    }

    /// `above / below` to `precision` limbs behind the point.
    fn ratio(above: u64, below: u64, precision: usize, rounding: Rounding) -> Self {
        let mut rest = u128::from(above % below);
        let mut behind = Vec::with_capacity(precision);
        for _ in 0..precision {
            rest *= u128::from(BASE);
            behind.push((rest / u128::from(below)) as u32);
            rest %= u128::from(below);
        }
        behind.reverse();
        let whole = Self::of(above / below);
        behind.extend(whole.limbs);
        let bound = Self::new(behind, -(precision as i64));
        if rest > 0 && rounding == Rounding::Up { bound.next() } else { bound }
    }

    /// One more in the lowest place.
    fn next(mut self) -> Self {
        for limb in &mut self.limbs {
            *limb += 1;
            if u64::from(*limb) < BASE {
                return self;
            }
            *limb = 0;
        }
        self.limbs.push(1);
        self
    }

    /// The same to `precision` limbs.
    fn rounded(mut self, precision: usize, rounding: Rounding) -> Self {
        let surplus = self.limbs.len().saturating_sub(precision);
        if surplus == 0 {
            return self;
        }
        let lost = self.limbs.drain(..surplus).any(|limb| limb != 0);
        self.exponent += surplus as i64;
        if lost && rounding == Rounding::Up { self.next() } else { self }
    }

    fn times(&self, other: &Self, precision: usize, rounding: Rounding) -> Self {
        let mut product = vec![0_u64; self.limbs.len() + other.limbs.len() + 1];
        for (i, a) in self.limbs.iter().enumerate() {
            let mut carry = 0;
            for (j, b) in other.limbs.iter().enumerate() {
                let sum = product[i + j] + u64::from(*a) * u64::from(*b) + carry;
                (product[i + j], carry) = (sum % BASE, sum / BASE);
            }
            product[i + other.limbs.len()] += carry;
        }
        let limbs = product.into_iter().map(|limb| limb as u32).collect();
        Self::new(limbs, self.exponent + other.exponent).rounded(precision, rounding)
    }

    /// One less this, which is at most one: what would be borrowed last is that one.
    fn complement(&self, precision: usize, rounding: Rounding) -> Self {
        if self.limbs.is_empty() {
            return Self::of(1);
        }
        let places = self.exponent.unsigned_abs() as usize;
        if places > 4 * precision + self.limbs.len() {
            // Less than any place that is kept.
            let nines = Self::new(vec![BASE as u32 - 1; precision], -(precision as i64));
            return if rounding == Rounding::Up { Self::of(1) } else { nines };
        }
        let mut limbs = vec![0_u32; places];
        let mut borrow = 0;
        for (place, limb) in limbs.iter_mut().enumerate() {
            let taken = self.limbs.get(place).map_or(0, |l| u64::from(*l)) + borrow;
            (*limb, borrow) = if taken == 0 { (0, 0) } else { ((BASE - taken) as u32, 1) };
        }
        Self::new(limbs, self.exponent).rounded(precision, rounding)
    }

    /// All digits, and the power of ten of the first; nothing for zero.
    fn digits(&self) -> Option<(String, i64)> {
        let (last, rest) = self.limbs.split_last()?;
        let mut digits = last.to_string();
        rest.iter().rev().for_each(|limb| digits.push_str(&format!("{limb:09}")));
        let power = digits.len() as i64 - 1 + DIGITS * self.exponent;
        Some((digits, power))
    }

    /// The place above the highest limb.
    fn top(&self) -> i64 {
        self.exponent + self.limbs.len() as i64
    }

    fn times_small(&self, factor: u64, precision: usize, rounding: Rounding) -> Self {
        let mut carry = 0_u128;
        let mut limbs = Vec::with_capacity(self.limbs.len() + 3);
        for limb in &self.limbs {
            carry += u128::from(*limb) * u128::from(factor);
            limbs.push((carry % u128::from(BASE)) as u32);
            carry /= u128::from(BASE);
        }
        while carry > 0 {
            limbs.push((carry % u128::from(BASE)) as u32);
            carry /= u128::from(BASE);
        }
        Self::new(limbs, self.exponent).rounded(precision, rounding)
    }

    fn over_small(&self, divisor: u64, precision: usize, rounding: Rounding) -> Self {
        // A divisor has three limbs at most: so many places more and the quotient is as long as it should be.
        let floor = self.top() - precision as i64 - 3;
        let mut limbs = self.in_places_of(floor.min(self.exponent), rounding);
        let mut rest = 0_u128;
        for limb in limbs.iter_mut().rev() {
            rest = rest * u128::from(BASE) + u128::from(*limb);
            *limb = (rest / u128::from(divisor)) as u32;
            rest %= u128::from(divisor);
        }
        let bound = Self::new(limbs, floor.min(self.exponent));
        let bound = if rest > 0 && rounding == Rounding::Up { bound.next() } else { bound };
        bound.rounded(precision, rounding)
    }

    fn plus(&self, other: &Self, precision: usize, rounding: Rounding) -> Self {
        let (big, small) = if self.top() < other.top() { (other, self) } else { (self, other) };
        if small.limbs.is_empty() || big.limbs.is_empty() {
            return if big.limbs.is_empty() { small.clone() } else { big.clone() };
        }
        let floor = big.top() - precision as i64;
        let (mut sum, small) = (big.in_places_of(floor, rounding), small.in_places_of(floor, rounding));
        sum.resize(sum.len().max(small.len()) + 1, 0);
        let mut carry = 0;
        for (place, limb) in sum.iter_mut().enumerate() {
            let all = u64::from(*limb) + small.get(place).map_or(0, |l| u64::from(*l)) + carry;
            (*limb, carry) = ((all % BASE) as u32, all / BASE);
        }
        Self::new(sum, floor)
    }

    /// The limbs from the place `floor` on.
    fn in_places_of(&self, floor: i64, rounding: Rounding) -> Vec<u32> {
        if let Ok(more) = usize::try_from(self.exponent - floor) {
            return [vec![0; more], self.limbs.clone()].concat();
        }
        let surplus = usize::try_from(floor - self.exponent).unwrap_or(usize::MAX).min(self.limbs.len());
        let (lost, kept) = self.limbs.split_at(surplus);
        let kept = Self { limbs: kept.to_vec(), exponent: floor };
        let up = rounding == Rounding::Up && lost.iter().any(|limb| *limb != 0);
        if up { kept.next().limbs } else { kept.limbs }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.digits(), other.digits()) {
            (None, None) => Ordering::Equal,
            (None, _) => Ordering::Less,
            (_, None) => Ordering::Greater,
            (Some((a, at)), Some((b, bt))) => {
                at.cmp(&bt).then_with(|| a.trim_end_matches('0').cmp(b.trim_end_matches('0')))
            }
        }
    }
}

/// A number that lies between two bounds, or is both.
#[derive(Debug, Clone)]
pub(super) struct Between {
    low: Bound,
    high: Bound,
    precision: usize,
}

impl Between {
    /// `above / below`.
    pub(super) fn ratio(above: u64, below: u64, precision: usize) -> Self {
        let bound = |rounding| Bound::ratio(above, below, precision, rounding);
        Self { low: bound(Rounding::Down), high: bound(Rounding::Up), precision }
    }

    pub(super) fn times(&self, other: &Self) -> Self {
        Self {
            low: self.low.times(&other.low, self.precision, Rounding::Down),
            high: self.high.times(&other.high, self.precision, Rounding::Up),
            precision: self.precision,
        }
    }

    pub(super) fn power(&self, mut exponent: u64) -> Self {
        let mut power = Self { low: Bound::of(1), high: Bound::of(1), precision: self.precision };
        let mut square = self.clone();
        loop {
            if exponent & 1 == 1 {
                power = power.times(&square);
            }
            exponent >>= 1;
            if exponent == 0 {
                return power;
            }
            square = square.times(&square);
        }
    }

    /// `above / below` times it, for a `below` that is not 0.
    pub(super) fn scaled(&self, above: u64, below: u64) -> Self {
        let scale = |bound: &Bound, rounding| {
            bound.times_small(above, self.precision, rounding).over_small(below, self.precision, rounding)
        };
        let (low, high) = (scale(&self.low, Rounding::Down), scale(&self.high, Rounding::Up));
        Self { low, high, precision: self.precision }
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            low: self.low.plus(&other.low, self.precision, Rounding::Down),
            high: self.high.plus(&other.high, self.precision, Rounding::Up),
            precision: self.precision,
        }
    }

    /// It, or up to `factor` times `rest` more.
    pub(super) fn and_up_to(&self, rest: &Self, factor: u64) -> Self {
        let rest = rest.high.times_small(factor, self.precision, Rounding::Up);
        Self { high: self.high.plus(&rest, self.precision, Rounding::Up), ..self.clone() }
    }

    /// Whether it is too small to matter in a sum with `other`.
    pub(super) fn is_lost_in(&self, other: &Self) -> bool {
        self.high.limbs.is_empty()
            || (!other.low.limbs.is_empty() && self.high.top() + self.precision as i64 <= other.low.top())
    }

    pub(super) fn zero(precision: usize) -> Self {
        Self { low: Bound::of(0), high: Bound::of(0), precision }
    }

    /// One less this.
    pub(super) fn complement(&self) -> Self {
        Self {
            low: self.high.complement(self.precision, Rounding::Down),
            high: self.low.complement(self.precision, Rounding::Up),
            precision: self.precision,
        }
    }

    /// Whether it is less than `other`; nothing if the bounds are too wide to tell.
    pub(super) fn is_less(&self, other: &Self) -> Option<bool> {
        if self.high.compare(&other.low) == Ordering::Less {
            return Some(true);
        }
        (self.low.compare(&other.high) != Ordering::Less).then_some(false)
    }

    /// The first `count` digits, rounded, where both bounds agree on them.
    pub(super) fn digits(&self, count: usize) -> Option<Digits> {
        let low = Digits::of(&self.low, count);
        (low == Digits::of(&self.high, count)).then_some(low)
    }
}

/// A number in the digits that are shown of it: `d.ddd` times ten to the power of `power`; no digits is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digits {
    digits: String,
    power: i64,
}

impl Digits {
    fn of(bound: &Bound, count: usize) -> Self {
        let Some((all, power)) = bound.digits() else { return Self { digits: String::new(), power: 0 } };
        let up = all.as_bytes().get(count).is_some_and(|next| *next >= b'5');
        let mut kept: Vec<u8> = all.bytes().take(count).collect();
        let carried = up && !increment(&mut kept);
        if carried {
            kept.insert(0, b'1');
        }
        let digits = kept.into_iter().map(char::from).collect::<String>();
        Self { digits: digits.trim_end_matches('0').to_owned(), power: power + i64::from(carried) }
    }

    /// Written out, `0.00123`, or with an exponent where that would be long: `1.23e-15`.
    pub fn plain(&self) -> String {
        self.shifted(0)
    }

    /// A hundred times it, as [`Digits::plain`].
    pub fn percent(&self) -> String {
        self.shifted(2)
    }

    /// With an exponent, whatever its size: `9.99e-1`.
    pub fn scientific(&self) -> String {
        self.with_exponent(0)
    }

    /// About this number.
    pub fn about(&self) -> f64 {
        self.with_exponent(0).parse().unwrap_or(0.0)
    }

    fn shifted(&self, by: i64) -> String {
        let power = self.power + by;
        let length = self.digits.len() as i64;
        match power {
            _ if self.digits.is_empty() => "0".into(),
            -6..0 => format!("0.{}{}", "0".repeat((-power - 1) as usize), self.digits),
            0..15 if length <= power + 1 => {
                format!("{}{}", self.digits, "0".repeat((power + 1 - length) as usize))
            }
            0..15 => {
                let (whole, rest) = self.digits.split_at(power as usize + 1);
                format!("{whole}.{rest}")
            }
            _ => self.with_exponent(by),
        }
    }

    fn with_exponent(&self, by: i64) -> String {
        match self.digits.split_at_checked(1) {
            None => "0".into(),
            Some((first, "")) => format!("{first}e{}", self.power + by),
            Some((first, rest)) => format!("{first}.{rest}e{}", self.power + by),
        }
    }
}

/// One more in the last digit; false if that needs a digit more.
fn increment(digits: &mut [u8]) -> bool {
    for digit in digits.iter_mut().rev() {
        match digit {
            b'9' => *digit = b'0',
            _ => {
                *digit += 1;
                return true;
            }
        }
    }
    false
}
