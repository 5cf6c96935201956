//! Extended headers of a tar archive (pax): records that say more of the next entry than its header can.
//!
//! Each is `LENGTH KEY=VALUE` and an end of line, and its length alone says where it ends: a value holds any bytes, also
//! those that end lines, as the capabilities of a file may.

use std::collections::BTreeMap;

/// What was said of one entry, by key; of what is said twice, the last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

/// What is wrong with such a header.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRecord {
    #[error(
        "the extended header has a record at byte {0} that is not made as `LENGTH KEY=VALUE` and an end of line"
    )]
    Shape(usize),
    #[error("the extended header says that `{0}` is {1}, which is no number from 0 to 2^64")]
    Number(&'static str, String),
}

impl Records {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut records = BTreeMap::new();
        let mut at = 0;
        while at < bytes.len() {
            let (key, value, length) = record(&bytes[at..]).ok_or(BadRecord::Shape(at))?;
            records.insert(key.to_vec(), value.to_vec());
            at += length;
        }
        Ok(Self(records))
    }

    /// What takes the place of a field of the header: no empty value does.
    pub(super) fn field(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    pub(super) fn number(&self, key: &'static str) -> Result<Option<u64>, BadRecord> {
        let bad = |value: &[u8]| BadRecord::Number(key, String::from_utf8_lossy(value).into_owned());
        self.field(key).map(|value| number(value).ok_or_else(|| bad(value))).transpose()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

/// The first record of `bytes`: its key, its value and its length.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    // No length that can be has more digits.
    let space = bytes.iter().take(20).position(|c| *c == b' ')?;
    let length = usize::try_from(number(&bytes[..space])?).ok()?;
    let pair = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|c| *c == b'=').filter(|at| *at > 0)?;
    Some((&pair[..equals], &pair[equals + 1..], length))
}

/// Digits and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_say_where_records_end() {
        let records = Records::parse(b"12 a=b\n=c\nd\n6 e=f\n6 e=g\n5 h=\n10 size=7\n").unwrap();
        let all: Vec<_> = records.iter().collect();
        let expected: [(&[u8], &[u8]); 4] = [(b"a", b"b\n=c\nd"), (b"e", b"g"), (b"h", b""), (b"size", b"7")];
        assert_eq!(all, expected);
        assert_eq!((records.number("size"), records.field("h")), (Ok(Some(7)), None));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for bad in [
            "6 a=b",
            "7 a=b\n",
            "5 a=b\n",
            "+6 a=b\n",
            "5 =b\n",
            "5 ab\n",
            " 6 a=b\n",
            "1 a=b\n",
            "\n",
            "6 a=b\n\0",
        ] {
            assert!(Records::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Records::parse(b"99999999999999999999 a=b\n").is_err());
        assert_eq!(Records::parse(b"6 a=b\n?"), Err(BadRecord::Shape(6)));
        assert!(Records::parse(b"11 size=-7\n").unwrap().number("size").is_err());
    }
}
