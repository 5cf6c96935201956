//! Secrets: values that mask themselves, and the versions that releases hold in their place.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::{SecretName, SecretVersion, ServiceName, hex_pair};

/// The value of a secret. It shows as `***`, and its memory is overwritten when it is dropped.
///
/// It can be serialised, because it has to get from the command line to the host and from there to the engine; that
/// is done over sockets of root's and nowhere else. Nothing that is kept, shown or exported contains this type.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

/// Bytes that cannot be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// There are none.
    #[error("the value is empty")]
    Empty,
    /// There are too many.
    #[error("the value has more than {max} bytes, which is the most that is kept", max = SecretValue::MOST)]
    TooLong,
}

impl SecretValue {
    /// The longest a value may be.
    pub const MOST: usize = 64 << 10;

    /// A value of these bytes, which are overwritten if they are none.
    ///
    /// # Errors
    /// If there are none or too many.
    pub fn new(bytes: Vec<u8>) -> Result<Self, BadSecret> {
        let bytes = Zeroizing::new(bytes);
        match bytes.len() {
            0 => Err(BadSecret::Empty),
            n if n > Self::MOST => Err(BadSecret::TooLong),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes themselves. Every use of this is a place to look at.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// As hex digits: any bytes are a value.
impl Serialize for SecretValue {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let hex: Vec<u8> = self.0.iter().flat_map(|b| hex_pair(*b)).collect();
        let hex = Zeroizing::new(String::from_utf8(hex).expect("hex digits"));
        s.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let hex = Zeroizing::new(String::deserialize(d)?);
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let byte = |pair: &[u8]| match pair {
            [a, b] => Some(digit(*a)? << 4 | digit(*b)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
        Self::new(bytes.ok_or_else(|| D::Error::custom("a secret is not hex digits"))?)
            .map_err(D::Error::custom)
    }
}

/// A secret as a release holds it: which version, and how it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedSecret {
    /// The version.
    pub version: SecretVersion,
    /// The environment variable that holds it as well, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
}

/// A secret as an engine gives it to an instance: the file `/run/secrets/<name>` on a tmpfs, mode 0400, owned by
/// the instance's user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretOrder {
    /// The file's name.
    pub name: SecretName,
    /// What it contains.
    pub value: SecretValue,
    /// The environment variable that holds it as well, if any.
    pub env: Option<String>,
}

/// The versions that services are to be given, by name; what is not there has not been set.
pub type SecretVersions = BTreeMap<SecretName, SecretVersion>;

/// A secret that a service needs and that has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingSecret {
    /// The service.
    pub service: ServiceName,
    /// The secret.
    pub name: SecretName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_masks_itself() {
        let value = SecretValue::new(b"hunter2".to_vec()).unwrap();
        let order = SecretOrder { name: "PASS".parse().unwrap(), value, env: None };
        let shown = format!("{order:?} {order:#?}");
        assert!(shown.contains("***") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn any_bytes_travel() {
        let value = SecretValue::new((0..=255).collect()).unwrap();
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<SecretValue>(&json).unwrap(), value);
        for bad in ["\"\"", "\"0\"", "\"zz\"", "\"0g\"", "\"é0\""] {
            assert!(serde_json::from_str::<SecretValue>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_has_bounds() {
        assert_eq!(SecretValue::new(vec![]), Err(BadSecret::Empty));
        assert!(SecretValue::new(vec![1; SecretValue::MOST]).is_ok());
        // Whoever reads a value stops at one byte too many: how many there are is not known.
        let refused = SecretValue::new(vec![1; SecretValue::MOST + 1]).unwrap_err().to_string();
        assert!(refused.starts_with("the value has more than 65536 bytes"), "{refused}");
    }
}
