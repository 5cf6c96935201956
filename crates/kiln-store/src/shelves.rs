//! The directories of objects, and in what state they and what is in them are: asked a thousand times in a millisecond.

use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::OwnedFd;

use kiln_model::{ObjectDigest, hex_pair};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags, open, statx};
use rustix::io::Errno;

use crate::error::on;
use crate::{Moment, Result, Store};

/// Inode, seconds and nanoseconds of the change.
const MARK: usize = 24;
const DIRECTORIES: usize = 256;
/// How long the marks of all directories are.
const MARKS: usize = MARK * DIRECTORIES;
/// `xx/`, the rest of the digest, and the end of a string.
const NAME: usize = 2 + 1 + 62 + 1;

/// Tells states of an object apart.
pub(crate) type Stamp = u64;

/// In what state an object is.
pub(crate) struct State {
    pub(crate) is_file: bool,
    pub(crate) size: u64,
    pub(crate) modified: Moment,
    pub(crate) stamp: Stamp,
}

/// The directory of all objects, open: a path from it is walked in two steps instead of ten.
pub(crate) struct Shelves<'a> {
    store: &'a Store,
    top: OwnedFd,
}

impl<'a> Shelves<'a> {
    pub(crate) fn of(store: &'a Store) -> Result<Self> {
        let dir = store.objects_dir();
        let top = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self { store, top: top.map_err(|e| on("open", dir)(e.into()))? })
    }

    /// In what state an object is, if it is there.
    pub(crate) fn state_of(&self, digest: &ObjectDigest) -> Result<Option<State>> {
        match self.look(CStr::from_bytes_with_nul(&name_of(digest)).expect("hexadecimal digits hold no NUL"))
        {
            Ok(found) => Ok(Some(State {
                is_file: FileType::from_raw_mode(found.stx_mode.into()).is_file(),
                size: found.stx_size,
                modified: Moment::new(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec.into()),
                stamp: stamp(&found),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(on("look for the object", &self.store.objects().path(digest))(e.into())),
        }
    }

    /// In what state the directories are; one that is not there has a state as well.
    pub(crate) fn marks(&self) -> Vec<u8> {
        let mut marks = Vec::with_capacity(MARKS);
        for n in 0..=u8::MAX {
            let [high, low] = hex_pair(n);
            let name = [high, low, 0];
            let found = self.look(CStr::from_bytes_with_nul(&name).expect("hexadecimal digits hold no NUL"));
            let (inode, changed) =
                found.map_or((0, (0, 0)), |f| (f.stx_ino, (f.stx_mtime.tv_sec, f.stx_mtime.tv_nsec)));
            marks.extend_from_slice(&inode.to_le_bytes());
            marks.extend_from_slice(&changed.0.to_le_bytes());
            marks.extend_from_slice(&i64::from(changed.1).to_le_bytes());
        }
        marks
    }

    fn look(&self, name: &CStr) -> rustix::io::Result<Statx> {
        let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::SIZE | StatxFlags::MTIME;
        statx(&self.top, name, AtFlags::SYMLINK_NOFOLLOW, wanted)
    }
}

/// Where in the marks that of the directory of an object is.
pub(crate) fn mark_of(digest: &ObjectDigest) -> Range<usize> {
    let start = usize::from(digest.0.0[0]) * MARK;
    start..start + MARK
}

fn name_of(digest: &ObjectDigest) -> [u8; NAME] {
    let mut name = [0; NAME];
    let (prefix, rest) = name.split_at_mut(3);
    let (first, others) = digest.0.0.split_first().expect("a digest has bytes");
    prefix[..2].copy_from_slice(&hex_pair(*first));
    prefix[2] = b'/';
    rest.chunks_exact_mut(2).zip(others).for_each(|(place, byte)| place.copy_from_slice(&hex_pair(*byte)));
    name
}

/// Nobody gains by making two states look the same.
fn stamp(found: &Statx) -> Stamp {
    // Not the time of the last change of anything: a further name would count, which copies of a store are made by.
    let time = found.stx_mtime;
    let parts = [found.stx_ino, found.stx_size, time.tv_sec as u64, u64::from(time.tv_nsec)];
    parts.into_iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, part| {
        (sum.rotate_left(23) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

#[cfg(test)]
mod tests {
    use kiln_model::Sha256;

    use super::*;

    #[test]
    fn an_object_has_the_name_its_path_ends_with() {
        let digest = ObjectDigest(Sha256::of(b"any"));
        let hex = digest.hex();
        let name = name_of(&digest);
        assert_eq!(name.strip_suffix(&[0]), Some(format!("{}/{}", &hex[..2], &hex[2..]).as_bytes()));
    }
}
