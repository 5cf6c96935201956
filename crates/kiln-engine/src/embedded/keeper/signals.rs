//! Signals, as something to wait for.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Blocks the signals that would end a process, and gives those that ask it to end as a descriptor.
///
/// A hangup says nothing to a keeper, which has no terminal. A keeper that is asked to end does so properly.
pub(super) fn requests_to_end() -> io::Result<OwnedFd> {
    // SAFETY: both sets are initialised by sigemptyset before they are used, and belong to this function.
    unsafe {
        let (mut blocked, mut heard) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&raw mut blocked);
        libc::sigemptyset(&raw mut heard);
        for signal in [libc::SIGTERM, libc::SIGINT] {
            libc::sigaddset(&raw mut blocked, signal);
            libc::sigaddset(&raw mut heard, signal);
        }
        libc::sigaddset(&raw mut blocked, libc::SIGHUP);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &raw const heard, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}
