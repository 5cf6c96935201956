//! From when until when a certificate is good, and whether somebody should be told.

use crate::Timestamp;

/// A certificate ends soon when a sixth of its time is left: half of what there was to renew it in.
const SOON: u64 = 6;
/// But never earlier than two weeks before its end.
const SOON_AT_MOST: u64 = 14 * 24 * 3_600_000;

/// The time a certificate is good for, to the second, its first and its last second included (RFC 5280, 4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub from: Timestamp,
    /// Its last second.
    pub until: Timestamp,
}

/// How a certificate stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its time has not begun.
    NotYet,
    /// It is good.
    Good,
    /// It is good, and should have been renewed by now.
    EndsSoon,
    /// Its time is over.
    Expired,
}

impl Validity {
    /// How it stands at this moment.
    pub fn standing(self, now: Timestamp) -> Standing {
        let second = |at: Timestamp| at.0 / 1000;
        let soon = (self.from.until(self.until).0 / SOON).min(SOON_AT_MOST);
        if second(now) > second(self.until) {
            Standing::Expired
        } else if second(now) < second(self.from) {
            Standing::NotYet
        } else if now.until(self.until).0 < soon {
            Standing::EndsSoon
        } else {
            Standing::Good
        }
    }

    /// Whether it is time to renew it: two thirds of its time are over, and there is a third for whatever goes wrong.
    pub fn is_due(self, now: Timestamp) -> bool {
        now.0 / 1000 >= (self.from.0 + self.from.until(self.until).0 / 3 * 2) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600_000;

    fn of(days: u64) -> Validity {
        Validity { from: Timestamp(100 * DAY), until: Timestamp((100 + days) * DAY) }
    }

    #[test]
    fn a_certificate_is_good_to_its_last_second() {
        let validity = of(90);
        let at = |millis: u64| validity.standing(Timestamp(millis));
        assert_eq!(at(100 * DAY - 1), Standing::NotYet);
        assert_eq!(at(100 * DAY), Standing::Good);
        assert_eq!(at(190 * DAY + 999), Standing::EndsSoon);
        assert_eq!(at(190 * DAY + 1000), Standing::Expired);
    }

    #[test]
    fn it_ends_soon_when_it_should_have_been_renewed() {
        for (days, soon) in [(6, 1), (47, 7), (90, 14), (365, 14), (3650, 14)] {
            let before = |left: u64| of(days).standing(Timestamp((100 + days - left) * DAY));
            assert_eq!((before(soon + 1), before(soon - 1)), (Standing::Good, Standing::EndsSoon), "{days}");
            let due = Timestamp((100 + days - soon) * DAY);
            assert!(of(days).is_due(due), "who renews at two thirds is not warned of {days} days");
        }
    }

    #[test]
    fn it_is_due_when_a_third_of_its_time_is_left() {
        let of =
            |from: u64, until: u64| Validity { from: Timestamp(from * 1000), until: Timestamp(until * 1000) };
        let at = |seconds: u64| of(1_000, 4_000).is_due(Timestamp(seconds * 1000));
        assert!(!at(2_999) && at(3_000) && at(9_999));
        assert!(of(4_000, 1_000).is_due(Timestamp(5_000_000)), "nonsense is no reason to wait");
        assert_eq!(of(4_000, 1_000).standing(Timestamp(2_000_000)), Standing::Expired);
    }
}
