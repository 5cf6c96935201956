//! The payload: chunks, each sealed under a nonce that counts them and says whether it is the last.

use ring::aead;
use zeroize::Zeroizing;

use super::header::FileKey;
use super::{AgeError, derive};

/// Bytes of a chunk before it is sealed; only the last is shorter.
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
const NONCE: usize = 16;

pub(super) fn nonce(bytes: [u8; 12]) -> aead::Nonce {
    aead::Nonce::assume_unique_for_key(bytes)
}

fn nonce_of(chunk: u64, last: bool) -> aead::Nonce {
    let mut bytes = [0; 12];
    bytes[3..11].copy_from_slice(&chunk.to_be_bytes());
    bytes[11] = u8::from(last);
    nonce(bytes)
}

fn key(file: &FileKey, salt: &[u8]) -> aead::LessSafeKey {
    let key = derive(&**file, salt, b"payload");
    aead::LessSafeKey::new(
        aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &*key).expect("the length of a key"),
    )
}

pub(super) fn seal(plain: &[u8], file: &FileKey) -> crate::Result<Vec<u8>> {
    let salt = crate::random::random::<NONCE>()?;
    let key = key(file, &salt);
    let mut sealed = salt.to_vec();
    // An empty payload is one empty chunk.
    let chunks = plain.len().div_ceil(CHUNK).max(1);
    for n in 0..chunks {
        let chunk = &plain[n * CHUNK..plain.len().min((n + 1) * CHUNK)];
        let mut bytes = Vec::with_capacity(chunk.len() + TAG);
        bytes.extend_from_slice(chunk);
        let done =
            key.seal_in_place_append_tag(nonce_of(n as u64, n + 1 == chunks), aead::Aad::empty(), &mut bytes);
        done.expect("a chunk is short");
        sealed.extend(bytes);
    }
    Ok(sealed)
}

pub(super) fn open(sealed: &[u8], file: &FileKey) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    let cut = AgeError::Damaged("they end too early");
    let (salt, rest) = sealed.split_at_checked(NONCE).ok_or(cut.clone())?;
    let key = key(file, salt);
    let chunks = rest.len().div_ceil(CHUNK + TAG);
    let mut plain = Zeroizing::new(Vec::with_capacity(rest.len()));
    for (n, chunk) in rest.chunks(CHUNK + TAG).enumerate() {
        let mut bytes = Zeroizing::new(chunk.to_vec());
        let opened =
            key.open_in_place(nonce_of(n as u64, n + 1 == chunks), aead::Aad::empty(), &mut bytes)
                .map_err(|_| AgeError::Damaged("a part is not what was written, or the end is missing"))?;
        // Only a payload that is empty as a whole has an empty chunk.
        if opened.is_empty() && n > 0 {
            return Err(AgeError::Damaged("there is more behind the end"));
        }
        plain.extend_from_slice(opened);
    }
    if chunks == 0 { Err(cut) } else { Ok(plain) }
}
