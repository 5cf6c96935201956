//! How whoever starts a keeper learns that it works.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::pipe::{PipeFlags, pipe_with};

use super::KeeperError;
use super::descriptors::Mark;

/// The end of whoever waits.
#[derive(Debug)]
pub(super) struct Ready(OwnedFd);

/// The end of whoever is waited for.
#[derive(Debug)]
pub(super) struct IsReady(pub(super) OwnedFd);

impl Ready {
    pub(super) fn new() -> io::Result<(Self, IsReady)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Self(reader), IsReady(writer)))
    }

    /// Returns when the keeper works.
    pub(super) fn wait(self, run_dir: &Path) -> Result<(), KeeperError> {
        let told = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut [0]));
        match told {
            Ok(1) => Ok(()),
            Ok(_) => {
                let log = run_dir.join("keeper.log");
                let why = io::Error::other(format!("it ended at once; {} may tell why", log.display()));
                Err(KeeperError::new("begin its work", why))
            }
            Err(e) => Err(KeeperError::new("wait until it works", e)),
        }
    }
}

impl IsReady {
    /// As a number, which each keeper of a holder has a copy of; the first uses it up.
    pub(super) fn into_parts(self) -> (RawFd, Mark) {
        let mark = Mark::of(&self.0);
        // A descriptor whose mark cannot be had is none anybody has.
        (self.0.into_raw_fd(), mark.unwrap_or(Mark::NOTHING))
    }

    /// The descriptor, unless a keeper before has used it up.
    pub(super) fn again(number: RawFd, mark: Mark) -> Option<Self> {
        // SAFETY: looking at what the number means now disturbs nothing, whoever owns it.
        let now = Mark::of(unsafe { BorrowedFd::borrow_raw(number) });
        // SAFETY: it still is what this process, or the one it is a copy of, has given up for its number.
        (now.ok() == Some(mark)).then(|| Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    pub(super) fn tell(self) {
        // If nobody waits any more, nobody need know.
        let _ = rustix::io::write(&self.0, b"r");
    }
}
