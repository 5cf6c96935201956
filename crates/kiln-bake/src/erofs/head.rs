//! The fixed part of an inode, in its short and its long form.

use super::body::{Body, Form};
use super::inode::{Inode, Kind};
use super::pen::Pen;

const LONG: u16 = 1;

/// Whether the short form can say it: 16-bit ids and link count, 32-bit size, and the superblock's time.
pub(super) fn is_short(inode: &Inode<'_>, body: &Body, time: i64) -> bool {
    let small = |n: u32| n <= u32::from(u16::MAX);
    let meta = inode.meta;
    meta.mtime == time
        && small(meta.uid)
        && small(meta.gid)
        && small(inode.links)
        && u32::try_from(body.size).is_ok()
}

pub(super) fn length(short: bool) -> usize {
    if short { 32 } else { 64 }
}

/// Writes the head of `inode`, which is the `serial`-th and has its blocks from `first_block`.
pub(super) fn write(
    pen: &mut Pen<'_>,
    inode: &Inode<'_>,
    body: &Body,
    short: bool,
    serial: u32,
    first_block: u32,
) {
    let meta = inode.meta;
    let format = (body.form as u16) << 1 | if short { 0 } else { LONG };
    pen.push(&format.to_le_bytes());
    pen.push(&inode.xattrs.count().to_le_bytes());
    pen.push(&(inode.format() | meta.mode).to_le_bytes());
    if short {
        pen.push(&(inode.links as u16).to_le_bytes());
        pen.push(&(body.size as u32).to_le_bytes());
        pen.skip(4);
        pen.push(&place(inode, body, first_block).to_le_bytes());
        pen.push(&serial.to_le_bytes());
        pen.push(&(meta.uid as u16).to_le_bytes());
        pen.push(&(meta.gid as u16).to_le_bytes());
        pen.skip(4);
    } else {
        pen.skip(2);
        pen.push(&body.size.to_le_bytes());
        pen.push(&place(inode, body, first_block).to_le_bytes());
        pen.push(&serial.to_le_bytes());
        pen.push(&meta.uid.to_le_bytes());
        pen.push(&meta.gid.to_le_bytes());
        pen.push(&meta.mtime.to_le_bytes());
        pen.skip(4);
        pen.push(&inode.links.to_le_bytes());
        pen.skip(16);
    }
}

/// The field that says where the data is, or which device it is.
fn place(inode: &Inode<'_>, body: &Body, first_block: u32) -> u32 {
    match (&inode.kind, body.form) {
        (Kind::CharDevice(device) | Kind::BlockDevice(device), _) => *device,
        (_, Form::Hole) => body.chunk_bits(),
        _ if body.blocks > 0 => first_block,
        _ => 0,
    }
}
