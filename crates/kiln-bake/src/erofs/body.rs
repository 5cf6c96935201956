//! Where the data of an inode goes.

use super::BLOCK;
use super::directory;
use super::inode::{Inode, Kind};

/// The longest end of data that is put behind its inode. It must not cross a block, so that longer ones would often
/// leave a gap before the inode that is larger than what they save.
const MAX_TAIL: usize = BLOCK / 2;

/// The data of an inode, in bytes and blocks.
#[derive(Clone, Copy)]
pub(super) struct Body {
    pub(super) size: u64,
    /// Blocks of their own.
    pub(super) blocks: usize,
    /// Bytes behind the inode, in one block.
    pub(super) tail: usize,
    pub(super) form: Form,
}

/// The layouts of EROFS that are used here, by their number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain = 0,
    WithTail = 2,
    Hole = 4,
}

impl Body {
    pub(super) fn of(inode: &Inode<'_>) -> Self {
        match &inode.kind {
            Kind::Directory(entries) => Self::stored(directory::size(entries)),
            Kind::Inline(bytes) | Kind::Symlink(bytes) => Self::stored(bytes.len()),
            Kind::Object { size, .. } => Self::hole(*size),
            Kind::Stored { size, .. } => {
                Self { size: *size, blocks: size.div_ceil(BLOCK as u64) as usize, tail: 0, form: Form::Plain }
            }
            Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo | Kind::Socket => Self::stored(0),
        }
    }

    fn stored(size: usize) -> Self {
        let (blocks, tail) = (size / BLOCK, size % BLOCK);
        let body = |blocks, tail, form| Self { size: size as u64, blocks, tail, form };
        match tail {
            0 => body(blocks, 0, Form::Plain),
            1..=MAX_TAIL => body(blocks, tail, Form::WithTail),
            _ => body(blocks + 1, 0, Form::Plain),
        }
    }

    /// A content that is elsewhere: one chunk without an address. The address takes four bytes behind the inode.
    pub(super) fn hole(size: u64) -> Self {
        Self { size, blocks: 0, tail: if size == 0 { 0 } else { 4 }, form: Form::Hole }
    }

    /// The size of that one chunk, as the power of two of a number of blocks.
    pub(super) fn chunk_bits(&self) -> u32 {
        self.size.div_ceil(BLOCK as u64).max(1).next_power_of_two().trailing_zeros()
    }
}
