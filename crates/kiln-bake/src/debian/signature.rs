//! Whether a clear-signed index was signed by a key we trust.
//!
//! The OpenPGP library verifies single signatures. What makes a key one that may sign is decided here: the key and
//! its subkey are bound to each other both ways, neither is revoked or expired, and it says that it may sign.
//! Certifications by others are left aside: most of the keys in the field carry some that cannot be verified
//! without the certifier's key, and they mean nothing to us.

use std::io::Cursor;

use pgp::composed::{CleartextSignedMessage, PublicOrSecret, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag};

/// Clocks of signers may be ahead of ours by this many seconds.
const SKEW: u64 = 24 * 60 * 60;

/// Why a signed text is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The keyring is not one.
    #[error("the keyring cannot be read: {0}")]
    Keyring(String),
    /// The text is not clear-signed.
    #[error("it is not a clear-signed text: {0}")]
    Shape(String),
    /// No signature was made by a key of the keyring that may sign now.
    #[error("none of its {signatures} signatures is valid: {reasons}")]
    NoneValid {
        /// How many it has.
        signatures: usize,
        /// Why each was not accepted.
        reasons: String,
    },
}

/// The text that was signed, and nothing that may stand around it, if one of its signatures is by a key of
/// `keyring` (binary or armoured) that may sign at `now` (seconds since the epoch).
pub(crate) fn verified(signed: &str, keyring: &[u8], now: u64) -> Result<String, SignatureError> {
    let keys = read_keyring(keyring)?;
    let (message, _) =
        CleartextSignedMessage::from_string(signed).map_err(|e| SignatureError::Shape(e.to_string()))?;
    let text = message.signed_text();
    let mut reasons = Vec::new();
    for signature in message.signatures() {
        match accept(signature, &keys, &text, now) {
            Ok(()) => return Ok(text.replace("\r\n", "\n")),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(SignatureError::NoneValid { signatures: reasons.len(), reasons: reasons.join("; ") })
}

fn read_keyring(keyring: &[u8]) -> Result<Vec<SignedPublicKey>, SignatureError> {
    fn bad(error: impl std::fmt::Display) -> SignatureError {
        SignatureError::Keyring(error.to_string())
    }
    let (keys, _) = PublicOrSecret::from_reader_many(Cursor::new(keyring)).map_err(bad)?;
    keys.map(|key| SignedPublicKey::try_from(key.map_err(bad)?).map_err(bad)).collect()
}

fn accept(signature: &Signature, keys: &[SignedPublicKey], text: &str, now: u64) -> Result<(), String> {
    check_form(signature, now)?;
    let mut reason = format!("signed by {}, which is not in the keyring", issuer(signature));
    for key in keys {
        if signature.verify(&key.primary_key, text.as_bytes()).is_ok() {
            return primary_may_sign(key, now);
        }
        for subkey in &key.public_subkeys {
            if signature.verify(&subkey.key, text.as_bytes()).is_ok() {
                return primary_is_valid(key, now).and_then(|()| subkey_may_sign(key, subkey, now));
            }
            if names(signature, &subkey.key) || names(signature, &key.primary_key) {
                reason = format!("the text is not what {} signed", issuer(signature));
            }
        }
    }
    Err(reason)
}

fn check_form(signature: &Signature, now: u64) -> Result<(), String> {
    if !matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary)) {
        return Err("not a signature over a document".into());
    }
    let weak = [HashAlgorithm::None, HashAlgorithm::Md5, HashAlgorithm::Sha1, HashAlgorithm::Ripemd160];
    if signature.hash_alg().is_none_or(|h| weak.contains(&h)) {
        return Err("made with a broken hash function".into());
    }
    in_force(signature, now)
}

