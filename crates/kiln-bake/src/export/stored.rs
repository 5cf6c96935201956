//! An image of the store, read back.

use std::fs;
use std::io::{self, Read};

use kiln_model::{Content, ImageDigest, ImageRecord, Node, ObjectDigest, Tree};
use kiln_store::{Damage, Store, StoreError};

use super::ExportError;
use crate::description::SETTINGS;
use crate::erofs;

/// An image with its tree.
pub struct Stored<'a> {
    pub(crate) store: &'a Store,
    /// What is recorded of it.
    pub record: ImageRecord,
    /// Its tree, without what it says of itself.
    pub tree: Tree,
}

impl<'a> Stored<'a> {
    /// Reads the image back; its metadata is compared with its digest.
    ///
    /// # Errors
    /// If it is not there, damaged, or not readable.
    pub fn open(store: &'a Store, digest: &ImageDigest) -> Result<Self, ExportError> {
        Self::of(store, store.image(digest)?.ok_or(StoreError::NoSuchImage(*digest))?)
    }

    /// The same for an image whose record is at hand.
    ///
    /// # Errors
    /// As [`Stored::open`].
    pub fn of(store: &'a Store, record: ImageRecord) -> Result<Self, ExportError> {
        let (handle, digest) = (store.handle_of(&record)?, record.digest);
        let bytes = fs::read(&handle.metadata).map_err(|source| StoreError::Io {
            attempted: "read",
            path: handle.metadata.clone(),
            source,
        })?;
        let mut tree = erofs::read(&bytes).map_err(|source| ExportError::Image { digest, source })?;
        if let Some(Node::Directory(meta)) = tree.get_mut(b"/") {
            meta.xattrs.remove(SETTINGS);
        }
        Ok(Self { store, record, tree })
    }

    /// Refuses an image of which something is damaged or missing: what leaves here is whole, and so is what is remembered
    /// of it.
    ///
    /// # Errors
    /// What is damaged first.
    pub(crate) fn check_whole(&self) -> Result<(), ExportError> {
        let damage = self.store.damage_of(&self.record.digest)?;
        let first = damage.into_iter().next();
        first.map_or(Ok(()), |Damage { path, problem }| Err(StoreError::Damaged { path, problem }.into()))
    }

    /// Hands the content of a file to `take`, with its size.
    pub(crate) fn content(
        &self,
        content: &Content,
        take: &mut dyn FnMut(&mut dyn Read, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        match content {
            Content::Inline(bytes) => take(&mut bytes.as_slice(), bytes.len() as u64),
            Content::Object { digest, size } => {
                let file = self.object(digest)?;
                take(&mut file.take(*size), *size)
            }
        }
    }

    fn object(&self, digest: &ObjectDigest) -> io::Result<fs::File> {
        self.store.objects().open(digest).map_err(io::Error::other)
    }
}
