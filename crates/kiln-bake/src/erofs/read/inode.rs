//! One inode: its head, its xattrs and its data.

use kiln_model::{Content, Meta, Node, ObjectDigest, Xattrs};

use super::super::layout::SLOT;
use super::super::{BLOCK, body, limits};
use super::bytes::{Bytes, number};
use super::{BadImage, xattrs};

/// An inode as it lies in the file.
pub(super) struct Inode {
    offset: usize,
    /// The type bits of `st_mode`.
    pub(super) kind: u16,
    pub(super) links: u32,
    meta: Meta,
    /// The object that holds its content.
    object: Option<ObjectDigest>,
    size: u64,
    place: u32,
    form: u16,
    /// Where its tail is.
    tail: usize,
}

const LONG: u16 = 1;
const SHORT_HEAD: usize = 32;
const LONG_HEAD: usize = 64;

/// The inode with this number. `time` is what those in the short form have.
pub(super) fn read(bytes: &mut Bytes<'_>, nid: u64, time: i64) -> Result<Inode, BadImage> {
    let offset = usize::try_from(nid).ok().and_then(|n| n.checked_mul(SLOT));
    let offset = offset.ok_or_else(|| BadImage::at(0, "an inode is beyond its end"))?;
    let format = number::<2>(bytes.at(offset, SHORT_HEAD)?, 0) as u16;
    let is_long = format & LONG != 0;
    let length = if is_long { LONG_HEAD } else { SHORT_HEAD };
    let head = bytes.at(offset, length)?;
    let mode = number::<2>(head, 4) as u16;
    let xattrs = xattrs::read(bytes, offset + length, number::<2>(head, 2) as u16)?;
    let mut inode = Inode {
        offset,
        kind: mode & 0o170_000,
        links: number::<2>(head, 6) as u32,
        meta: Meta { mode: mode & 0o7777, uid: 0, gid: 0, mtime: time, xattrs: xattrs.own },
        object: xattrs.object,
        size: number::<4>(head, 8),
        place: number::<4>(head, 16) as u32,
        form: format >> 1,
        tail: offset + length + xattrs.length,
    };
    if is_long {
        inode.size = number::<8>(head, 8);
        inode.links = number::<4>(head, 44) as u32;
        (inode.meta.uid, inode.meta.gid) = (number::<4>(head, 24) as u32, number::<4>(head, 28) as u32);
        inode.meta.mtime = number::<8>(head, 32) as i64;
        if number::<4>(head, 40) != 0 {
            return Err(BadImage::at(offset, "a time has nanoseconds"));
        }
    } else {
        (inode.meta.uid, inode.meta.gid) = (number::<2>(head, 24) as u32, number::<2>(head, 26) as u32);
    }
    Ok(inode)
}

impl Inode {
    pub(super) const DIRECTORY: u16 = 0o040_000;

    /// The type that entries of it must have.
    pub(super) fn entry_type(&self) -> u8 {
        match self.kind {
            0o100_000 => 1,
            Self::DIRECTORY => 2,
            0o020_000 => 3,
            0o060_000 => 4,
            0o010_000 => 5,
            0o140_000 => 6,
            0o120_000 => 7,
            _ => 0,
        }
    }

    pub(super) fn bad(&self, problem: &'static str) -> BadImage {
        BadImage::at(self.offset, problem)
    }

    /// What is in it, if it is kept in the file: blocks of its own first, then its tail.
    pub(super) fn data(&self, bytes: &mut Bytes<'_>) -> Result<Vec<u8>, BadImage> {
        let size = usize::try_from(self.size).ok().filter(|size| *size <= bytes.len());
        let size = size.ok_or_else(|| self.bad("it is larger than the file"))?;
        let first =
            (self.place as usize).checked_mul(BLOCK).ok_or_else(|| self.bad("its blocks are nowhere"))?;
        match self.form {
            form if form == body::Form::Plain as u16 && size == 0 => Ok(Vec::new()),
            form if form == body::Form::Plain as u16 => Ok(bytes.once(first, size)?.to_vec()),
            form if form == body::Form::WithTail as u16 => {
                let tail = size % BLOCK;
                let mut data = Vec::new();
                if size > tail {
                    data.extend_from_slice(bytes.once(first, size - tail)?);
                }
                if self.tail % BLOCK + tail > BLOCK {
                    return Err(self.bad("its tail crosses a block"));
                }
                data.extend_from_slice(bytes.once(self.tail, tail)?);
                Ok(data)
            }
            _ => Err(self.bad("its data is laid out in a way Kiln does not write")),
        }
    }

    /// What it is in a tree. Directories' entries are not part of that.
    pub(super) fn node(self, bytes: &mut Bytes<'_>) -> Result<Node, BadImage> {
        if self.object.is_some() && self.kind != 0o100_000 {
            return Err(self.bad("something that is no file has its content elsewhere"));
        }
        Ok(match self.kind {
            Self::DIRECTORY => Node::Directory(self.meta),
            0o100_000 => {
                let content = self.content(bytes)?;
                Node::File(self.meta, content)
            }
            0o120_000 => {
                let target = self.data(bytes)?;
                limits::target(&target).map_err(|p| self.bad(p))?;
                Node::Symlink(self.meta, target)
            }
            0o020_000 => {
                let (major, minor) = device(self.place);
                limits::char_device(major, minor).map_err(|p| self.bad(p))?;
                Node::CharDevice(self.meta, major, minor)
            }
            0o060_000 => {
                let (major, minor) = device(self.place);
                Node::BlockDevice(self.meta, major, minor)
            }
            0o010_000 => Node::Fifo(self.meta),
            0o140_000 => Node::Socket(self.meta),
            _ => return Err(self.bad("it is of no kind")),
        })
    }

    fn content(&self, bytes: &mut Bytes<'_>) -> Result<Content, BadImage> {
        let Some(digest) = self.object else {
            let content = self.data(bytes)?;
            limits::inline(&content).map_err(|p| self.bad(p))?;
            return Ok(Content::Inline(content));
        };
        limits::size(self.size).map_err(|p| self.bad(p))?;
        let chunk = body::Body::hole(self.size);
        let is_hole = self.form == body::Form::Hole as u16 && self.place == chunk.chunk_bits();
        if !is_hole || bytes.once(self.tail, chunk.tail)?.iter().any(|b| *b != 0xff) {
            return Err(self.bad("its content is an object, and it is no hole"));
        }
        Ok(Content::Object { digest, size: self.size })
    }
}

/// Major and minor out of the kernel's encoding.
fn device(number: u32) -> (u32, u32) {
    ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & !0xff))
}

/// The xattrs of an inode, and what overlayfs is told by them.
pub(super) struct Found {
    pub(super) own: Xattrs,
    pub(super) object: Option<ObjectDigest>,
    /// How many bytes they take.
    pub(super) length: usize,
}