/// Whether a signature exists already and has not run out.
fn in_force(signature: &Signature, now: u64) -> Result<(), String> {
    let made = signature.created().map(|t| u64::from(t.as_secs())).ok_or("without a date")?;
    let lasts = signature.signature_expiration_time().map_or(0, |d| u64::from(d.as_secs()));
    if made > now + SKEW {
        return Err("dated in the future".into());
    }
    if lasts != 0 && made + lasts < now {
        return Err("no longer in force".into());
    }
    Ok(())
}

fn issuer(signature: &Signature) -> String {
    signature.issuer_fingerprint().first().map_or_else(|| "an unnamed key".into(), |f| format!("key {f:X}"))
}

fn names(signature: &Signature, key: &impl KeyDetails) -> bool {
    signature.issuer_fingerprint().contains(&&key.fingerprint())
        || signature.issuer_key_id().contains(&&key.legacy_key_id())
}

fn primary_may_sign(key: &SignedPublicKey, now: u64) -> Result<(), String> {
    primary_is_valid(key, now)?;
    match latest(self_signatures(key), now) {
        Some(own) if own.key_flags().sign() => Ok(()),
        _ => Err(format!("key {:X} does not say that it may sign", key.primary_key.fingerprint())),
    }
}

fn primary_is_valid(key: &SignedPublicKey, now: u64) -> Result<(), String> {
    let id = key.primary_key.fingerprint();
    if key.details.revocation_signatures.iter().any(|s| s.verify_key(&key.primary_key).is_ok()) {
        return Err(format!("key {id:X} is revoked"));
    }
    let own = latest(self_signatures(key), now).ok_or(format!("key {id:X} has no valid self-signature"))?;
    not_expired(own, &key.primary_key, now)
}

/// What the key says of itself: self-certifications of its user ids and direct signatures, verified.
fn self_signatures(key: &SignedPublicKey) -> impl Iterator<Item = &Signature> {
    let direct = key.details.direct_signatures.iter().filter(|s| s.verify_key(&key.primary_key).is_ok());
    let certified = key.details.users.iter().flat_map(|user| {
        let own = |s: &&Signature| {
            s.is_certification() && s.verify_certification(&key.primary_key, Tag::UserId, &user.id).is_ok()
        };
        user.signatures.iter().filter(own)
    });
    direct.chain(certified)
}

fn latest<'a>(signatures: impl Iterator<Item = &'a Signature>, now: u64) -> Option<&'a Signature> {
    signatures.filter(|s| in_force(s, now).is_ok()).max_by_key(|s| s.created().map(|t| t.as_secs()))
}

fn not_expired(by: &Signature, key: &impl KeyDetails, now: u64) -> Result<(), String> {
    let lasts = by.key_expiration_time().map_or(0, |d| u64::from(d.as_secs()));
    if lasts != 0 && u64::from(key.created_at().as_secs()) + lasts < now {
        return Err(format!("key {:X} has expired", key.fingerprint()));
    }
    Ok(())
}

fn subkey_may_sign(key: &SignedPublicKey, subkey: &SignedPublicSubKey, now: u64) -> Result<(), String> {
    let id = subkey.key.fingerprint();
    let bound = |s: &&Signature| s.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok();
    let (revocations, bindings): (Vec<_>, Vec<_>) = subkey
        .signatures
        .iter()
        .filter(bound)
        .partition(|s| s.typ() == Some(SignatureType::SubkeyRevocation));
    if !revocations.is_empty() {
        return Err(format!("subkey {id:X} is revoked"));
    }
    let binding =
        latest(bindings.into_iter(), now).ok_or(format!("subkey {id:X} is not bound to its key"))?;
    // Without the signature back, anyone could bind a foreign signing key to their own certificate.
    let back = binding.embedded_signature();
    let mutual = back.is_some_and(|b| b.verify_primary_key_binding(&subkey.key, &key.primary_key).is_ok());
    if !(binding.key_flags().sign() && mutual) {
        return Err(format!("subkey {id:X} is not bound as a signing key"));
    }
    not_expired(binding, &subkey.key, now)
}
