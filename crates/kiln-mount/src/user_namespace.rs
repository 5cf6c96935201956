//! An id map, as the kernel wants it: a user namespace.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::MountError;
use crate::error::on;

/// Ids inside a user namespace and the ids of the host they stand for; the same for users and groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// The first id on the host.
    pub outside: u32,
    /// How many follow each other.
    pub count: u32,
}

/// A user namespace without processes, kept alive by its descriptor.
#[derive(Debug)]
pub struct UserNamespace {
    fd: OwnedFd,
    maps: Vec<IdRange>,
}

impl UserNamespace {
    /// Makes a user namespace with the given maps.
    ///
    /// A namespace comes into being only with a process inside it: one is made, paused, mapped from outside, and
    /// gone again before this returns.
    ///
    /// # Errors
    /// If the kernel refuses to make a user namespace (limits, policy) or the maps (empty, overlapping, more than
    /// 340 ranges).
    pub fn new(maps: &[IdRange]) -> Result<Self, MountError> {
        if maps.is_empty() {
            // Without a map no id means anything inside, and mounts cannot be seen through it.
            let source = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(MountError::new("make a user namespace without ids", source));
        }
        let child =
            PausedChild::spawn().map_err(|e| MountError::new("make a process in a new user namespace", e))?;
        let proc = format!("/proc/{}", child.pid);
        let map: String = maps.iter().map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count)).collect();
        for file in ["uid_map", "gid_map"] {
            let path = Path::new(&proc).join(file);
            fs::write(&path, &map).map_err(on("write the id map", &path))?;
        }
        let path = Path::new(&proc).join("ns/user");
        let namespace = fs::File::open(&path).map_err(on("open the user namespace", &path))?;
        Ok(Self { fd: namespace.into(), maps: maps.to_vec() })
    }

    /// The id inside that the id `outside` of the host stands for, if it is mapped.
    pub fn inside(&self, outside: u32) -> Option<u32> {
        let covers = |m: &&IdRange| outside.checked_sub(m.outside).is_some_and(|n| n < m.count);
        self.maps.iter().find(covers).map(|m| m.inside + (outside - m.outside))
    }
}

impl AsFd for UserNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A copy of this process in a new user namespace that does nothing. Its number stays valid until it is dropped,
/// because only then it is reaped.
struct PausedChild {
    pid: libc::pid_t,
    pidfd: OwnedFd,
}

impl PausedChild {
    fn spawn() -> io::Result<Self> {
        let mut pidfd: libc::c_int = -1;
        let parent = rustix::process::getpid().as_raw_nonzero().get();
        // SAFETY: all zeroes is a valid value of this plain struct, and means "nothing special".
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = (libc::CLONE_NEWUSER | libc::CLONE_PIDFD) as u64;
        arguments.pidfd = &raw mut pidfd as u64;
        // No exit signal: whoever handles SIGCHLD or waits for any child of this process does not see ours.
        // SAFETY: without CLONE_VM the child has its own copy of memory and stack, like after fork; other threads may
        // hold locks in that copy, and the child takes none: it makes raw system calls only and never returns.
        let pid =
            unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => pause_while_child_of(parent),
            // SAFETY: the kernel has just stored a new descriptor there, which nobody else owns.
            pid => Ok(Self { pid: pid as libc::pid_t, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        }
    }
}

impl Drop for PausedChild {
    fn drop(&mut self) {
        // It cannot fail: the child exists until it is reaped, and is ours.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        while self.reap() == Err(Errno::INTR) {}
    }
}

impl PausedChild {
    /// Waits for its end; libc's call, because only that takes `__WALL`, without which the kernel does not speak of
    /// children that have no exit signal.
    fn reap(&self) -> Result<(), Errno> {
        let fd = self.pidfd.as_raw_fd() as libc::id_t;
        let nowhere = std::ptr::null_mut();
        // SAFETY: plain numbers, and waitid allows a null pointer for what it would tell.
        match unsafe { libc::waitid(libc::P_PIDFD, fd, nowhere, libc::WEXITED | libc::__WALL) } {
            0 => Ok(()),
            _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::CHILD)),
        }
    }
}

/// What the child does. It dies with the thread that made it, even if that is killed.
fn pause_while_child_of(parent: libc::pid_t) -> ! {
    // SAFETY: raw system calls with plain numbers, which is all that is allowed after a clone of a threaded process.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        // A parent that was gone before prctl no longer is the parent.
        while libc::syscall(libc::SYS_getppid) == libc::c_long::from(parent) {
            libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        }
        loop {
            libc::syscall(libc::SYS_exit_group, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: IdRange = IdRange { inside: 0, outside: 700_000, count: 65_536 };

    #[test]
    fn maps_the_kernel_refuses_are_errors_that_name_the_map() {
        let overlapping = [RANGE, IdRange { inside: 5, outside: 900_000, count: 1 }];
        let said = UserNamespace::new(&overlapping).unwrap_err().to_string();
        assert!(said.starts_with("could not write the id map /proc/"), "{said}");
        let said = UserNamespace::new(&[]).unwrap_err().to_string();
        assert_eq!(said, "could not make a user namespace without ids");
    }

    #[test]
    fn ids_of_the_host_lead_back_to_ids_inside() {
        let single = IdRange { inside: 65_534, outside: 10, count: 1 };
        let users = UserNamespace::new(&[IdRange { count: 1000, ..RANGE }, single]).unwrap();
        let looked_up = [699_999, 700_000, 700_999, 701_000, 10, 11].map(|id| users.inside(id));
        assert_eq!(looked_up, [None, Some(0), Some(999), None, Some(65_534), None]);
    }
}
