//! An image on its way into the store: its metadata file, and the list of the objects in its tree.

use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use kiln_model::{ImageDigest, ObjectDigest, Sha256};

use crate::documents::read;
use crate::images::object_lines;
use crate::temp::{TempFile, TempPath, made_dir};
use crate::{Batch, Result, Verity};

/// From this size on a file is flushed while it is written: its blocks take longer than a commit of the journal, for which
/// a smaller one waits together with the rest.
const LARGE: usize = 8 << 20;

/// The files of an image that are written and have no names yet, and the digests of just the bytes of its metadata.
pub struct StagedImage {
    digest: ImageDigest,
    sha256: Sha256,
    size: u64,
    /// Nothing, if the store has it already.
    metadata: Option<Written>,
    pub(crate) list: Written,
}

/// A file of which a part may still be on its way to the disk.
pub(crate) struct Written {
    file: TempFile,
    flushing: Option<JoinHandle<Result<()>>>,
}

impl Written {
    fn new(batch: &Batch, bytes: &[u8]) -> Result<Self> {
        let mut file = batch.store().temp().file()?;
        let flushing = match bytes.len() < LARGE {
            true => file.write(bytes).map(|()| None)?,
            false => Some(file.write_flushing(bytes)?),
        };
        Ok(Self { file, flushing })
    }

    /// What follows what is there.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write(bytes)
    }

    /// The file, if nothing of it failed to reach the disk; what was flushed while it was written is there.
    pub(crate) fn close(self) -> Result<TempPath> {
        match self.flushing.map(JoinHandle::join) {
            Some(Err(panic)) => resume_unwind(panic),
            Some(Ok(flushed)) => flushed?,
            None => {}
        }
        Ok(self.file.close())
    }
}

impl StagedImage {
    /// The digest of the image.
    pub fn digest(&self) -> &ImageDigest {
        &self.digest
    }

    /// The plain hash of its metadata's bytes, as others would have it.
    pub fn sha256(&self) -> &Sha256 {
        &self.sha256
    }

    /// How many bytes of metadata it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The list of objects, and the metadata if it is to get its name.
    pub(crate) fn close(self) -> Result<(TempPath, Option<TempPath>)> {
        Ok((self.list.close()?, self.metadata.map(Written::close).transpose()?))
    }
}

impl Batch {
    /// Writes the metadata file of an image and the list of the `objects` in its tree (sorted, each once), for
    /// [`Batch::commit_image`], and hashes the metadata meanwhile.
    ///
    /// # Errors
    /// What the system refused.
    pub fn stage_image(&self, metadata: &[u8], objects: &[ObjectDigest]) -> Result<StagedImage> {
        let (written, list, sha256, digest) = thread::scope(|scope| {
            let written = scope.spawn(|| Written::new(self, metadata));
            let list = scope.spawn(|| Written::new(self, &object_lines(objects)));
            let sha256 = scope.spawn(|| Sha256::of(metadata));
            let digest = ImageDigest(Verity::of(metadata).0);
            (written.join(), list.join(), sha256.join(), digest)
        });
        let written = written.unwrap_or_else(|panic| resume_unwind(panic))?;
        let list = list.unwrap_or_else(|panic| resume_unwind(panic))?;
        let sha256 = sha256.unwrap_or_else(|panic| resume_unwind(panic));
        let store = self.store();
        // Its name is flushed with those of the files in it.
        made_dir(&store.image_dir(&digest))?;
        let is_here = read(&store.metadata_path(&digest))?.as_deref() == Some(metadata);
        let metadata_file = (!is_here).then_some(written);
        Ok(StagedImage { digest, sha256, size: metadata.len() as u64, metadata: metadata_file, list })
    }
}
