//! Contents of files on their way into the store.

use std::fs::File;
use std::io::{self, Read};

use kiln_model::{Content, Node, Tree};
use kiln_store::{Batch, Store, StoreError};

use crate::debian::deb::Sink;
use crate::tree_edit::node_at;

/// Files up to this size are kept in the image's metadata, as composefs does.
pub(crate) const INLINE: u64 = 64;
/// Files up to this size are read into memory, so that one the store has already costs no write.
const IN_MEMORY: u64 = 4 << 20;

/// The content of a file of an image.
pub(crate) fn of_bytes(batch: &Batch, bytes: &[u8]) -> Result<Content, StoreError> {
    if bytes.len() as u64 <= INLINE {
        return Ok(Content::Inline(bytes.to_vec()));
    }
    let (digest, size) = batch.put_bytes(bytes)?;
    Ok(Content::Object { digest, size })
}

/// The content of a file outside of the store, `size` bytes. The holes of a large one are not read, and `look` is asked before
/// each part of it whether to go on.
pub(crate) fn of_file(
    batch: &Batch,
    file: &File,
    size: u64,
    look: &dyn Fn() -> io::Result<()>,
) -> io::Result<Content> {
    if size <= IN_MEMORY {
        return batch.keep(&mut &*file, size);
    }
    let (digest, found) = batch.put_file(file, look).map_err(io::Error::other)?;
    if found == size { Ok(Content::Object { digest, size }) } else { Err(not_all(found, size)) }
}

/// Of a file that is shorter or longer than it was.
fn not_all(found: u64, size: u64) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("{found} of {size} bytes"))
}

/// What the file at `path` holds, links followed; nothing if there is none.
pub(crate) fn read(tree: &Tree, path: &str, store: &Store) -> Result<Vec<u8>, StoreError> {
    match node_at(tree, path.as_bytes()) {
        Some(Node::File(_, content)) => bytes_of(content, store),
        _ => Ok(Vec::new()),
    }
}

/// The bytes of a content.
pub(crate) fn bytes_of(content: &Content, store: &Store) -> Result<Vec<u8>, StoreError> {
    match content {
        Content::Inline(bytes) => Ok(bytes.clone()),
        Content::Object { digest, .. } => store.objects().read(digest),
    }
}

impl Sink for Batch {
    fn keep(&self, content: &mut dyn Read, size: u64) -> io::Result<Content> {
        if size <= IN_MEMORY {
            let mut bytes = Vec::with_capacity(size as usize);
            content.take(size).read_to_end(&mut bytes)?;
            if bytes.len() as u64 != size {
                return Err(not_all(bytes.len() as u64, size));
            }
            return of_bytes(self, &bytes).map_err(io::Error::other);
        }
        let (digest, found) = self.put_reader(&mut content.take(size)).map_err(io::Error::other)?;
        if found != size {
            return Err(not_all(found, size));
        }
        Ok(Content::Object { digest, size })
    }
}
