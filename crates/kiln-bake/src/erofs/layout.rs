//! Where everything goes in the file, and the file itself.

use std::borrow::Cow;
use std::collections::HashMap;

use rayon::prelude::*;

use super::body::{Body, Form};
use super::inode::{Inode, Kind};
use super::pen::Pen;
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

/// So many inodes are written by one thread at a time.
const PART: usize = 8192;

/// Where parts of the file end.
struct Ends {
    inodes: usize,
    /// What is written here ends here.
    blocks: usize,
    /// Contents that are written behind it end here.
    file: usize,
}

/// The file of these inodes, the first of which is the root.
pub(super) fn write(inodes: &[Inode<'_>]) -> Vec<u8> {
    let time = most_frequent_time(inodes);
    let (places, ends) = place(inodes, time);
    let mut out = vec![0; ends.blocks];
    let (head, rest) = out.split_at_mut(INODES);
    let mut pen = Pen::new(head);
    if !inodes.iter().any(|inode| matches!(inode.kind, Kind::Stored { .. })) {
        push_composefs_header(&mut pen, inodes);
    }
    pen.go_to(SUPERBLOCK);
    push_superblock(&mut pen, inodes.len(), places[0].number(), time, ends.file / BLOCK);

    let (rest, blocks) = rest.split_at_mut(ends.inodes - INODES);
    let parts: Vec<Part<'_>> = parts(rest, &places);
    let own_blocks: Vec<Vec<u8>> = parts.into_par_iter().map(|part| part.write(inodes, &places)).collect();
    let mut pen = Pen::new(blocks);
    own_blocks.iter().for_each(|blocks| pen.push(blocks));
    out
}

/// Inodes that follow each other, and where they go.
struct Part<'b> {
    first: usize,
    count: usize,
    offset: usize,
    bytes: &'b mut [u8],
}

/// `bytes`, which begin with the first inode, cut into parts.
fn parts<'b>(mut bytes: &'b mut [u8], places: &[Placed]) -> Vec<Part<'b>> {
    let mut parts = Vec::new();
    for (n, these) in places.chunks(PART).enumerate() {
        let (first, offset) = (n * PART, these[0].offset);
        let end = places.get(first + PART).map_or(offset + bytes.len(), |next| next.offset);
        let (own, rest) = bytes.split_at_mut(end - offset);
        parts.push(Part { first, count: these.len(), offset, bytes: own });
        bytes = rest;
    }
    parts
}

impl Part<'_> {
    /// Writes its inodes; returns the blocks that they have of their own.
    fn write(self, inodes: &[Inode<'_>], places: &[Placed]) -> Vec<u8> {
        let mut blocks = Vec::new();
        let mut pen = Pen::new(self.bytes);
        for n in self.first..self.first + self.count {
            let (inode, at) = (&inodes[n], &places[n]);
            pen.go_to(at.offset - self.offset);
            head::write(&mut pen, inode, &at.body, at.short, n as u32 + 1, at.first_block);
            inode.xattrs.write(&mut pen);
            push_data(&mut pen, &mut blocks, &data(inode, inodes, places), &at.body);
        }
        blocks
    }
}

/// The time most inodes share needs no long form there; the earliest of several such.
fn most_frequent_time(inodes: &[Inode<'_>]) -> i64 {
    let mut counts = HashMap::new();
    // Neighbours mostly share it.
    for same in inodes.chunk_by(|a, b| a.meta.mtime == b.meta.mtime) {
        *counts.entry(same[0].meta.mtime).or_insert(0) += same.len();
    }
    let best = counts.into_iter().max_by_key(|(time, count)| (*count, std::cmp::Reverse(*time)));
    best.map_or(0, |(time, _)| time)
}

/// Gives every inode its place; also where what is in the file ends.
fn place(inodes: &[Inode<'_>], time: i64) -> (Vec<Placed>, Ends) {
    let mut at = INODES;
    let mut places: Vec<Placed> = Vec::with_capacity(inodes.len());
    for inode in inodes {
        let body = Body::of(inode);
        let short = head::is_short(inode, &body, time);
        let before_tail = head::length(short) + inode.xattrs.length();
        let offset = keep_tail_in_one_block(at.next_multiple_of(SLOT), before_tail, body.tail);
        at = offset + before_tail + body.tail;
        places.push(Placed { body, short, offset, first_block: 0 });
    }
    let mut ends = Ends { inodes: at.next_multiple_of(BLOCK), blocks: 0, file: 0 };
    let mut next = ends.inodes / BLOCK;
    // Contents come behind everything else: they are written as they are read, and the rest is made in memory.
    for stored in [false, true] {
        let these =
            places.iter_mut().zip(inodes).filter(|(_, i)| matches!(i.kind, Kind::Stored { .. }) == stored);
        for (placed, _) in these {
            placed.first_block = next as u32;
            next += placed.body.blocks;
        }
        if !stored {
            ends.blocks = next * BLOCK;
        }
    }
    ends.file = next * BLOCK;
    (places, ends)
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

fn push_data(pen: &mut Pen<'_>, blocks: &mut Vec<u8>, data: &[u8], body: &Body) {
    match body.form {
        // The address of its one chunk: none.
        Form::Hole => pen.push(&[0xff; 4][..body.tail]),
        Form::Plain | Form::WithTail => {
            let (whole, tail) = data.split_at(data.len() - body.tail);
            blocks.extend(whole);
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
            pen.push(tail);
        }
    }
}

fn push_composefs_header(pen: &mut Pen<'_>, inodes: &[Inode<'_>]) {
    let acl = inodes.iter().any(|i| xattrs::have_acl(&i.meta.xattrs));
    for word in [COMPOSEFS_MAGIC, COMPOSEFS_VERSION, if acl { COMPOSEFS_HAS_ACL } else { 0 }] {
        pen.push(&word.to_le_bytes());
    }
}

fn push_superblock(pen: &mut Pen<'_>, inodes: usize, root: u64, time: i64, blocks: usize) {
    pen.push(&EROFS_MAGIC.to_le_bytes());
    pen.skip(4); // no checksum: the digest of the file covers it
    pen.push(&COMPAT_MTIME.to_le_bytes());
    pen.push(&[BLOCK.trailing_zeros() as u8, 0]);
    pen.push(&(root as u16).to_le_bytes());
    pen.push(&(inodes as u64).to_le_bytes());
    pen.push(&time.to_le_bytes());
    pen.skip(4); // its nanoseconds
    pen.push(&(blocks as u32).to_le_bytes());
    pen.skip(8 + 32); // inodes from block 0, no shared xattrs; no id, no name
    pen.push(&INCOMPAT_CHUNKED.to_le_bytes());
}
