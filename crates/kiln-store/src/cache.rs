//! Results worth keeping. Losing one costs time and nothing else.
//!
//! ```text
//! cache/<kind>/<key>:   sha256 over kind, NUL, key, bytes   (32 bytes)
//!                       bytes
//! ```
//! Entries are not flushed to disk: one torn by a crash fails its checksum and reads as absent, and a bake writes
//! hundreds of them.

use std::path::PathBuf;

use kiln_model::Sha256;
use sha2::Digest as _;

use crate::documents::{file_name, read};
use crate::temp::ensure_dir;
use crate::{Moment, Result, Store};

impl Store {
    /// What was kept under `key`, if it still is there and intact.
    pub fn cache_get(&self, kind: &str, key: &Sha256) -> Option<Vec<u8>> {
        let mut entry = read(&self.cache_path(kind, key).ok()?).ok()??;
        let bytes = entry.get(32..)?;
        if entry[..32] != checksum(kind, key, bytes) {
            return None;
        }
        entry.drain(..32);
        Some(entry)
    }

    /// Keeps `bytes` under `key`, replacing what was there.
    ///
    /// # Errors
    /// [`crate::StoreError::BadName`] for the kind; otherwise what the system refused.
    pub fn cache_put(&self, kind: &str, key: &Sha256, bytes: &[u8]) -> Result<()> {
        let path = self.cache_path(kind, key)?;
        ensure_dir(&self.dir("cache").join(kind))?;
        let mut file = self.temp().file()?;
        file.write(&checksum(kind, key, bytes))?;
        file.write(bytes)?;
        file.close().rename(&path)
    }

    /// When what is under `key` was kept, if anything is.
    pub fn cache_written(&self, kind: &str, key: &Sha256) -> Option<Moment> {
        Some(Moment::written(&self.cache_path(kind, key).ok()?.metadata().ok()?))
    }

    fn cache_path(&self, kind: &str, key: &Sha256) -> Result<PathBuf> {
        Ok(self.dir("cache").join(file_name(kind)?).join(key.hex()))
    }
}

fn checksum(kind: &str, key: &Sha256, bytes: &[u8]) -> [u8; 32] {
    let hasher = sha2::Sha256::new().chain_update(kind).chain_update([0]).chain_update(key.0);
    hasher.chain_update(bytes).finalize().into()
}
