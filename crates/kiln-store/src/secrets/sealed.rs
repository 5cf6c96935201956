//! One setting of one secret, as it is kept.
//!
//! ChaCha20-Poly1305 under a key of its own, which HKDF-SHA256 makes from the store's key and 32 random bytes: no
//! nonce is used twice. What is known of the setting is authenticated with the value, so that no file can be passed
//! off as another's.

use std::path::Path;

use kiln_model::{AppName, SecretName, SecretValue, SecretVersion, Sha256, Timestamp};
use ring::{aead, hkdf};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::bad_key;
use super::key::Key;
use crate::random::random;
use crate::{Result, StoreError};

/// The version of this encoding.
const FORMAT: u32 = 1;

/// What is known of one setting of a secret: everything but the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    /// The app it belongs to.
    pub app: AppName,
    /// Its name.
    pub name: SecretName,
    /// The version of its value.
    pub version: SecretVersion,
    /// Counted from 1 for each secret of this store.
    pub number: u64,
    /// When it was set.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Sealed {
    format: u32,
    pub(super) record: SecretRecord,
    /// Random; with the store's key it makes the key of this value.
    salt: Sha256,
    /// The encrypted value and its tag, in hex.
    sealed: String,
}

impl Sealed {
    pub(super) fn seal(record: SecretRecord, value: &SecretValue, key: &Key) -> Result<Self> {
        let salt = random::<32>()?;
        let mut bytes = value.reveal().to_vec();
        bytes.reserve(aead::CHACHA20_POLY1305.tag_len());
        let done = cipher(key, &salt).seal_in_place_append_tag(nonce(), about(&record), &mut bytes);
        done.expect("a value is shorter than what the cipher takes");
        let sealed = bytes.iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { format: FORMAT, record, salt: Sha256(salt), sealed })
    }

    /// The value; `path` is where this was read, for messages.
    pub(super) fn open(&self, key: &Key, path: &Path) -> Result<SecretValue> {
        if self.format != FORMAT {
            let problem = format!("its format is {}, and this Kiln knows {FORMAT}", self.format);
            return Err(StoreError::damaged(path, problem));
        }
        let no_hex = || StoreError::damaged(path, "its sealed value is not hex digits");
        let mut bytes = unhex(&self.sealed).ok_or_else(no_hex)?;
        let opened = cipher(key, &self.salt.0).open_in_place(nonce(), about(&self.record), &mut bytes);
        let length = opened
            .map_err(|_| bad_key(path, "it was sealed with another key, or has been tampered with"))?
            .len();
        bytes[length..].zeroize();
        bytes.truncate(length);
        SecretValue::new(bytes).map_err(|e| StoreError::damaged(path, e.to_string()))
    }

    /// Why its value cannot be had with what was found of the key, if it cannot.
    pub(super) fn problem(&self, key: &Result<Key>, path: &Path) -> Option<StoreError> {
        match key {
            Ok(key) => self.open(key, path).err(),
            Err(StoreError::NoKey { path }) => Some(StoreError::NoKey { path: path.clone() }),
            Err(StoreError::Key { path, problem }) => Some(bad_key(path, problem)),
            Err(other) => Some(bad_key(path, format!("the key could not be read: {other}"))),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("plain data");
        bytes.push(b'\n');
        bytes
    }
}

struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        aead::CHACHA20_POLY1305.key_len()
    }
}

fn cipher(key: &Key, salt: &[u8]) -> aead::LessSafeKey {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&*key.0);
    let mut derived = [0; 32];
    let filled = extracted.expand(&[b"kiln secret 1"], KeyLength).and_then(|okm| okm.fill(&mut derived));
    filled.expect("the length of a key");
    let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &derived).expect("the length of a key");
    derived.zeroize();
    aead::LessSafeKey::new(key)
}

/// Each key encrypts one value.
fn nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; 12])
}

fn about(record: &SecretRecord) -> aead::Aad<Vec<u8>> {
    aead::Aad::from(serde_json::to_vec(record).expect("plain data"))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let byte = |pair: &[u8]| match pair {
        [a, b] => Some(digit(*a)? << 4 | digit(*b)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}
