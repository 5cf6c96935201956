//! Where everything goes in the file, and the file itself.

use std::borrow::Cow;
use std::collections::HashMap;

use super::body::{Body, Form};
use super::inode::{Inode, Kind};
use super::{BLOCK, directory, head, xattrs};

pub(super) const COMPOSEFS_MAGIC: u32 = 0xd078_629a;
pub(super) const COMPOSEFS_VERSION: u32 = 1;
pub(super) const COMPOSEFS_HAS_ACL: u32 = 1;

pub(super) const SUPERBLOCK: usize = 1024;
pub(super) const EROFS_MAGIC: u32 = 0xe0f5_e1e2;
/// Inodes have an mtime (and no ctime).
pub(super) const COMPAT_MTIME: u32 = 2;
/// There are files made of chunks: the holes.
pub(super) const INCOMPAT_CHUNKED: u32 = 4;

/// Inodes start right behind the superblock, at multiples of this.
pub(super) const SLOT: usize = 32;
const INODES: usize = SUPERBLOCK + 128;

/// One inode with its place.
struct Placed {
    body: Body,
    short: bool,
    offset: usize,
    first_block: u32,
}

impl Placed {
    fn number(&self) -> u64 {
        (self.offset / SLOT) as u64
    }
}

/// The file of these inodes, the first of which is the root.
pub(super) fn write(inodes: &[Inode<'_>]) -> Vec<u8> {
    let time = most_frequent_time(inodes);
    let (places, blocks_from, end) = place(inodes, time);
    let mut out = Vec::with_capacity(end);
    if !inodes.iter().any(|inode| matches!(inode.kind, Kind::Stored { .. })) {
        push_composefs_header(&mut out, inodes);
    }
    out.resize(SUPERBLOCK, 0);
    push_superblock(&mut out, inodes.len(), places[0].number(), time, end / BLOCK);

    let mut blocks = Vec::with_capacity(end - blocks_from);
    for (n, (inode, at)) in inodes.iter().zip(&places).enumerate() {
        out.resize(at.offset, 0);
        head::push(&mut out, inode, &at.body, at.short, n as u32 + 1, at.first_block);
        out.extend(&inode.xattrs);
        push_data(&mut out, &mut blocks, &data(inode, inodes, &places), &at.body);
    }
    out.resize(blocks_from, 0);
    out.append(&mut blocks);
    out
}

/// The time most inodes share needs no long form there; the earliest of several such.
fn most_frequent_time(inodes: &[Inode<'_>]) -> i64 {
    let mut counts = HashMap::new();
    for inode in inodes {
        *counts.entry(inode.meta.mtime).or_insert(0u32) += 1;
    }
    let best = counts.into_iter().max_by_key(|(time, count)| (*count, std::cmp::Reverse(*time)));
    best.map_or(0, |(time, _)| time)
}

/// Gives every inode its place; also where the blocks begin, and where the file ends.
fn place(inodes: &[Inode<'_>], time: i64) -> (Vec<Placed>, usize, usize) {
    let mut at = INODES;
    let mut places: Vec<Placed> = Vec::with_capacity(inodes.len());
    for inode in inodes {
        let body = Body::of(inode);
        let short = head::is_short(inode, &body, time);
        let before_tail = head::length(short) + inode.xattrs.len();
        let offset = keep_tail_in_one_block(at.next_multiple_of(SLOT), before_tail, body.tail);
        at = offset + before_tail + body.tail;
        places.push(Placed { body, short, offset, first_block: 0 });
    }
    let blocks_from = at.next_multiple_of(BLOCK);
    let mut next = blocks_from / BLOCK;
    // Contents come behind everything else: they are written as they are read, and the rest is made in memory.
    for stored in [false, true] {
        let these =
            places.iter_mut().zip(inodes).filter(|(_, i)| matches!(i.kind, Kind::Stored { .. }) == stored);
        for (placed, _) in these {
            placed.first_block = next as u32;
            next += placed.body.blocks;
        }
    }
    (places, blocks_from, next * BLOCK)
}

fn keep_tail_in_one_block(offset: usize, before_tail: usize, tail: usize) -> usize {
    let in_block = (offset + before_tail) % BLOCK;
    if in_block + tail <= BLOCK { offset } else { offset + (BLOCK - in_block).next_multiple_of(SLOT) }
}

fn data<'i>(inode: &Inode<'i>, inodes: &[Inode<'_>], places: &[Placed]) -> Cow<'i, [u8]> {
    match &inode.kind {
        Kind::Directory(entries) => Cow::Owned(directory::encode(entries, |e| {
            (places[e.inode].number(), inodes[e.inode].entry_type())
        })),
        Kind::Inline(bytes) | Kind::Symlink(bytes) => Cow::Borrowed(bytes),
        _ => Cow::Borrowed(&[]),
    }
}

fn push_data(out: &mut Vec<u8>, blocks: &mut Vec<u8>, data: &[u8], body: &Body) {
    match body.form {
        // The address of its one chunk: none.
        Form::Hole => out.resize(out.len() + body.tail, 0xff),
        Form::Plain | Form::WithTail => {
            let (whole, tail) = data.split_at(data.len() - body.tail);
            blocks.extend(whole);
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
            out.extend(tail);
        }
    }
}

fn push_composefs_header(out: &mut Vec<u8>, inodes: &[Inode<'_>]) {
    let acl = inodes.iter().any(|i| xattrs::have_acl(&i.meta.xattrs));
    for word in [COMPOSEFS_MAGIC, COMPOSEFS_VERSION, if acl { COMPOSEFS_HAS_ACL } else { 0 }] {
        out.extend(word.to_le_bytes());
    }
}

fn push_superblock(out: &mut Vec<u8>, inodes: usize, root: u64, time: i64, blocks: usize) {
    out.extend(EROFS_MAGIC.to_le_bytes());
    out.extend([0; 4]); // no checksum: the digest of the file covers it
    out.extend(COMPAT_MTIME.to_le_bytes());
    out.extend([BLOCK.trailing_zeros() as u8, 0]);
    out.extend((root as u16).to_le_bytes());
    out.extend((inodes as u64).to_le_bytes());
    out.extend(time.to_le_bytes());
    out.extend([0; 4]); // its nanoseconds
    out.extend((blocks as u32).to_le_bytes());
    out.extend([0; 8 + 32]); // inodes from block 0, no shared xattrs; no id, no name
    out.extend(INCOMPAT_CHUNKED.to_le_bytes());
    out.resize(INODES, 0);
}
