//! The process that outlives a keeper.
//!
//! ```text
//!   holder ──── shares its descriptors, and waits ──── keeper ──── instances
//! ```
//! A holder does nothing but wait for the end of its keeper, and then makes the next one. The two share one table of
//! descriptors: everything a keeper has opened — pidfds, the pipes its instances write to, its doors — stays open when
//! it is killed, at no cost and without a word between them. What it was about is in the journal. Its instances
//! become children of the holder, which waits for those that end, so that how they did is not lost.
//!
//! A holder that is killed is missed by its keeper, which executes its own program again and thereby becomes a holder
//! (`heir`), with another keeper as its child. So either may be killed, and only who kills both at the same moment
//! closes the descriptors; then the pipes live on in the instances, and the next keeper finds them there.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::descriptors::Mark;
use super::journal::Left;
use super::ready::IsReady;
use super::{KeeperError, heir};

/// Which of the two this process is now.
pub(super) enum Role {
    /// A keeper.
    Keeper,
    /// The holder of a keeper that has ended properly.
    HolderOfNothing,
}

/// A keeper that has lived this long was not killed by what it found.
const LONG_ENOUGH: Duration = Duration::from_secs(2);
/// How long a holder waits before it makes the next keeper after the nth that was not.
const PAUSES_MS: [i64; 6] = [0, 0, 20, 100, 500, 2000];

/// Makes keepers until one ends properly. `estate` is what a successor is to be left, `ready` what the first uses up
/// when it works: if it does not, whoever waits for that hears why, and there is no second.
///
/// Returns in each keeper, which is a copy of this process that shares its descriptors, and in the end here.
pub(super) fn hold(
    run_dir: &Path,
    estate: &heir::Estate,
    ready: Option<(RawFd, Mark)>,
) -> Result<Role, KeeperError> {
    rustix::process::set_child_subreaper(Pid::from_raw(1))
        .map_err(|e| KeeperError::new("become the parent of orphans", e))?;
    let mut short_lives = 0;
    loop {
        let begun = Instant::now();
        let keeper = copy_with_shared_descriptors().map_err(|e| KeeperError::new("make a keeper", e))?;
        let Some(keeper) = keeper else { return Ok(Role::Keeper) };
        wait_for(keeper).map_err(|e| KeeperError::new("wait for its keeper", e))?;
        if ready.is_some_and(|(number, mark)| IsReady::is_unused(number, mark)) {
            return Ok(Role::HolderOfNothing);
        }
        match Left::read(run_dir).map_err(|e| KeeperError::new("read what its keeper left", e))? {
            Left::Nothing => return Ok(Role::HolderOfNothing),
            Left::Unfinished(past) => {
                if let Some(program) = past.successor {
                    let why = heir::become_holder(&program, estate);
                    complain(&format!("could not execute {}: {why}\n", program.display()));
                }
            }
        }
        short_lives = if begun.elapsed() < LONG_ENOUGH { short_lives + 1 } else { 0 };
        pause(PAUSES_MS[short_lives.min(PAUSES_MS.len() - 1)]);
    }
}

/// Asks for a signal when the holder is gone. If it is already, it is sent now.
pub(super) fn miss_holder(holder: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::USR1))?;
    if getppid() != Some(holder) {
        rustix::process::kill_process(rustix::process::getpid(), Signal::USR1)?;
    }
    Ok(())
}

/// As `fork`, but for the descriptors; none in the copy.
fn copy_with_shared_descriptors() -> io::Result<Option<Pid>> {
    // SAFETY: all zeroes is a valid value of this plain struct, and means "nothing special".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = libc::CLONE_FILES as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: this process has one thread, so the copy of its memory is whole. What it shares are descriptors: here
    // none is used while there is a keeper, and each keeper begins with those there were before the first.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid as i32)),
    }
}

/// Waits for the end of a keeper, and for everything else that ends meanwhile.
fn wait_for(keeper: Pid) -> io::Result<()> {
    loop {
        // SAFETY: waitpid allows a null pointer for what it would tell.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL) } {
            pid if pid == keeper.as_raw_nonzero().get() => return Ok(()),
            -1 => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            },
            _ => {}
        }
    }
}

fn pause(millis: i64) {
    let time = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
    // Cut short by a signal it does no harm.
    let _ = poll(&mut [], Some(&time));
}

/// To the log: there is nobody else to tell.
pub(super) fn complain(text: &str) {
    // SAFETY: standard error is open as long as this process lives.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let _ = rustix::io::write(stderr, text.as_bytes());
}
