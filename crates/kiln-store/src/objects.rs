//! The contents of files, each under its fs-verity digest.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kiln_model::ObjectDigest;

use crate::error::{READ_GIVEN, if_present, on};
use crate::sparse::{SparseFile, Stretch};
use crate::temp::{TempFile, ensure_dir};
use crate::{Batch, Result, Store, StoreError, Verity};

/// How much of a file is in memory at once.
const CHUNK: usize = 128 << 10;

/// The content-addressed part of a store. Safe to use from any number of threads and processes.
#[derive(Debug, Clone, Copy)]
pub struct Objects<'a>(pub(crate) &'a Store);

impl<'a> Objects<'a> {
    /// Keeps `bytes`; returns the name of the object and its size. An object that is there already and intact is
    /// left as it is, so that whoever has it mapped goes on sharing it; a damaged one is made again.
    ///
    /// For many objects use [`Objects::batch`]: here each is flushed to disk by itself.
    ///
    /// # Errors
    /// What the system refused.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<(ObjectDigest, u64)> {
        let digest = Verity::of(bytes);
        if !self.holds(&digest, bytes)? {
            let mut file = self.0.temp().file()?;
            file.write(bytes)?;
            self.persist(file, &digest)?;
        }
        Ok((digest, bytes.len() as u64))
    }

    /// The same for what `reader` yields, without ever holding all of it in memory.
    ///
    /// # Errors
    /// What the system refused, or what reading came to.
    pub fn put_reader(&self, reader: &mut dyn Read) -> Result<(ObjectDigest, u64)> {
        let (file, digest, size) = self.receive(reader)?;
        if !self.is_intact(&digest, size)? {
            self.persist(file, &digest)?;
        }
        Ok((digest, size))
    }

    /// For putting many objects: all are flushed to disk together.
    ///
    /// # Errors
    /// What the system refused.
    pub fn batch(&self) -> Result<Batch> {
        Batch::begin(self.0)
    }

    /// Opens an object for reading.
    ///
    /// # Errors
    /// If there is none, or the system refuses.
    pub fn open(&self, digest: &ObjectDigest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(on("open the object", &path))
    }

    /// The content of an object, compared with its name.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not there or not what its name says; otherwise what the system refused.
    pub fn read(&self, digest: &ObjectDigest) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let bytes = if_present(fs::read(&path)).map_err(on("read the object", &path))?;
        match bytes {
            None => Err(StoreError::damaged(&path, "it is missing")),
            Some(bytes) if Verity::of(&bytes) == *digest => Ok(bytes),
            Some(bytes) => Err(StoreError::damaged(&path, format!("its content is {}", Verity::of(&bytes)))),
        }
    }

    /// Whether there is an object of this name and size. Its content is not looked at.
    ///
    /// # Errors
    /// What the system refused.
    pub fn contains(&self, digest: &ObjectDigest, size: u64) -> Result<bool> {
        let path = self.path(digest);
        let found = if_present(fs::metadata(&path)).map_err(on("look for the object", &path))?;
        Ok(found.is_some_and(|m| m.is_file() && m.len() == size))
    }

    /// Where an object is, or would be.
    pub fn path(&self, digest: &ObjectDigest) -> PathBuf {
        let hex = digest.hex();
        self.0.objects_dir().join(&hex[..2]).join(&hex[2..])
    }

    /// Writes what `reader` yields to a file that has no name yet.
    pub(crate) fn receive(&self, reader: &mut dyn Read) -> Result<(TempFile, ObjectDigest, u64)> {
        self.receive_each(|buffer| {
            let n = reader.read(buffer)?;
            Ok((n > 0).then_some(Stretch::Bytes(&buffer[..n])))
        })
    }

    /// The same for a file that lies elsewhere, whose holes are not read; `look` is asked before each part.
    pub(crate) fn receive_file(
        &self,
        file: &File,
        look: &dyn Fn() -> io::Result<()>,
    ) -> Result<(TempFile, ObjectDigest, u64)> {
        let mut sparse = None;
        self.receive_each(|buffer| {
            look()?;
            match &mut sparse {
                Some(sparse) => SparseFile::next(sparse, buffer),
                new => new.insert(SparseFile::new(file)?).next(buffer),
            }
        })
    }

    fn receive_each(
        &self,
        mut next: impl for<'b> FnMut(&'b mut [u8]) -> io::Result<Option<Stretch<'b>>>,
    ) -> Result<(TempFile, ObjectDigest, u64)> {
        let mut file = self.0.temp().file()?;
        let mut verity = Verity::new();
        let mut buffer = vec![0; CHUNK];
        while let Some(stretch) = next(&mut buffer).map_err(on(READ_GIVEN, file.path()))? {
            verity.take(stretch);
            match stretch {
                Stretch::Bytes(bytes) if !is_zero(bytes) => file.write(bytes)?,
                Stretch::Bytes(zeroes) => file.skip(zeroes.len() as u64)?,
                Stretch::Zeroes(zeroes) => file.skip(zeroes)?,
            }
        }
        let size = verity.size();
        Ok((file, verity.finish(), size))
    }

    /// Whether the object is there with exactly these bytes; cheaper than hashing it.
    pub(crate) fn holds(&self, digest: &ObjectDigest, bytes: &[u8]) -> Result<bool> {
        if !self.contains(digest, bytes.len() as u64)? {
            return Ok(false);
        }
        let mut rest = bytes;
        let differs = |chunk: &[u8]| match rest.split_at_checked(chunk.len()) {
            Some((same, behind)) if same == chunk => {
                rest = behind;
                false
            }
            _ => true,
        };
        let differed = any_chunk(&mut self.open(digest)?, &self.path(digest), bytes.len(), differs)?;
        Ok(!differed && rest.is_empty())
    }

    /// Whether the object is there and its content is the one its name promises.
    pub(crate) fn is_intact(&self, digest: &ObjectDigest, size: u64) -> Result<bool> {
        self.is_intact_unless(digest, size, &|| Ok(()))
    }

    /// The same, unless `look`, which is asked before each part, fails meanwhile.
    pub(crate) fn is_intact_unless(
        &self,
        digest: &ObjectDigest,
        size: u64,
        look: &dyn Fn() -> io::Result<()>,
    ) -> Result<bool> {
        if !self.contains(digest, size)? {
            return Ok(false);
        }
        let path = self.path(digest);
        let found = File::open(&path).and_then(|file| Verity::of_sparse(&file, look));
        Ok(found.map_err(on("read", &path))?.0 == *digest)
    }

    /// The directory of an object, made if need be.
    pub(crate) fn ready_path(&self, digest: &ObjectDigest) -> Result<PathBuf> {
        let path = self.path(digest);
        ensure_dir(path.parent().expect("an object is in a directory"))?;
        Ok(path)
    }

    fn persist(&self, file: TempFile, digest: &ObjectDigest) -> Result<()> {
        file.persist(&self.ready_path(digest)?)
    }
}

