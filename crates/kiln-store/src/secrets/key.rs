//! The key that secrets are sealed with.
//!
//! The first of these that is there: the file that `KILN_SECRETS_KEY_FILE` names, the credential `kiln-secrets-key` a
//! service manager has passed (`$CREDENTIALS_DIRECTORY`), the file `secrets/key` of the state directory, which is
//! made with the first secret. One that is gone is not made again by itself: it would open nothing of what is there.
//! With one of the first two, whoever copies the state directory has copied no secret.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::bad_key;
use crate::error::{if_present, on};
use crate::random::random;
use crate::{Result, Store, StoreError};

const BYTES: usize = 32;

/// The key, overwritten when dropped.
pub(super) struct Key(pub(super) Zeroizing<[u8; BYTES]>);

impl Key {
    /// The key of a store.
    pub(super) fn of(store: &Store) -> Result<Self> {
        if let Some(given) = given() {
            let missing = || bad_key(&given, "it is not there");
            return Self::read(&given)?.ok_or_else(missing);
        }
        let path = store.dir("secrets").join("key");
        Self::read(&path)?.ok_or(StoreError::NoKey { path })
    }

    /// The same, made if nothing is sealed yet and none is given.
    pub(super) fn to_seal(store: &Store) -> Result<Self> {
        match Self::of(store) {
            Err(StoreError::NoKey { path }) if !store.has_sealed()? => Self::make(store, &path),
            found => found,
        }
    }

    /// Makes another one if there was one, and it is gone; whether it was.
    pub(super) fn replace_lost(store: &Store) -> Result<bool> {
        match Self::of(store) {
            Err(StoreError::NoKey { path }) => Self::make(store, &path).map(|_| true),
            found => found.map(|_| false),
        }
    }

    fn make(store: &Store, path: &Path) -> Result<Self> {
        let key = Zeroizing::new(random::<BYTES>()?);
        let text = Zeroizing::new(key.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n");
        store.write_private(path, text.as_bytes())?;
        Ok(Self(key))
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let Some(meta) = if_present(fs::metadata(path)).map_err(on("look for", path))? else {
            return Ok(None);
        };
        if meta.mode() & 0o077 != 0 {
            let mode = meta.mode() & 0o7777;
            return Err(bad_key(path, format!("others may read it (mode {mode:04o}); `chmod 600` it")));
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(on("read", path))?);
        let mut key = Zeroizing::new([0; BYTES]);
        let digits = text.trim().as_bytes();
        let is_key = digits.len() == 2 * BYTES && digits.iter().all(u8::is_ascii_hexdigit);
        if !is_key {
            return Err(bad_key(path, format!("it does not hold {} hex digits", 2 * BYTES)));
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).unwrap_or(0) as u8;
            *byte = digit(pair[0]) << 4 | digit(pair[1]);
        }
        Ok(Some(Self(key)))
    }
}

fn given() -> Option<PathBuf> {
    let named = env::var_os("KILN_SECRETS_KEY_FILE").filter(|v| !v.is_empty()).map(PathBuf::from);
    named.or_else(|| {
        let credential = Path::new(&env::var_os("CREDENTIALS_DIRECTORY")?).join("kiln-secrets-key");
        credential.exists().then_some(credential)
    })
}
