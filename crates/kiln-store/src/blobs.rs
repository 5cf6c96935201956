//! Parts of OCI images as registries serve them, each under its plain sha256.
//!
//! A blob that arrives slowly is a *draft*: a file beside its place that survives the process, so that the next
//! attempt goes on where the last one ended. Only one process writes a draft; another one makes its own.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kiln_model::Sha256;
use rustix::fs::{FlockOperation, flock};
use sha2::Digest as _;

use crate::error::{READ_GIVEN, on};
use crate::objects::any_chunk;
use crate::packages::sha256_of;
use crate::temp::sync_dir;
use crate::{Result, Store, StoreError};

impl Store {
    /// The blob with this hash, if it is here and intact; a damaged one counts as absent.
    ///
    /// # Errors
    /// What the system refused.
    pub fn blob(&self, hash: &Sha256) -> Result<Option<PathBuf>> {
        let path = self.blob_path(hash);
        let intact = sha256_of(&path)? == Some(*hash);
        Ok(intact.then_some(path))
    }

    /// Keeps a small blob; returns its hash.
    ///
    /// # Errors
    /// What the system refused.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Sha256> {
        let hash = Sha256::of(bytes);
        if self.blob(&hash)?.is_none() {
            self.write(&self.blob_path(&hash), bytes)?;
        }
        Ok(hash)
    }

    /// Takes up the blob with this hash where an earlier attempt left it.
    ///
    /// # Errors
    /// What the system refused.
    pub fn blob_draft(&self, hash: &Sha256) -> Result<BlobDraft> {
        let place = self.blob_path(hash);
        let shared = place.with_extension("draft");
        let open = |path: &Path| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            file.map_err(on("open", path))
        };
        let file = open(&shared)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return BlobDraft::resume(file, shared, place, *hash);
        }
        // Somebody else is at it. Two copies cost a download; waiting for a stranger could cost for ever.
        let own = place.with_extension(format!("draft-{}", std::process::id()));
        BlobDraft::resume(open(&own)?, own, place, *hash)
    }

    pub(crate) fn blob_path(&self, hash: &Sha256) -> PathBuf {
        self.dir("blobs").join(hash.hex())
    }
}

/// A blob on its way into the store.
#[derive(Debug)]
pub struct BlobDraft {
    file: File,
    path: PathBuf,
    place: PathBuf,
    hash: Sha256,
    hasher: sha2::Sha256,
    length: u64,
}

impl BlobDraft {
    fn resume(mut file: File, path: PathBuf, place: PathBuf, hash: Sha256) -> Result<Self> {
        let (mut hasher, mut length) = (sha2::Sha256::new(), 0);
        any_chunk(&mut file, &path, 128 << 10, |chunk| {
            hasher.update(chunk);
            length += chunk.len() as u64;
            false
        })?;
        Ok(Self { file, path, place, hash, hasher, length })
    }

    /// How much of it is there.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds what comes next.
    ///
    /// # Errors
    /// What the system refused.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(on("write", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Adds all that `reader` yields.
    ///
    /// # Errors
    /// What the system refused, or what reading came to.
    pub fn write_all(&mut self, reader: &mut dyn Read) -> Result<()> {
        let mut buffer = vec![0; 128 << 10];
        loop {
            match reader.read(&mut buffer).map_err(on(READ_GIVEN, &self.path))? {
                0 => return Ok(()),
                n => self.write(&buffer[..n])?,
            }
        }
    }

    /// Forgets what is there: it was of something else.
    ///
    /// # Errors
    /// What the system refused.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(on("truncate", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(on("rewind", &self.path))?;
        (self.hasher, self.length) = (sha2::Sha256::new(), 0);
        Ok(())
    }

    /// Gives it its place, if it is the blob it should be; else nothing of it is left.
    ///
    /// # Errors
    /// [`StoreError::WrongHash`], or what the system refused.
    pub fn finish(self) -> Result<PathBuf> {
        let found = Sha256(self.hasher.finalize().into());
        if found != self.hash {
            fs::remove_file(&self.path).map_err(on("remove", &self.path))?;
            return Err(StoreError::WrongHash { what: "blob", expected: self.hash, found });
        }
        self.file.sync_all().map_err(on("flush", &self.path))?;
        fs::rename(&self.path, &self.place).map_err(on("rename a new file to", &self.place))?;
        sync_dir(self.place.parent().unwrap_or(&self.place))?;
        Ok(self.place)
    }
}
