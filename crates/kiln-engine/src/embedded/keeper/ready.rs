//! How whoever starts a keeper learns that it works.

use std::io;
use std::mem::ManuallyDrop;
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
    ///
    /// # Errors
    /// Why it does not; then it has ended, and its holder as well.
    pub(super) fn wait(self, run_dir: &Path) -> Result<(), KeeperError> {
        let (mut told, mut piece) = (Vec::new(), [0; 512]);
        loop {
            match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut piece)) {
                Ok(0) => break,
                Ok(length) => told.extend_from_slice(&piece[..length]),
                Err(e) => return Err(KeeperError::new("wait until it works", e)),
            }
            if told.first() == Some(&WORKS) {
                return Ok(());
            }
        }
        Err(failure(&told).unwrap_or_else(|| {
            let log = run_dir.join("keeper.log");
            let why = io::Error::other(format!("it ended at once; {} may tell why", log.display()));
            KeeperError::new("begin its work", why)
        }))
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

    /// Whether no keeper has used it up: then none has ever worked.
    pub(super) fn is_unused(number: RawFd, mark: Mark) -> bool {
        // Dropped, it would be closed for whoever else has a copy.
        Self::again(number, mark).map(ManuallyDrop::new).is_some()
    }

    pub(super) fn tell(self) {
        // If nobody waits any more, nobody need know.
        let _ = rustix::io::write(&self.0, &[WORKS]);
    }

    /// That there will be no keeper, and why. It stays unused.
    pub(super) fn tell_failure(self, why: &KeeperError) {
        let this = ManuallyDrop::new(self);
        let (number, text) = match why {
            KeeperError::System { attempted, source } => {
                (source.raw_os_error(), format!("{attempted}\0{source}"))
            }
            other => (None, format!("begin its work\0{other}")),
        };
        let told = [&[FAILED][..], &number.unwrap_or(0).to_ne_bytes(), text.as_bytes()].concat();
        let _ = rustix::io::write(&this.0, &told);
    }
}

/// What is told first.
const WORKS: u8 = b'r';
const FAILED: u8 = b'f';

/// The error that was told: its number, what was attempted, and the error in words.
fn failure(told: &[u8]) -> Option<KeeperError> {
    let (number, text) = told.strip_prefix(&[FAILED])?.split_first_chunk::<4>()?;
    let text = String::from_utf8_lossy(text);
    let (attempted, words) = text.split_once('\0')?;
    let source = match i32::from_ne_bytes(*number) {
        0 => io::Error::other(words),
        number => io::Error::from_raw_os_error(number),
    };
    Some(KeeperError::new(attempted, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_keeper_could_not_do_is_told_to_who_started_it() {
        let error = |source| KeeperError::new("open /nowhere", source);
        for why in [error(io::Error::from_raw_os_error(libc::EMFILE)), error(io::Error::other("no reason"))] {
            let (ready, is_ready) = Ready::new().unwrap();
            let (number, mark) = is_ready.into_parts();
            IsReady::again(number, mark).unwrap().tell_failure(&why);
            assert!(IsReady::is_unused(number, mark), "its holder sees that none has worked");
            drop(IsReady::again(number, mark));
            let (KeeperError::System { attempted, source }, KeeperError::System { source: told, .. }) =
                (ready.wait(Path::new("/run")).unwrap_err(), why)
            else {
                panic!("another kind of error")
            };
            assert_eq!((attempted.as_str(), source.raw_os_error()), ("open /nowhere", told.raw_os_error()));
            assert_eq!(source.to_string(), told.to_string());
        }
        let (ready, is_ready) = Ready::new().unwrap();
        is_ready.tell();
        ready.wait(Path::new("/run")).unwrap();
        let (ready, is_ready) = Ready::new().unwrap();
        drop(is_ready);
        assert!(ready.wait(Path::new("/run")).unwrap_err().to_string().contains("begin its work"));
    }
}
