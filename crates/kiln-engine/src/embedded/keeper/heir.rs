//! From one program to the next, without letting go of anything.
//!
//! A process that holds the table of descriptors alone executes a program with the same arguments. What belongs to
//! instances stays open; the lock and the doors are named in the environment; everything else is closed, and made anew
//! by the program. It happens when a keeper is to be continued by a newer program, and when a holder was killed.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::descriptors::{close_on_exec, numbers};

/// What names the inheritance: the numbers of the lock and of both doors.
const VARIABLE: &str = "KILN_KEEPER_INHERITS";

/// What a keeper leaves to whoever goes on.
#[derive(Debug, Clone)]
pub(super) struct Estate {
    /// The lock and the doors.
    pub(super) named: [RawFd; 3],
    /// What is made anew.
    pub(super) own: BTreeSet<RawFd>,
}

/// What was inherited, but for what belongs to instances.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) lock: OwnedFd,
    pub(super) doors: [OwnedFd; 2],
}

impl Named {
    /// What the process that executed this program has left to it, if it was a keeper or its holder.
    pub(super) fn from_environment() -> io::Result<Option<Self>> {
        std::env::var_os(VARIABLE).map(|names| Self::parse(&names)).transpose()
    }

    fn parse(names: &OsStr) -> io::Result<Self> {
        let numbers: Option<Vec<RawFd>> =
            names.to_str().and_then(|n| n.split(',').map(|n| n.parse().ok()).collect());
        let Some([lock, control, broker]) = numbers.as_deref() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{VARIABLE} is not three numbers"),
            ));
        };
        Ok(Self { lock: take(*lock)?, doors: [take(*control)?, take(*broker)?] })
    }
}

fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: whether it is open is asked right here; if it is, it was left for this process by the one before, and
    // nothing in this program owns a descriptor yet that it was not given.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    close_on_exec(fd, true)?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Executes `program` with the arguments of this process. Returns only if that fails, and then nothing has changed.
pub(super) fn become_holder(program: &Path, estate: &Estate) -> io::Error {
    let stays = |number: &RawFd| !estate.own.contains(number) || estate.named.contains(number);
    let all: Vec<RawFd> = match numbers() {
        Ok(all) => all.into_iter().filter(|n| *n > 2 && stays(n)).collect(),
        Err(e) => return e,
    };
    let mark_all = |closes: bool| {
        for number in &all {
            // SAFETY: it was open a moment ago, and this process has one thread.
            let _ = close_on_exec(unsafe { BorrowedFd::borrow_raw(*number) }, closes);
        }
    };
    mark_all(false);
    let why = execute(program, &estate.named);
    mark_all(true);
    why
}

fn execute(program: &Path, named: &[RawFd; 3]) -> io::Error {
    let names = named.map(|n| n.to_string()).join(",");
    let text = |text: &OsStr| CString::new(text.as_bytes()).unwrap_or_default();
    let arguments: Vec<CString> = std::env::args_os().map(|a| text(&a)).collect();
    let variable = text(&OsString::from(format!("{VARIABLE}={names}")));
    let argv: Vec<_> = arguments.iter().map(|a| a.as_ptr()).chain([std::ptr::null()]).collect();
    let envp = [variable.as_ptr(), std::ptr::null()];
    // SAFETY: both lists end with a null pointer and point to texts that live until the end of this function. The
    // signals that are blocked stay blocked, which `Command` would change.
    unsafe { libc::execve(text(program.as_os_str()).as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// The number of a descriptor, to be left to others.
pub(super) fn number(fd: impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_open_descriptors_is_refused() {
        for names in ["", "1", "1,2,3", "3,4", "90000,90001,90002", "x,y,z", "-1,-1,-1", "3,4,5,6"] {
            assert!(Named::parse(OsStr::new(names)).is_err(), "{names}");
        }
    }
}
