//! Signals, as something to wait for.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// What a signal says to a keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is asked to end.
    End,
    /// Its holder is gone.
    HolderGone,
}

/// A keeper that is asked to end does so properly.
const REQUESTS_TO_END: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];
/// Sent by the kernel, because a keeper asks for it.
const HOLDER_GONE: libc::c_int = libc::SIGUSR1;

/// Blocks the signals that would end a process. A hangup says nothing to a keeper, which has no terminal; none of them
/// says anything to its holder.
pub(super) fn block() -> io::Result<()> {
    let blocked = set(&[REQUESTS_TO_END[0], REQUESTS_TO_END[1], HOLDER_GONE, libc::SIGHUP]);
    // SAFETY: the kernel reads one complete set and is told to write none.
    match unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The blocked signals that say something, as a descriptor.
pub(super) fn listen() -> io::Result<OwnedFd> {
    let heard = set(&[REQUESTS_TO_END[0], REQUESTS_TO_END[1], HOLDER_GONE]);
    // SAFETY: the kernel reads one complete set.
    match unsafe { libc::signalfd(-1, &raw const heard, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just made it, and nobody else owns it.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// The next signal that has come.
pub(super) fn hear(signals: &OwnedFd) -> Option<Heard> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    rustix::io::read(signals, &mut info).ok()?;
    let number = i32::from_ne_bytes(*info.first_chunk()?);
    Some(if number == HOLDER_GONE { Heard::HolderGone } else { Heard::End })
}

fn set(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: the set is initialised by sigemptyset before it is used, and belongs to this function.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}
