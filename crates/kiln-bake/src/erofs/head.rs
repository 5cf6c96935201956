//! The fixed part of an inode, in its short and its long form.

use super::body::{Body, Form};
use super::inode::{Inode, Kind};
use super::xattrs;

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

/// Appends the head of `inode`, which is the `serial`-th and has its blocks from `first_block`.
pub(super) fn push(
    out: &mut Vec<u8>,
    inode: &Inode<'_>,
    body: &Body,
    short: bool,
    serial: u32,
    first_block: u32,
) {
    let meta = inode.meta;
    let format = (body.form as u16) << 1 | if short { 0 } else { LONG };
    let start = out.len();
    out.extend(format.to_le_bytes());
    out.extend(xattrs::count(&inode.xattrs).to_le_bytes());
    out.extend((inode.format() | meta.mode).to_le_bytes());
    if short {
        out.extend((inode.links as u16).to_le_bytes());
        out.extend((body.size as u32).to_le_bytes());
        out.extend([0; 4]);
        out.extend(place(inode, body, first_block).to_le_bytes());
        out.extend(serial.to_le_bytes());
        out.extend((meta.uid as u16).to_le_bytes());
        out.extend((meta.gid as u16).to_le_bytes());
    } else {
        out.extend([0; 2]);
        out.extend(body.size.to_le_bytes());
        out.extend(place(inode, body, first_block).to_le_bytes());
        out.extend(serial.to_le_bytes());
        out.extend(meta.uid.to_le_bytes());
        out.extend(meta.gid.to_le_bytes());
        out.extend(meta.mtime.to_le_bytes());
        out.extend([0; 4]);
        out.extend(inode.links.to_le_bytes());
    }
    out.resize(start + length(short), 0);
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
