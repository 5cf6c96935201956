//! How often a good canary is given up, and a bad one let through, at low and at high traffic: simulated.

use super::*;
use crate::{Share, latency_bucket};

/// A repeatable source of chance (xorshift).
struct Chance(u64);

impl Chance {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What a release is like: how often it fails, and its median latency.
#[derive(Clone, Copy)]
struct Nature {
    errors: f64,
    median: f64,
}

const GOOD: Nature = Nature { errors: 0.002, median: 20_000.0 };

fn terms() -> Terms {
    Terms { hold: Millis(60_000), within: Millis(600_000), errors: Share(100), slower: Share(5_000) }
}

fn request(evidence: &mut Evidence, nature: Nature, chance: &mut Chance) {
    evidence.requests += 1;
    evidence.failed += u64::from(chance.unit() < nature.errors);
    // Lognormal, more or less: the sum of uniforms.
    let normal = (0..6).map(|_| chance.unit()).sum::<f64>() - 3.0;
    let micros = nature.median * (normal * 1.2).exp();
    evidence.latency[latency_bucket(micros as u64)] += 1;
}

/// One step of a canary at `pace` requests a second, looked at each second. Returns the verdict and its second.
fn step(green: Nature, blue: Nature, share: f64, pace: f64, chance: &mut Chance) -> (Verdict, u64) {
    let (mut trial, terms) = (Trial::default(), terms());
    let mut pair =
        Pair { service: "web".parse().unwrap(), blue: Evidence::default(), green: Evidence::default() };
    for second in 1..=600 {
        let count = pace.floor() as u64 + u64::from(chance.unit() < pace.fract());
        for _ in 0..count {
            if chance.unit() < share {
                request(&mut pair.green, green, chance);
            } else {
                request(&mut pair.blue, blue, chance);
            }
        }
        let verdict = trial.look(std::slice::from_ref(&pair), &terms, Millis(second * 1000));
        if !matches!(verdict, Verdict::Open(_)) {
            return (verdict, second);
        }
    }
    unreachable!("the last second is the end of its time");
}

fn worse(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Worse(_))
}

/// How many of `runs` steps are given up.
fn given_up(runs: u32, green: Nature, blue: Nature, share: f64, pace: f64) -> u32 {
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    (0..runs).map(|_| u32::from(worse(&step(green, blue, share, pace, &mut chance).0))).sum()
}

#[test]
fn a_good_canary_is_hardly_ever_given_up_at_any_traffic() {
    // 1 % is the bound; the margins keep it far below, so that 3 of 300 would be far too many.
    for (share, pace) in [(0.05, 0.5), (0.25, 2.0), (0.05, 40.0), (0.5, 40.0)] {
        let wrong = given_up(300, GOOD, GOOD, share, pace);
        assert!(wrong <= 3, "{wrong} of 300 at {pace} requests a second and {share}");
    }
    // Nor is one that fails often, if the old release does, too.
    let shaky = Nature { errors: 0.1, ..GOOD };
    let wrong = given_up(200, shaky, shaky, 0.25, 10.0);
    assert!(wrong <= 4, "{wrong} of 200 shaky ones");
}

/// Without the correction for repeated looks the same data would be condemned much more often: the test above can
/// fail.
#[test]
fn looking_again_and_again_without_paying_for_it_would_be_wrong() {
    let mut chance = Chance(7);
    let shaky = Nature { errors: 0.3, ..GOOD };
    let naive = |chance: &mut Chance| {
        let mut pair =
            Pair { service: "web".parse().unwrap(), blue: Evidence::default(), green: Evidence::default() };
        let terms = Terms { errors: Share(0), ..terms() };
        (0..600).any(|_| {
            request(&mut pair.green, shaky, chance);
            (0..4).for_each(|_| request(&mut pair.blue, shaky, chance));
            fails_more(&pair, &terms, FALSE_ALARM).is_some()
        })
    };
    let wrong = (0..100).filter(|_| naive(&mut chance)).count();
    assert!(wrong > 3, "only {wrong} of 100");
}

