//! Many objects at once.
//!
//! Flushing thousands of small files one by one takes longer than making them. A batch writes them without names,
//! flushes them all at once (many by flushing the whole filesystem), and only then renames: whatever has a name has its
//! content, even after a power cut between any two steps. Until [`Batch::commit`] returns, nobody else sees any of it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kiln_model::{ImageRecord, ObjectDigest};
use rustix::fs::syncfs;

use crate::error::on;
use crate::flush::flush_together;
use crate::images::object_lines;
use crate::temp::{TempFile, TempPath, made_dir};
use crate::{Objects, Result, StagedImage, Store, StoreError, Verity};

/// So few files are flushed by themselves: the rest of the filesystem may have much more to flush.
const FEW: usize = 32;

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
        self.put_received(self.objects().receive(reader)?, &|| Ok(()))
    }

    /// The same for a file that lies elsewhere. Its holes are not read, and are holes here as well. `look` is asked before
    /// each part whether to go on.
    ///
    /// # Errors
    /// What the system refused, or what `look` came to.
    pub fn put_file(&self, file: &File, look: &dyn Fn() -> io::Result<()>) -> Result<(ObjectDigest, u64)> {
        self.put_received(self.objects().receive_file(file, look)?, look)
    }

    fn put_received(
        &self,
        (file, digest, size): (TempFile, ObjectDigest, u64),
        look: &dyn Fn() -> io::Result<()>,
    ) -> Result<(ObjectDigest, u64)> {
        if !self.is_staged(&digest) && !self.objects().is_intact_unless(&digest, size, look)? {
            self.stage(digest, file.close());
        }
        Ok((digest, size))
    }

    /// Makes all objects of the batch appear, safely on disk; returns how many were new.
    ///
    /// # Errors
    /// What the system refused. Some of the objects may have appeared then, each of them whole.
    pub fn commit(self) -> Result<usize> {
        let (new, dirs) = self.name(Vec::new(), None)?;
        if new > 0 {
            self.flush_dirs(&dirs)?;
        }
        Ok(new)
    }

    /// Makes the objects of the batch appear, and with them an image: its metadata file, the list of the objects it
    /// needs, which are those of its tree and its documents, and last of all its record. One that is here keeps the record
    /// it has, if that is whole; then this one is found by its inputs only.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the record is not one of these bytes; otherwise as [`Batch::commit`].
    pub fn commit_image(self, mut image: StagedImage, record: &ImageRecord) -> Result<()> {
        let store = self.store.clone();
        let path = store.metadata_path(&record.digest);
        if *image.digest() != record.digest {
            return Err(StoreError::damaged(&path, format!("its record names the digest {}", record.digest)));
        }
        let standing = self.standing_record(record);
        let kept = standing.as_ref().map_or(record, |(standing, _)| standing);
        let documents: Vec<ObjectDigest> = kept.documents.values().copied().collect();
        image.list.append(&object_lines(&documents))?;
        // Flushed with the others, and named only when their names are on disk.
        let (record_path, bytes) = store.record_file(record)?;
        // Written again even where it stays: whoever bakes it means to deploy it, and a sweep leaves what is young.
        let bytes = standing.map_or(bytes, |(_, bytes)| bytes);
        let mut last = store.temp().file()?;
        last.write(&bytes)?;
        let last = last.close();
        let (list, metadata) = image.close()?;
        let metadata = metadata.map(|file| (file, path));
        let files = std::iter::once((list, store.objects_list(&record.digest))).chain(metadata).collect();
        let (_, mut dirs) = self.name(files, Some(&last))?;
        dirs.insert(store.dir("images"));
        self.flush_dirs(&dirs)?;
        last.rename(&record_path)?;
        flush_together(&record_path.parent().map(Path::to_owned).into_iter().collect())?;
        store.put_inputs(record)
    }

    /// What is recorded of the image that `record` is of, and its bytes, if it is here and whole: whatever follows from
    /// the bytes of the image is as in `record`, and its documents are intact. One of the same inputs is made again: a bake
    /// comes to the same. What hands made has no inputs of its own.
    fn standing_record(&self, record: &ImageRecord) -> Option<(ImageRecord, Vec<u8>)> {
        let (standing, bytes) = self.store.recorded(&record.digest).ok().flatten()?;
        let of_bytes = |r: &ImageRecord| (r.format.clone(), r.metadata_bytes, r.content_bytes, r.entries);
        let is_whole = |document| self.is_staged(document) || self.objects().read(document).is_ok();
        let is_anothers = standing.inputs != record.inputs || standing.handmade.is_some();
        let stays = is_anothers
            && of_bytes(&standing) == of_bytes(record)
            && standing.documents.values().all(is_whole);
        stays.then_some((standing, bytes))
    }

    /// Flushes all staged files, `more` and one that is named `later`, and gives all but that their names; how many of
    /// them are objects, and which directories have new names in them.
    fn name(
        &self,
        more: Vec<(TempPath, PathBuf)>,
        later: Option<&TempPath>,
    ) -> Result<(usize, BTreeSet<PathBuf>)> {
        let staged = std::mem::take(&mut *self.staged.lock().unwrap_or_else(PoisonError::into_inner));
        let new = staged.len();
        let others = more.iter().map(|(file, _)| file).chain(later);
        let paths = |files: &mut dyn Iterator<Item = &TempPath>| files.map(|f| f.path().to_owned()).collect();
        if new > FEW {
            self.flush_all()?;
            flush_together(&paths(&mut others.into_iter()))?;
        } else {
            flush_together(&paths(&mut staged.values().chain(others)))?;
        }
        let mut dirs = BTreeSet::new();
        for (digest, file) in staged {
            let path = self.objects().path(&digest);
            let dir = path.parent().expect("an object is in a directory");
            if made_dir(dir)? {
                dirs.insert(self.store.objects_dir().to_owned());
            }
            file.rename(&path)?;
            dirs.insert(dir.to_owned());
        }
        for (file, path) in more {
            file.rename(&path)?;
            dirs.extend(path.parent().map(Path::to_owned));
        }
        Ok((new, dirs))
    }

    fn flush_dirs(&self, dirs: &BTreeSet<PathBuf>) -> Result<()> {
        if dirs.len() > FEW { self.flush_all() } else { flush_together(dirs) }
    }

    fn flush_all(&self) -> Result<()> {
        syncfs(&self.filesystem).map_err(|e| on("flush", self.store.objects_dir())(e.into()))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
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
