//! JSON documents, and the names of files that callers choose.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{if_present, on};
use crate::temp::sync_dir;
use crate::{Result, Store, StoreError};

impl Store {
    /// Writes a small document of state that is not history, replacing the one before.
    ///
    /// # Errors
    /// [`StoreError::BadName`]; otherwise what the system refused.
    pub fn put_state(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.write_json(&self.state_path(name)?, value)
    }

    /// Reads such a document, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not what was written; otherwise as above.
    pub fn state<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        read_json(&self.state_path(name)?)
    }

    /// Removes such a document, if there is one.
    ///
    /// # Errors
    /// As [`Store::put_state`].
    pub fn remove_state(&self, name: &str) -> Result<()> {
        let path = self.state_path(name)?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => {
                removed.map_err(on("remove", &path))?;
                sync_dir(&self.dir("state"))
            }
        }
    }

    /// Writes such a document so that nobody but its owner reads it.
    ///
    /// # Errors
    /// As [`Store::put_state`].
    pub fn put_private_state(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.state_path(name)?;
        self.write_private(&path, &encoded(&path, value)?)
    }

    /// Reads it, if there is one.
    ///
    /// # Errors
    /// As [`Store::state`].
    pub fn private_state<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        self.state(name)
    }

    fn state_path(&self, name: &str) -> Result<PathBuf> {
        Ok(self.dir("state").join(format!("{}.json", file_name(name)?)))
    }

    pub(crate) fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        self.write(path, &encoded(path, value)?)
    }
}

/// The text of a document that belongs to `path`.
pub(crate) fn encoded(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| StoreError::Encode { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    read(path)?.map(|bytes| parsed(path, &bytes)).transpose()
}

/// The document with the text `bytes` that was read from `path`.
pub(crate) fn parsed<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| StoreError::damaged(path, format!("it does not read as what was written: {e}")))
}

/// A whole file, if there is one.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    if_present(fs::read(path)).map_err(on("read", path))
}

/// The names of the files in `dir` that end with `suffix`, without it and sorted; others are none of ours.
pub(crate) fn names_in(dir: &Path, suffix: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(on("read the directory", dir))? {
        let name = entry.map_err(on("read the directory", dir))?.file_name();
        names.extend(name.to_str().and_then(|n| n.strip_suffix(suffix)).map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

/// `name` if it can be that of a file and of nothing else (no path, not hidden).
pub(crate) fn file_name(name: &str) -> Result<&str> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    if (1..=100).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fits) {
        Ok(name)
    } else {
        Err(StoreError::BadName(name.to_owned()))
    }
}
