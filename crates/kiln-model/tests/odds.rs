//! The arithmetic of fleets, against numbers calculated in another way: exactly, with all their digits.

use kiln_model::odds::{Chance, loss_budget};
use proptest::prelude::*;

fn chance(text: &str) -> Chance {
    text.parse().unwrap()
}

/// Calculated with sixty digits by another program.
#[test]
fn upgrades_in_place() {
    let percent = |p: &str, servers| chance(p).in_place(servers, 10).percent();
    assert_eq!(percent("99%", 1), "99");
    assert_eq!(percent("99%", 10), "90.4382075");
    assert_eq!(percent("99%", 1000), "0.004317124741");
    assert_eq!(percent("99.9%", 1000), "36.76954248");
    assert_eq!(percent("95%", 1000), "5.291822748e-21");
    assert_eq!(percent("100%", 1_000_000), "100");
    let plain = |p: &str, servers| chance(p).in_place(servers, 12).plain();
    assert_eq!(plain("0.9999", 1_000_000), "3.70152078575e-44");
    assert_eq!(plain("0.999999", 1_000_000_000), "5.0734215508e-435");
    assert_eq!(plain("1/2", 10_000), "5.01237274921e-3011");
    assert_eq!(plain("2/3", 100), "2.45965442658e-18");
}

/// Calculated with fractions by another program.
#[test]
fn instances_made_again() {
    let whole = |p: &str, servers, retries| chance(p).replaced(servers, retries, 12).scientific();
    let not_whole = |p: &str, servers, retries| chance(p).not_replaced(servers, retries, 12).scientific();
    assert_eq!(whole("95%", 10, 4), "9.99572609529e-1");
    assert_eq!(not_whole("95%", 10, 4), "4.27390470878e-4");
    assert_eq!(not_whole("95%", 1, 2), "1.25e-4");
    assert_eq!(not_whole("99.9%", 10, 4), "1.98703637504e-12");
    assert_eq!(not_whole("95%", 100, 49), "8.26995821532e-28");
    assert_eq!(not_whole("99.99%", 1000, 499), "5.91397972641e-1588");
    // More failures are to be expected than there may be.
    assert_eq!(whole("99%", 1000, 10), "5.70468867078e-1");
    assert_eq!(whole("1/2", 10, 4), "8.97827148438e-2");
    assert_eq!(whole("90%", 1000, 120), "8.02473603352e-1");
    let p = chance("99.9%");
    assert_eq!(p.replaced(1000, 0, 12), p.in_place(1000, 12), "without a second try it is the same");
    assert_eq!(chance("1").not_replaced(1000, 3, 12).plain(), "0");
    // As small as a chance can be written and as often as can be tried.
    let least = chance("0.9999999999999999999");
    assert_eq!(least.not_replaced(1, 255, 3).plain(), "1e-4864");
    assert_eq!(whole("10%", 1_000_000, 499_999).split_once('e').unwrap().1.len(), 7, "far below any chance");
}

#[test]
fn the_budget_of_a_fleet() {
    assert_eq!([1, 2, 6, 7, 8, 1000].map(loss_budget), [3, 3, 3, 3, 4, 500]);
}

#[test]
fn servers_left_between_versions() {
    assert_eq!(chance("99.99%").left_between(1000, 10).plain(), "0.1");
    assert_eq!(chance("99%").left_between(1000, 10).plain(), "10");
    assert_eq!(chance("2/3").left_between(100, 4).plain(), "33.33");
}

#[test]
fn the_fleet_at_which_it_falls_below_a_target() {
    let falls = |p: &str, target: &str| chance(p).falls_below(&chance(target));
    assert_eq!(falls("99%", "50%"), Some(69));
    assert_eq!(falls("99.99%", "99%"), Some(101));
    assert_eq!(falls("0.999999999999", "50%"), Some(693_147_180_560));
    // Exactly at the target is not below it.
    assert_eq!(falls("50%", "50%"), Some(2));
    assert_eq!(falls("0.9", "0.81"), Some(3));
    assert_eq!(falls("90%", "90%"), Some(2));
    assert_eq!(falls("1", "99%"), None);
}

