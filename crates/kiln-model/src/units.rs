//! Amounts as people write them: `64MiB`, `100ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Text that is not the amount it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {expected}")]
pub struct BadUnit {
    given: String,
    expected: &'static str,
}

/// A number of bytes; written `512B`, `64KiB`, `64MiB` or `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ByteSize(pub u64);

/// A span of time in milliseconds; written `100ms`, `30s`, `10m` or `2h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Millis(pub u64);

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SPANS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

fn parse(s: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = s.bytes().take_while(u8::is_ascii_digit).count();
    let factor = units.iter().find(|(unit, _)| *unit == &s[digits..])?.1;
    s[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

/// The largest unit that divides `n`, so that what is printed reads back as the same amount.
fn print(n: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fits = |(_, factor): &&(&str, u64)| n != 0 && n.is_multiple_of(*factor);
    let (unit, factor) =
        units.iter().filter(fits).max_by_key(|u| u.1).or(units.iter().min_by_key(|u| u.1)).expect("units");
    f.pad(&format!("{}{unit}", n / factor))
}

impl FromStr for ByteSize {
    type Err = BadUnit;
    fn from_str(s: &str) -> Result<Self, BadUnit> {
        parse(s, &SIZES)
            .map(Self)
            .ok_or_else(|| BadUnit { given: s.into(), expected: "a size like \"64MiB\" (B, KiB, MiB, GiB)" })
    }
}

impl FromStr for Millis {
    type Err = BadUnit;
    fn from_str(s: &str) -> Result<Self, BadUnit> {
        parse(s, &SPANS)
            .map(Self)
            .ok_or_else(|| BadUnit { given: s.into(), expected: "a duration like \"30s\" (ms, s, m, h)" })
    }
}

impl ByteSize {
    /// For people, who do not care for the last byte: `23.5GiB`, and `64MiB` where that is all of it.
    pub fn about(self) -> String {
        match SIZES.iter().find(|(unit, factor)| self.0 >= *factor && *unit != "B") {
            Some((unit, factor)) if !self.0.is_multiple_of(*factor) => {
                format!("{:.1}{unit}", self.0 as f64 / *factor as f64)
            }
            _ => self.to_string(),
        }
    }
}

impl Millis {
    /// The same span as the standard library has it.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

macro_rules! text {
    ($name:ident, $units:ident) => {
        impl TryFrom<String> for $name {
            type Error = BadUnit;
            fn try_from(s: String) -> Result<Self, BadUnit> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(v: $name) -> String {
                v.to_string()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print(self.0, &$units, f)
            }
        }
    };
}
text!(ByteSize, SIZES);
text!(Millis, SPANS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for s in ["0B", "1B", "1536B", "64MiB", "3GiB"] {
            assert_eq!(s.parse::<ByteSize>().unwrap().to_string(), s);
        }
        for s in ["0ms", "1500ms", "30s", "90s", "10m", "2h"] {
            assert_eq!(s.parse::<Millis>().unwrap().to_string(), s);
        }
    }

    #[test]
    fn what_is_said_about_an_amount_is_short() {
        for (bytes, said) in [
            (0, "0B"),
            (512, "512B"),
            (1536, "1.5KiB"),
            (64 << 20, "64MiB"),
            ((64 << 20) + 1, "64.0MiB"),
            (25_276_510_208, "23.5GiB"),
            (3 << 30, "3GiB"),
        ] {
            assert_eq!(ByteSize(bytes).about(), said);
        }
    }

    #[test]
    fn refuses_what_is_not_an_amount() {
        for s in ["", "64", "MiB", "64mib", "-1s", "1.5s", "99999999999999999999B", "18446744073709551615GiB"]
        {
            assert!(s.parse::<ByteSize>().is_err(), "{s}");
            assert!(s.parse::<Millis>().is_err(), "{s}");
        }
    }
}
