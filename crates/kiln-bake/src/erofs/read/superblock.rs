//! The two heads of an image: composefs's and EROFS's own.

use super::super::BLOCK;
use super::super::layout::{
    COMPAT_MTIME, COMPOSEFS_HAS_ACL, COMPOSEFS_MAGIC, COMPOSEFS_VERSION, EROFS_MAGIC, INCOMPAT_CHUNKED,
    SUPERBLOCK,
};
use super::BadImage;
use super::bytes::{Bytes, number};

pub(super) struct Superblock {
    /// The number of the root's inode.
    pub(super) root: u64,
    /// The time of inodes in their short form.
    pub(super) time: i64,
    pub(super) inodes: u64,
}

/// What the heads say, if they are those of an image of this version.
pub(super) fn read(bytes: &Bytes<'_>) -> Result<Superblock, BadImage> {
    let composefs = bytes.at(0, 32)?;
    let word = |n: usize| number::<4>(composefs, 4 * n) as u32;
    if word(0) != COMPOSEFS_MAGIC || word(1) != COMPOSEFS_VERSION || word(2) & !COMPOSEFS_HAS_ACL != 0 {
        return Err(BadImage::at(0, "it has no composefs header of version 1"));
    }
    let head = bytes.at(SUPERBLOCK, 128)?;
    let bad = |problem| Err(BadImage::at(SUPERBLOCK, problem));
    if number::<4>(head, 0) as u32 != EROFS_MAGIC {
        return bad("it is no EROFS filesystem");
    }
    if number::<4>(head, 8) as u32 != COMPAT_MTIME || number::<4>(head, 80) as u32 != INCOMPAT_CHUNKED {
        return bad("it has other features than Kiln writes");
    }
    if head[12] != BLOCK.trailing_zeros() as u8 || number::<4>(head, 36) * BLOCK as u64 != bytes.len() as u64
    {
        return bad("its blocks are not those of the file");
    }
    if number::<4>(head, 32) != 0 || number::<8>(head, 40) != 0 {
        return bad("it has parts in other places than Kiln puts them");
    }
    Ok(Superblock {
        root: number::<2>(head, 14),
        inodes: number::<8>(head, 16),
        time: number::<8>(head, 24) as i64,
    })
}
