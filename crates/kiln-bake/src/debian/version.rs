//! Debian versions and their order.

use std::cmp::Ordering;

/// Compares two versions as dpkg does: epoch, upstream version, revision.
pub fn compare(a: &str, b: &str) -> Ordering {
    let ((a_epoch, a), (b_epoch, b)) = (split_epoch(a), split_epoch(b));
    let ((a_upstream, a_revision), (b_upstream, b_revision)) = (split_revision(a), split_revision(b));
    compare_epochs(a_epoch, b_epoch)
        .then_with(|| compare_parts(a_upstream.as_bytes(), b_upstream.as_bytes()))
        .then_with(|| compare_parts(a_revision.as_bytes(), b_revision.as_bytes()))
}

/// Whether `version` is what a pin asks for: exactly it, or with a `*` at the end anything that starts so.
/// An epoch need not be written in the pin.
pub(crate) fn matches_pin(version: &str, pin: &str) -> bool {
    let without_epoch = split_epoch(version).1;
    match pin.strip_suffix('*') {
        Some(start) => version.starts_with(start) || without_epoch.starts_with(start),
        None => version == pin || without_epoch == pin,
    }
}

fn split_epoch(version: &str) -> (&str, &str) {
    version.split_once(':').unwrap_or(("0", version))
}

fn split_revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

fn compare_epochs(a: &str, b: &str) -> Ordering {
    compare_numbers(a.as_bytes(), b.as_bytes())
}

/// Digits of any length, without a number type that could overflow.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |n: &[u8]| n.iter().position(|c| *c != b'0').unwrap_or(n.len());
    let (a, b) = (&a[significant(a)..], &b[significant(b)..]);
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Alternates between text and numbers. Text compares by letters before everything else, and `~` before the end.
fn compare_parts(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let ((a_text, a_rest), (b_text, b_rest)) = (split_text(a), split_text(b));
        let ((a_number, a_next), (b_number, b_next)) = (split_number(a_rest), split_number(b_rest));
        let order = compare_text(a_text, b_text).then_with(|| compare_numbers(a_number, b_number));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (a_next, b_next);
    }
    Ordering::Equal
}

fn split_text(s: &[u8]) -> (&[u8], &[u8]) {
    s.split_at(s.iter().position(u8::is_ascii_digit).unwrap_or(s.len()))
}

fn split_number(s: &[u8]) -> (&[u8], &[u8]) {
    s.split_at(s.iter().position(|c| !c.is_ascii_digit()).unwrap_or(s.len()))
}

fn compare_text(a: &[u8], b: &[u8]) -> Ordering {
    let weight = |c: Option<&u8>| match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    };
    (0..a.len().max(b.len()))
        .map(|i| weight(a.get(i)).cmp(&weight(b.get(i))))
        .find(|o| *o != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In rising order, as the policy manual and the field have them.
    const RISING: [&str; 18] = [
        "0~~",
        "0~~a",
        "0~",
        "0",
        "0a",
        "0.1~rc1",
        "0.1",
        "0.1-1",
        "0.1-1+b1",
        "0.1-1.1",
        "0.1-2",
        "0.1+dfsg-1",
        "0.2",
        "0.10",
        "1.0~beta-1",
        "1.0-1",
        "1:0.1",
        "2:0~",
    ];

    #[test]
    fn the_order_is_dpkgs() {
        for (i, a) in RISING.iter().enumerate() {
            for (j, b) in RISING.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} and {b}");
            }
        }
    }

    #[test]
    fn what_is_written_differently_may_be_equal() {
        for (a, b) in [("1.0", "1.00"), ("0:1", "1"), ("1-0", "1"), ("1.", "1.0")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} and {b}");
        }
    }

    #[test]
    fn pins() {
        assert!(matches_pin("1.22.1-9", "1.22.*"));
        assert!(matches_pin("1:1.22.1-9", "1.22.*"));
        assert!(matches_pin("1.22.1-9", "1.22.1-9"));
        assert!(!matches_pin("1.22.1-9", "1.22.1"));
        assert!(!matches_pin("1.220", "1.22.*"));
    }
}
