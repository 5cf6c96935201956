//! The metadata file of an image on its way into the store.

use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use kiln_model::{ImageDigest, Sha256};

use crate::documents::read;
use crate::temp::{TempPath, ensure_dir};
use crate::{Batch, Result, Verity};

/// From this size on a file is flushed as soon as it is written, while others work: its blocks take longer than a commit
/// of the journal, for which a smaller one waits together with the rest.
const LARGE: usize = 8 << 20;

/// A metadata file that is written and has no name yet, and the digests of just its bytes.
#[derive(Debug)]
pub struct StagedMetadata {
    digest: ImageDigest,
    sha256: Sha256,
    size: u64,
    /// Nothing, if the store has it already.
    file: Option<Written>,
}

/// A file that may still be on its way to the disk.
#[derive(Debug)]
struct Written {
    path: TempPath,
    flushing: Option<JoinHandle<Result<()>>>,
}

impl StagedMetadata {
    /// The digest of the image it is the metadata of.
    pub fn digest(&self) -> &ImageDigest {
        &self.digest
    }

    /// The plain hash of its bytes, as others would have it.
    pub fn sha256(&self) -> &Sha256 {
        &self.sha256
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file, if it is to get its name; a large one is on the disk.
    pub(crate) fn ready(self) -> Result<Option<TempPath>> {
        let Some(Written { path, flushing }) = self.file else { return Ok(None) };
        match flushing.map(JoinHandle::join) {
            Some(Err(panic)) => resume_unwind(panic),
            Some(Ok(flushed)) => flushed.map(|()| Some(path)),
            None => Ok(Some(path)),
        }
    }
}

impl Batch {
    /// Writes the metadata file of an image, for [`Batch::commit_image`], and hashes it meanwhile.
    ///
    /// # Errors
    /// What the system refused.
    pub fn stage_metadata(&self, bytes: &[u8]) -> Result<StagedMetadata> {
        let (written, sha256, digest) = thread::scope(|scope| {
            let written = scope.spawn(|| self.written(bytes));
            let sha256 = scope.spawn(|| Sha256::of(bytes));
            let digest = ImageDigest(Verity::of(bytes).0);
            (written.join(), sha256.join(), digest)
        });
        let written = written.unwrap_or_else(|panic| resume_unwind(panic))?;
        let sha256 = sha256.unwrap_or_else(|panic| resume_unwind(panic));
        let store = self.store();
        ensure_dir(&store.image_dir(&digest))?;
        let is_here = read(&store.metadata_path(&digest))?.as_deref() == Some(bytes);
        Ok(StagedMetadata { digest, sha256, size: bytes.len() as u64, file: (!is_here).then_some(written) })
    }

    fn written(&self, bytes: &[u8]) -> Result<Written> {
        let mut file = self.store().temp().file()?;
        file.write(bytes)?;
        if bytes.len() < LARGE {
            return Ok(Written { path: file.close(), flushing: None });
        }
        let (path, flushing) = file.close_flushing();
        Ok(Written { path, flushing: Some(flushing) })
    }
}
