//! Releases, each under its id.

use std::path::PathBuf;

use kiln_model::{Release, ReleaseId};

use crate::documents::{file_name, names_in, read};
use crate::temp::ensure_dir;
use crate::{Result, Store, StoreError};

impl Store {
    /// Keeps a release; returns its id.
    ///
    /// # Errors
    /// What the system refused.
    pub fn put_release(&self, release: &Release) -> Result<ReleaseId> {
        let id = release.id();
        let (path, bytes) = (self.release_path(&id), release.encode());
        if read(&path)?.as_deref() != Some(bytes.as_slice()) {
            self.write(&path, &bytes)?;
        }
        Ok(id)
    }

    /// A release, whose content still has that id.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRelease`], [`StoreError::Damaged`], or what the system refused.
    pub fn release(&self, id: &ReleaseId) -> Result<Release> {
        let path = self.release_path(id);
        let bytes = read(&path)?.ok_or_else(|| StoreError::NoSuchRelease(id.clone()))?;
        let release = Release::decode(&bytes).map_err(|e| {
            let cause = std::error::Error::source(&e).map_or(String::new(), |s| format!(": {s}"));
            StoreError::damaged(&path, format!("{e}{cause}"))
        })?;
        if release.id() != *id {
            return Err(StoreError::damaged(&path, format!("its content is that of {}", release.id())));
        }
        Ok(release)
    }

    /// The ids of all releases, sorted.
    ///
    /// # Errors
    /// What the system refused.
    pub fn releases(&self) -> Result<Vec<ReleaseId>> {
        let names = names_in(&self.dir("releases"), ".json")?;
        Ok(names.into_iter().filter_map(|n| n.parse().ok()).collect())
    }

    /// Keeps a document beside a release: the spec and the lock it was made from.
    ///
    /// # Errors
    /// [`StoreError::BadName`], or what the system refused.
    pub fn put_release_document(&self, id: &ReleaseId, name: &str, bytes: &[u8]) -> Result<()> {
        let (dir, name) = (self.release_documents_dir(id), file_name(name)?);
        ensure_dir(&dir)?;
        self.write(&dir.join(name), bytes)
    }

    /// The names of the documents beside a release, sorted.
    ///
    /// # Errors
    /// What the system refused.
    pub(crate) fn release_documents(&self, id: &ReleaseId) -> Result<Vec<String>> {
        let dir = self.release_documents_dir(id);
        if dir.is_dir() { names_in(&dir, "") } else { Ok(Vec::new()) }
    }

    pub(crate) fn release_documents_dir(&self, id: &ReleaseId) -> PathBuf {
        self.dir("releases").join(format!("{id}.documents"))
    }

    /// Where a release is, if it is there.
    pub fn release_path(&self, id: &ReleaseId) -> PathBuf {
        self.dir("releases").join(format!("{id}.json"))
    }
}
