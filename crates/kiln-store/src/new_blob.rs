//! A blob whose hash is not known before all of it is written.

use std::io::{self, Write};

use kiln_model::Sha256;
use sha2::Digest as _;

use crate::temp::TempFile;
use crate::{Result, Store};

impl Store {
    /// A blob to be written from its beginning to its end.
    ///
    /// # Errors
    /// What the system refused.
    pub fn new_blob(&self) -> Result<NewBlob<'_>> {
        Ok(NewBlob { store: self, file: self.temp().file()?, hasher: sha2::Sha256::new(), length: 0 })
    }
}

/// A blob being written; dropped, nothing of it is left.
pub struct NewBlob<'a> {
    store: &'a Store,
    file: TempFile,
    hasher: sha2::Sha256,
    length: u64,
}

impl NewBlob<'_> {
    /// Gives it its place; its hash and size.
    ///
    /// # Errors
    /// What the system refused.
    pub fn finish(self) -> Result<(Sha256, u64)> {
        let hash = Sha256(self.hasher.finalize().into());
        self.file.persist(&self.store.blob_path(&hash))?;
        Ok((hash, self.length))
    }
}

impl Write for NewBlob<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(io::Error::other)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