#[test]
fn what_is_no_probability() {
    for text in
        ["", "%", "0", "0%", "101%", "1.01", "-1%", "1e-3", "3/2", "0/5", "1/0", "9/", ".", "99,9%", "nan"]
    {
        assert!(text.parse::<Chance>().is_err(), "{text}");
    }
    let forms = ["99.9%", "99.90 %", "0.999", ".999", "999/1000"].map(chance);
    assert!(forms.iter().all(|form| form.in_place(7, 20) == forms[0].in_place(7, 20)));
}

/// All digits of `above` to the power of `exponent`, the lowest first.
fn exact_power(above: u64, exponent: u32) -> Vec<u8> {
    let mut digits = vec![1_u8];
    for _ in 0..exponent {
        let mut carry = 0_u128;
        for digit in &mut digits {
            carry += u128::from(*digit) * u128::from(above);
            (*digit, carry) = ((carry % 10) as u8, carry / 10);
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    digits
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// `p` in ten-thousandths: p^N is a whole number with its point moved, and rounding it is looking at one digit.
    #[test]
    fn every_digit_shown_is_right(p in 1_u64..10_000, servers in 1_u32..200, count in 1_usize..30) {
        let shown = chance(&format!("{p}/10000")).in_place(u64::from(servers), count);
        let mut exact = exact_power(p, servers);
        exact.reverse();
        let mut power = exact.len() as i64 - 1 - 4 * i64::from(servers);
        let mut kept: Vec<u8> = exact.iter().take(count).copied().collect();
        if exact.get(count).is_some_and(|d| *d >= 5) {
            let nines = kept.iter().rev().take_while(|d| **d == 9).count();
            let end = kept.len();
            kept[end - nines..].fill(0);
            match end.checked_sub(nines + 1) {
                Some(place) => kept[place] += 1,
                None => { kept.insert(0, 1); power += 1; }
            }
        }
        let text: String = kept.iter().map(|d| char::from(b'0' + d)).collect();
        let digits = text.trim_end_matches('0');
        let rest = if digits.len() > 1 { format!(".{}", &digits[1..]) } else { String::new() };
        prop_assert_eq!(shown.scientific(), format!("{}{rest}e{power}", &digits[..1]));
    }

    /// The same sum in floating point, and both chances together.
    #[test]
    fn replacing_is_what_is_left_of_not_replacing(p in 1_u64..1000, servers in 1_u64..7, retries in 0_u64..6) {
        let q = 1000 - p;
        let choose = |n: u64, k: u64| (0..k).fold(1_u64, |c, i| c * (n - i) / (i + 1));
        let term = |k: u64| {
            choose(servers + k - 1, k) as f64
                * (p as f64 / 1000.0).powi(servers as i32)
                * (q as f64 / 1000.0).powi(k as i32)
        };
        let whole: f64 = (0..=retries).map(term).sum();
        let shown = chance(&format!("{p}/1000"));
        let told = shown.replaced(servers, retries, 12).about();
        prop_assert!((told - whole).abs() <= 1e-11 * whole.max(1e-300), "{told} and {whole}");
        let (not, sum) = (shown.not_replaced(servers, retries, 15).about(), shown.replaced(servers, retries, 15).about());
        prop_assert!((not + sum - 1.0).abs() < 1e-12, "{not} + {sum}");
    }

    /// In place is never better than its worst server, nor than with one server less; made again is never worse.
    #[test]
    fn more_servers_are_never_better(p in 1_u64..10_000, servers in 1_u64..10_000) {
        let p = chance(&format!("{p}/10000"));
        let in_place = |n| p.in_place(n, 12).about();
        prop_assert!(in_place(servers + 1) <= in_place(servers));
        prop_assert!(p.replaced(servers, 3, 12).about() >= in_place(servers));
        prop_assert!(p.replaced(servers, 4, 12).about() >= p.replaced(servers, 3, 12).about());
    }
}
