//! Numbers and stretches of an image, none of them beyond its end.

use super::BadImage;

/// The whole file, and how much of it may still be copied out: every byte of an honest image belongs to one inode, so
/// that a file that gives out more than its own length has inodes that share theirs.
pub(super) struct Bytes<'a> {
    all: &'a [u8],
    left: usize,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(all: &'a [u8]) -> Self {
        Self { all, left: all.len() }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// `length` bytes from `offset`.
    pub(super) fn at(&self, offset: usize, length: usize) -> Result<&'a [u8], BadImage> {
        let end = offset.checked_add(length);
        end.and_then(|end| self.all.get(offset..end)).ok_or_else(|| BadImage::at(offset, "it ends too early"))
    }

    /// The same, counted against what the file can honestly hold.
    pub(super) fn once(&mut self, offset: usize, length: usize) -> Result<&'a [u8], BadImage> {
        let bytes = self.at(offset, length)?;
        let left = self.left.checked_sub(length);
        self.left = left.ok_or_else(|| BadImage::at(offset, "inodes share their bytes"))?;
        Ok(bytes)
    }
}

/// The little-endian number that `N` bytes of `from` at `offset` are. The caller has asked for enough.
pub(super) fn number<const N: usize>(from: &[u8], offset: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&from[offset..offset + N]);
    u64::from_le_bytes(bytes)
}
