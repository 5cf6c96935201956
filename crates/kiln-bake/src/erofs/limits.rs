//! What an image can hold. Everything here is asked before anything is written.
//!
//! A [`Tree`] checks its paths when they are inserted, but one that was read from a file has not been through that.

use kiln_model::{Meta, Tree};

use super::BLOCK;

/// The longest content kept inline: more belongs into an object, where it is shared.
const MAX_INLINE: usize = BLOCK;
/// PATH_MAX without its terminating NUL.
const MAX_TARGET: usize = 4095;
/// The largest file one hole can describe: EROFS chunks reach up to 2^43 bytes.
const MAX_SIZE: u64 = 1 << 43;

pub(super) type Problem = &'static str;

/// The parent's path and the name of `path`, which is not the root.
pub(super) fn split(path: &[u8]) -> Result<(&[u8], &[u8]), Problem> {
    if path.len() > Tree::MAX_PATH {
        return Err("the path is longer than 4095 bytes");
    }
    let slash = path.iter().rposition(|c| *c == b'/').ok_or("the path is not absolute")?;
    let parent = if slash == 0 { &b"/"[..] } else { &path[..slash] };
    let name = &path[slash + 1..];
    match name {
        b"" => Err("the path has an empty component"),
        b"." | b".." => Err("the path has a `.` or `..` component"),
        _ if name.len() > Tree::MAX_NAME => Err("a name is longer than 255 bytes"),
        _ if name.contains(&0) => Err("the path has a NUL byte"),
        _ => Ok((parent, name)),
    }
}

pub(super) fn mode(meta: &Meta) -> Result<(), Problem> {
    if meta.mode > 0o7777 { Err("the mode has bits beyond 7777") } else { Ok(()) }
}

pub(super) fn target(target: &[u8]) -> Result<(), Problem> {
    match target.len() {
        0 => Err("the symbolic link has no target"),
        1..=MAX_TARGET if target.contains(&0) => Err("the target has a NUL byte"),
        1..=MAX_TARGET => Ok(()),
        _ => Err("the target is longer than 4095 bytes"),
    }
}

pub(super) fn inline(content: &[u8]) -> Result<(), Problem> {
    if content.len() > MAX_INLINE {
        Err("a content of more than 4096 bytes must be an object")
    } else {
        Ok(())
    }
}

/// Whether a file can have this size, for those who would read all of it first.
pub(crate) fn may_be_a_file_of(size: u64) -> bool {
    self::size(size).is_ok()
}

pub(super) fn size(size: u64) -> Result<(), Problem> {
    if size > MAX_SIZE { Err("the file is larger than 8 TiB") } else { Ok(()) }
}

/// The kernel's encoding of a device number.
pub(super) fn device(major: u32, minor: u32) -> Result<u32, Problem> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err("the device number does not fit: 12 bits for the major, 20 for the minor");
    }
    Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

pub(super) fn char_device(major: u32, minor: u32) -> Result<u32, Problem> {
    if (major, minor) == (0, 0) {
        return Err("a character device 0:0 means `deleted` to overlayfs, so an image cannot hold one");
    }
    device(major, minor)
}
