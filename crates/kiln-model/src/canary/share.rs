//! Shares as people write them: `5%`, `0.25%`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A part of a whole, in hundredths of a per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share(pub u32);

/// Text that is not a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a share like \"5%\" or \"0.25%\"")]
pub struct BadShare(String);

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self(10_000);

    /// From 0 to 1, or more for what is more than the whole.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE.0)
    }
}

impl FromStr for Share {
    type Err = BadShare;
    fn from_str(s: &str) -> Result<Self, BadShare> {
        let parsed = || {
            let number = s.strip_suffix('%')?;
            let (whole, parts) = number.split_once('.').unwrap_or((number, "0"));
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if !digits(whole) || !digits(parts) || parts.len() > 2 {
                return None;
            }
            let tenths = if parts.len() == 1 { 10 } else { 1 };
            let parts: u32 = parts.parse().ok()?;
            whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(parts * tenths)
        };
        parsed().map(Self).ok_or_else(|| BadShare(s.to_owned()))
    }
}

impl TryFrom<String> for Share {
    type Error = BadShare;
    fn try_from(s: String) -> Result<Self, BadShare> {
        s.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> String {
        share.to_string()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, parts) = (self.0 / 100, self.0 % 100);
        match (parts, parts % 10) {
            (0, _) => write!(f, "{whole}%"),
            (_, 0) => write!(f, "{whole}.{}%", parts / 10),
            _ => write!(f, "{whole}.{parts:02}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints_and_nothing_else() {
        for (text, hundredths) in
            [("5%", 500), ("0.25%", 25), ("0.05%", 5), ("12.5%", 1250), ("100%", 10_000)]
        {
            let share: Share = text.parse().unwrap();
            assert_eq!((share.0, share.to_string().as_str()), (hundredths, text));
        }
        for bad in ["", "%", "5", "5.%", ".5%", "-5%", "0.125%", "5 %", "99999999999%"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }
}
