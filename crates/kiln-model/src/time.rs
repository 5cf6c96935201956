//! Moments. The model only compares and prints them; reading a clock is somebody else's work.

use std::fmt;

use jiff::Timestamp as Moment;
use serde::{Deserialize, Serialize};

use crate::Millis;

/// Milliseconds since the Unix epoch. In JSON an RFC 3339 string in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment and `span` more.
    #[must_use]
    pub fn after(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// How long before `later` this was; zero if it was not before.
    pub fn until(self, later: Timestamp) -> Millis {
        Millis(later.0.saturating_sub(self.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = i64::try_from(self.0).ok().and_then(|ms| Moment::from_millisecond(ms).ok());
        match moment {
            Some(m) => write!(f, "{m:.3}"),
            None => write!(f, "{}ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let moment: Moment = crate::text::deserialize(d, "a moment as RFC 3339 has it")?;
        u64::try_from(moment.as_millisecond()).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_with_milliseconds_and_back() {
        let t = Timestamp(1_790_000_000_042);
        assert_eq!(t.to_string(), "2026-09-21T14:13:20.042Z");
        let json = serde_json::to_string(&t).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), t);
    }
}
