//! Digests. All are sha256 over something; the types say over what.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// Text that is not the digest it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: expected 64 hex digits, with or without `sha256:` before them")]
pub struct BadDigest(String);

/// A plain sha256 of some bytes: of a package file, of an index, of an encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        // By hand: an image of 9,000 files asks 9,000 times, and `format!` per byte was most of writing it.
        self.0.iter().flat_map(|b| hex_pair(*b)).map(char::from).collect()
    }
}

/// A byte in two lower-case hex digits.
pub const fn hex_pair(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]
}

/// In no value of a hex digit.
const NO_NIBBLE: u8 = 0xff;

/// The values of hex digits. Looked up, not computed: a log of years has a digest on every line.
const NIBBLES: [u8; 256] = {
    let mut values = [NO_NIBBLE; 256];
    let mut value = 0;
    while value < 16 {
        values[hex_pair(value)[1] as usize] = value;
        value += 1;
    }
    values
};

impl FromStr for Sha256 {
    type Err = BadDigest;
    fn from_str(s: &str) -> Result<Self, BadDigest> {
        let hex = s.strip_prefix("sha256:").unwrap_or(s).as_bytes();
        let mut out = [0; 32];
        let is_whole = hex.len() == 2 * out.len();
        let mut seen = 0;
        for (out, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
            let [high, low] = [pair[0], pair[1]].map(|c| NIBBLES[usize::from(c)]);
            seen |= high | low;
            *out = high << 4 | low;
        }
        if !is_whole || seen == NO_NIBBLE {
            return Err(BadDigest(s.to_owned()));
        }
        Ok(Self(out))
    }
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub Sha256);

        impl $name {
            /// 64 lower-case hex digits.
            pub fn hex(&self) -> String {
                self.0.hex()
            }
        }

        impl FromStr for $name {
            type Err = BadDigest;
            fn from_str(s: &str) -> Result<Self, BadDigest> {
                s.parse().map(Self)
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadDigest;
            fn try_from(s: String) -> Result<Self, BadDigest> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(d: $name) -> String {
                d.to_string()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sha256:{}", self.0.hex())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

digest!(
    /// The fs-verity digest (sha256, 4 KiB blocks, no salt) of a file in the object store. Kernels with fs-verity
    /// can enforce it on every read.
    ObjectDigest
);
digest!(
    /// The fs-verity digest (sha256, 4 KiB blocks, no salt) of an image's metadata file, which in turn holds the
    /// [`ObjectDigest`] of every regular file: it commits to every byte of the image.
    ImageDigest
);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl TryFrom<String> for Sha256 {
    type Error = BadDigest;
    fn try_from(s: String) -> Result<Self, BadDigest> {
        s.parse()
    }
}

impl Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.hex())
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        crate::text::deserialize(d, "64 hex digits")
    }
}

impl ImageDigest {
    /// The first 12 hex digits, for tables.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let d = ImageDigest(Sha256::of(b"abc"));
        assert_eq!(d.to_string(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(d.to_string().parse::<ImageDigest>().unwrap(), d);
        assert!("sha256:12".parse::<ImageDigest>().is_err());
        assert!("sha256:".repeat(9).parse::<ImageDigest>().is_err());
        assert!("é".repeat(32).parse::<ImageDigest>().is_err());
        for wrong in ["A", "g", "/", ":", "`"] {
            let text = d.hex().replacen('b', wrong, 1);
            assert!(text.parse::<ImageDigest>().is_err(), "{text}");
        }
        let json = format!("\"{}\"", d.hex());
        assert_eq!(serde_json::from_str::<Sha256>(&json).unwrap(), d.0);
        assert_eq!(serde_json::from_value::<Sha256>(d.hex().into()).unwrap(), d.0);
        assert!(serde_json::from_str::<Sha256>("12").is_err());
    }
}