/// Whether it would be a hole in a sparse file.
fn is_zero(chunk: &[u8]) -> bool {
    chunk.first() == Some(&0) && chunk.iter().all(|b| *b == 0)
}

/// The fs-verity digest of the file at `path`.
pub(crate) fn digest_of(path: &Path) -> Result<ObjectDigest> {
    digest_in(&File::open(path).map_err(on("open", path))?, path)
}

/// The fs-verity digest of a file that is open.
pub(crate) fn digest_in(file: &File, path: &Path) -> Result<ObjectDigest> {
    Verity::of_sparse(file, &|| Ok(())).map(|(digest, _)| digest).map_err(on("read", path))
}

/// The fs-verity digest of a metadata file: somebody waits for it, so that a large one is read by several threads.
pub(crate) fn digest_of_metadata(path: &Path) -> Result<ObjectDigest> {
    let digest = File::open(path).and_then(|file| Verity::of_file(&file, file.metadata()?.len()));
    digest.map_err(on("read", path))
}

/// Reads `file` chunk by chunk until `found` says so; whether it did.
pub(crate) fn any_chunk(
    file: &mut File,
    path: &Path,
    about: usize,
    mut found: impl FnMut(&[u8]) -> bool,
) -> Result<bool> {
    let mut buffer = vec![0; about.clamp(1, CHUNK)];
    loop {
        match file.read(&mut buffer).map_err(on("read", path))? {
            0 => return Ok(false),
            n if found(&buffer[..n]) => return Ok(true),
            _ => {}
        }
    }
}
