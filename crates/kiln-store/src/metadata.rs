//! The metadata file of an image on its way into the store.

use std::path::PathBuf;

use kiln_model::ImageDigest;

use crate::documents::read;
use crate::temp::{TempPath, ensure_dir};
use crate::{Batch, Result, Store, Verity};

/// From this size on a file is flushed as soon as it is written, while others work: its blocks take longer than a commit
/// of the journal, for which a smaller one waits together with the rest.
const LARGE: usize = 8 << 20;

/// The bytes of a metadata file, and the digest of just these.
#[derive(Debug)]
pub struct Metadata {
    bytes: Vec<u8>,
    digest: ImageDigest,
}

impl Metadata {
    /// Hashes `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        let digest = ImageDigest(Verity::of(&bytes).0);
        Self { bytes, digest }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The digest of the image they are the metadata of.
    pub fn digest(&self) -> &ImageDigest {
        &self.digest
    }
}

/// A metadata file that is written and has no name yet.
#[derive(Debug)]
pub struct StagedMetadata {
    pub(crate) digest: ImageDigest,
    /// Nothing, if the store has it already.
    pub(crate) file: Option<TempPath>,
}

impl StagedMetadata {
    pub(crate) fn path(&self, store: &Store) -> PathBuf {
        store.metadata_path(&self.digest)
    }
}

impl Batch {
    /// Writes the metadata file of an image, for [`Batch::commit_image`].
    ///
    /// # Errors
    /// What the system refused.
    pub fn stage_metadata(&self, metadata: &Metadata) -> Result<StagedMetadata> {
        let store = self.store();
        let path = store.metadata_path(&metadata.digest);
        ensure_dir(&store.image_dir(&metadata.digest))?;
        if read(&path)?.as_deref() == Some(metadata.bytes()) {
            return Ok(StagedMetadata { digest: metadata.digest, file: None });
        }
        let mut file = store.temp().file()?;
        file.write(metadata.bytes())?;
        if metadata.bytes.len() >= LARGE {
            file.flush()?;
        }
        Ok(StagedMetadata { digest: metadata.digest, file: Some(file.close()) })
    }
}
