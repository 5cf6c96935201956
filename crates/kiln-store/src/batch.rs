//! Many objects at once.
//!
//! Flushing thousands of small files one by one takes longer than making them. A batch writes them without names,
//! flushes the whole filesystem once, and only then renames: whatever has a name has its content, even after a power
//! cut between any two steps. Until [`Batch::commit`] returns, nobody else sees any of it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use kiln_model::ObjectDigest;
use rustix::fs::syncfs;

use crate::error::on;
use crate::temp::TempPath;
use crate::{Objects, Result, Store, Verity};

/// Objects on their way into the store. Shared between threads; dropping it leaves the store as it was.
#[derive(Debug)]
pub struct Batch {
    store: Store,
    /// Opened before anything is written: flushing through it reports every failed write since then.
    filesystem: File,
    staged: Mutex<BTreeMap<ObjectDigest, TempPath>>,
}

impl Batch {
    pub(crate) fn begin(store: &Store) -> Result<Self> {
        let dir = store.objects_dir();
        let filesystem = File::open(dir).map_err(on("open", dir))?;
        Ok(Self { store: store.clone(), filesystem, staged: Mutex::default() })
    }

    /// As [`Objects::put_bytes`], once the batch is committed.
    ///
    /// # Errors
    /// What the system refused.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<(ObjectDigest, u64)> {
        let digest = Verity::of(bytes);
        if !self.is_staged(&digest) && !self.objects().holds(&digest, bytes)? {
            let mut file = self.store.temp().file()?;
            file.write(bytes)?;
            self.stage(digest, file.close());
        }
        Ok((digest, bytes.len() as u64))
    }

    /// As [`Objects::put_reader`], once the batch is committed.
    ///
    /// # Errors
    /// What the system refused, or what reading came to.
    pub fn put_reader(&self, reader: &mut dyn Read) -> Result<(ObjectDigest, u64)> {
        let (file, digest, size) = self.objects().receive(reader)?;
        if !self.is_staged(&digest) && !self.objects().is_intact(&digest, size)? {
            self.stage(digest, file.close());
        }
        Ok((digest, size))
    }

    /// Makes all objects of the batch appear, safely on disk; returns how many were new.
    ///
    /// # Errors
    /// What the system refused. Some of the objects may have appeared then, each of them whole.
    pub fn commit(self) -> Result<usize> {
        let staged = self.staged.into_inner().unwrap_or_else(PoisonError::into_inner);
        if staged.is_empty() {
            return Ok(0);
        }
        let objects = Objects(&self.store);
        let flush = || syncfs(&self.filesystem).map_err(|e| on("flush", self.store.objects_dir())(e.into()));
        flush()?;
        let new = staged.len();
        for (digest, file) in staged {
            file.rename(&objects.ready_path(&digest)?)?;
        }
        flush()?;
        Ok(new)
    }

    fn objects(&self) -> Objects<'_> {
        Objects(&self.store)
    }

    fn is_staged(&self, digest: &ObjectDigest) -> bool {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).contains_key(digest)
    }

    /// Keeps the first of two equal files that threads wrote at once.
    fn stage(&self, digest: ObjectDigest, file: TempPath) {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Vacant(place) = staged.entry(digest) {
            place.insert(file);
        }
    }
}
