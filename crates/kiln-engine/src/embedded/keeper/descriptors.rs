//! Descriptors that outlive a keeper.
//!
//! A keeper shares its table of descriptors with its holder, so that what it has opened stays open when it is killed.
//! The next one finds there what it is heir to: not by number, which says nothing, but by what it is.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{Dir, Mode, OFlags, fstat, open};
use serde::{Deserialize, Serialize};

/// What a descriptor leads to, as long as the system runs: no two processes, pipes or namespaces have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Mark(u64, u64);

impl Mark {
    /// Of nothing there is.
    pub(super) const NOTHING: Self = Self(0, 0);

    pub(super) fn of(fd: impl AsFd) -> io::Result<Self> {
        let stat = fstat(fd)?;
        Ok(Self(stat.st_dev, stat.st_ino))
    }

    pub(super) fn of_stat(stat: &rustix::fs::Stat) -> Self {
        Self(stat.st_dev, stat.st_ino)
    }
}

/// The numbers of all descriptors of this process.
pub(super) fn numbers() -> io::Result<BTreeSet<RawFd>> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = Dir::new(open("/proc/self/fd", flags, Mode::empty())?)?;
    let own = dir.fd()?.as_raw_fd();
    let mut numbers = BTreeSet::new();
    for entry in dir {
        numbers.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<RawFd>().ok()));
    }
    numbers.remove(&own);
    Ok(numbers)
}

/// Descriptors nobody in this process owns: a keeper before this one has left them. Those that are not taken are
/// closed with this value.
#[derive(Debug, Default)]
pub(super) struct Inheritance(HashMap<Mark, OwnedFd>);

impl Inheritance {
    /// All there are but the standard streams and `owned`.
    ///
    /// # Safety
    /// Whatever has an owner in this process is in `owned`.
    pub(super) unsafe fn collect(owned: &BTreeSet<RawFd>) -> io::Result<Self> {
        let mut found = HashMap::new();
        for number in numbers()?.difference(owned).filter(|n| **n > 2) {
            // SAFETY: it was open a moment ago, this process has one thread, and the caller says that it has no owner.
            let fd = unsafe { OwnedFd::from_raw_fd(*number) };
            // Of several that lead to the same one is enough: the others are closed here.
            found.insert(Mark::of(&fd)?, fd);
        }
        Ok(Self(found))
    }

    pub(super) fn take(&mut self, mark: Mark) -> Option<OwnedFd> {
        self.0.remove(&mark)
    }
}

/// Whether a descriptor is closed when this process executes another program.
pub(super) fn close_on_exec(fd: BorrowedFd<'_>, closes: bool) -> io::Result<()> {
    use rustix::io::{FdFlags, fcntl_setfd};
    Ok(fcntl_setfd(fd, if closes { FdFlags::CLOEXEC } else { FdFlags::empty() })?)
}

#[cfg(test)]
mod tests {
    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn a_mark_is_the_same_for_all_who_lead_there_and_for_nothing_else() {
        let ((a, b), (c, _d)) = (pipe().unwrap(), pipe().unwrap());
        let copy = a.try_clone().unwrap();
        assert_eq!(Mark::of(&a).unwrap(), Mark::of(&copy).unwrap());
        assert_eq!(Mark::of(&a).unwrap(), Mark::of(&b).unwrap(), "both ends are one pipe");
        assert_ne!(Mark::of(&a).unwrap(), Mark::of(&c).unwrap());
    }

    #[test]
    fn all_descriptors_are_found() {
        use std::os::fd::AsRawFd;
        let (a, b) = pipe().unwrap();
        let found = numbers().unwrap();
        assert!(found.contains(&a.as_raw_fd()) && found.contains(&b.as_raw_fd()));
    }
}