#[test]
fn a_bad_canary_is_found_out_as_soon_as_there_is_evidence() {
    let mut chance = Chance(42);
    for (green, share, pace, at_most) in [
        // It fails always: the first looks are enough even at one request in two seconds.
        (Nature { errors: 1.0, ..GOOD }, 0.25, 0.5, 200),
        (Nature { errors: 0.2, ..GOOD }, 0.05, 40.0, 90),
        (Nature { median: 60_000.0, ..GOOD }, 0.05, 40.0, 60),
        (Nature { errors: 0.05, ..GOOD }, 0.25, 40.0, 60),
    ] {
        let runs: Vec<(Verdict, u64)> =
            (0..100).map(|_| step(green, GOOD, share, pace, &mut chance)).collect();
        let found = runs.iter().filter(|(verdict, second)| worse(verdict) && *second <= at_most).count();
        let let_through = runs.iter().filter(|(verdict, _)| matches!(verdict, Verdict::AsGood(_))).count();
        assert!(
            found >= 95 && let_through == 0,
            "{found} found, {let_through} let through at {pace} {share}"
        );
    }
}

#[test]
fn a_good_canary_passes_when_there_is_evidence_and_else_waits_for_its_time() {
    let mut chance = Chance(3);
    for _ in 0..50 {
        let (verdict, second) = step(GOOD, GOOD, 0.25, 40.0, &mut chance);
        assert!(matches!(verdict, Verdict::AsGood(_)) && second < 600, "{verdict:?} after {second}");
        assert!(second >= 60, "before its least time");
        let (verdict, second) = step(GOOD, GOOD, 0.05, 0.2, &mut chance);
        assert!(matches!(verdict, Verdict::NoEvidence(_)) && second == 600, "{verdict:?} after {second}");
    }
}

#[test]
fn a_difference_nobody_minds_is_no_reason_however_much_evidence_there_is() {
    let mut chance = Chance(11);
    let slightly = Nature { errors: 0.005, median: 22_000.0 };
    let (verdict, _) = step(slightly, GOOD, 0.5, 400.0, &mut chance);
    assert!(matches!(verdict, Verdict::AsGood(_)), "{verdict:?}");
}

/// Time after time `slow` of a hundred requests of the new release are slow during the warming up, and none after it.
fn warming_up(slow: u64, failed: u64) -> Vec<Verdict> {
    let terms = terms();
    let (mut trial, mut pair) = (
        Trial::default(),
        Pair { service: "web".parse().unwrap(), blue: Evidence::default(), green: Evidence::default() },
    );
    let looks = (1..=80).map(|second| {
        let slow = if second * 1000 < terms.hold.0 / WARM_UP { slow } else { 0 };
        for (evidence, slow, failed) in [(&mut pair.blue, 0, 0), (&mut pair.green, slow, failed)] {
            evidence.requests += 100;
            evidence.failed += failed;
            evidence.latency[latency_bucket(1_000)] += 100 - slow;
            evidence.latency[latency_bucket(90_000)] += slow;
        }
        trial.look(std::slice::from_ref(&pair), &terms, Millis(second * 1000))
    });
    looks.take_while(|verdict| !worse(verdict)).collect()
}

#[test]
fn what_was_just_started_may_be_slow_at_first_and_may_not_fail() {
    let verdicts = warming_up(60, 0);
    assert_eq!(verdicts.len(), 80, "it was given up after {} s", verdicts.len());
    assert!(matches!(verdicts.last(), Some(Verdict::AsGood(_))));
    assert_eq!(warming_up(0, 60).len(), 0, "failures count from the first one");
}

#[test]
fn the_figures_are_told() {
    let mut trial = Trial::default();
    let mut pair =
        Pair { service: "web".parse().unwrap(), blue: Evidence::default(), green: Evidence::default() };
    pair.blue.requests = 1000;
    pair.blue.latency[latency_bucket(1_000)] = 1000;
    pair.green.requests = 100;
    pair.green.latency[latency_bucket(1_000)] = 100;
    pair.green.failed = 40;
    let Verdict::Worse(why) = trial.look(&[pair], &terms(), Millis(1000)) else { panic!("it is worse") };
    assert!(why.contains("web fails more: 40 of 100 requests (40.00 %) against 0 of 1000 requests"), "{why}");
    let silent = Trial::default().look(&[], &terms(), Millis(600_000));
    assert!(matches!(silent, Verdict::NoEvidence(_)));
}
