//! What is on a volatile path of an instance that runs.
//!
//! The instance may do anything meanwhile, on purpose too: everything goes by descriptors, never through a link, and
//! never into another mount.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat};

/// More paths than this are no state somebody has made by hand.
pub(super) const MOST: usize = 100_000;
/// Deeper than this is not looked: each level is an open descriptor.
pub(super) const DEEPEST: usize = 64;

/// What tells whether something is still what it was. The kernel moves the last one with every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) kind: FileType,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) inode: u64,
    /// Whether it is a file that has more than one name.
    pub(super) has_names: bool,
    pub(super) size: u64,
    changed: (i64, i64),
}

impl Seen {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: (stat.st_mode & 0o7777) as u16,
            uid: stat.st_uid,
            gid: stat.st_gid,
            inode: stat.st_ino,
            has_names: stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode).is_file(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

/// Everything on a volatile path, by the path below it; the path itself is the empty one.
pub(super) type Survey = BTreeMap<Vec<u8>, Seen>;

/// Why there is no survey.
#[derive(Debug)]
pub(super) enum NoSurvey {
    TooMuch,
    System(io::Error),
}

impl From<rustix::io::Errno> for NoSurvey {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::System(errno.into())
    }
}

/// The directory of a volatile path, which is a mount of its own.
pub(super) fn open(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags, Mode::empty(), within)?)
}

/// Looks at everything below `top`.
pub(super) fn survey(top: &OwnedFd) -> Result<Survey, NoSurvey> {
    let stat = fstat(top)?;
    let mut walk = Walk { device: stat.st_dev, found: Survey::new() };
    walk.found.insert(Vec::new(), Seen::of(&stat));
    walk.directory(top, &[], 0)?;
    Ok(walk.found)
}

struct Walk {
    device: u64,
    found: Survey,
}

impl Walk {
    fn directory(&mut self, dir: &OwnedFd, path: &[u8], depth: usize) -> Result<(), NoSurvey> {
        for entry in Dir::read_from(dir.as_fd())? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if self.found.len() >= MOST || depth >= DEEPEST {
                return Err(NoSurvey::TooMuch);
            }
            let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                // It shows when the survey is compared with the next one.
                Err(rustix::io::Errno::NOENT) => continue,
                stat => stat?,
            };
            let below = [path, b"/", name.to_bytes()].concat();
            self.found.insert(below.clone(), Seen::of(&stat));
            if FileType::from_raw_mode(stat.st_mode).is_dir() && stat.st_dev == self.device {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(dir, name, flags, Mode::empty()) {
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {}
                    inner => self.directory(&inner?, &below, depth + 1)?,
                }
            }
        }
        Ok(())
    }
}

/// The first path that is not in both, or not the same.
pub(super) fn first_difference(a: &Survey, b: &Survey) -> Option<Vec<u8>> {
    let differs = |path: &&Vec<u8>| a.get(*path) != b.get(*path);
    a.keys().chain(b.keys()).filter(differs).min().cloned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_change_shows_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "one").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let top: OwnedFd = fs::File::open(dir.path()).unwrap().into();
        let first = survey(&top).unwrap();
        let paths: Vec<&[u8]> = first.keys().map(Vec::as_slice).collect();
        assert_eq!(paths, [&b""[..], b"/link", b"/sub", b"/sub/file"]);
        assert_eq!(first_difference(&first, &survey(&top).unwrap()), None);
        fs::write(dir.path().join("sub/file"), "two").unwrap();
        let second = survey(&top).unwrap();
        assert_eq!(first_difference(&first, &second), Some(b"/sub/file".to_vec()));
        fs::remove_file(dir.path().join("link")).unwrap();
        assert!(first_difference(&second, &survey(&top).unwrap()).is_some());
    }

    #[test]
    fn depth_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let deep = "d/".repeat(DEEPEST + 1);
        fs::create_dir_all(dir.path().join(deep)).unwrap();
        let top: OwnedFd = fs::File::open(dir.path()).unwrap().into();
        assert!(matches!(survey(&top), Err(NoSurvey::TooMuch)));
    }
}
