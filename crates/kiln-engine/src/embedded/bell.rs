//! A bell: whoever rings it calls back another thread that waits for an answer, or will.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// It rings until it is heard.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

/// What there was first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// Something to read.
    Answer,
    /// The bell.
    Bell,
    /// The end of the time.
    Nothing,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn ring(&self) {
        // It can only be full of rings that nobody has heard yet.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until there is something to read from `stream`, unless the bell rings first.
    pub(super) fn wait(&self, stream: impl AsFd, at_most: Duration) -> io::Result<First> {
        let limit = Timespec::try_from(at_most).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let mut both = [PollFd::new(&stream, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut both, Some(&limit)) {
            // Nothing is lost: whoever waits asks again.
            Err(Errno::INTR) => return Ok(First::Bell),
            Err(e) => return Err(e.into()),
            Ok(_) => {}
        }
        if !both[1].revents().is_empty() {
            rustix::io::read(&self.0, &mut [0; 8])?;
            return Ok(First::Bell);
        }
        Ok(if both[0].revents().is_empty() { First::Nothing } else { First::Answer })
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn it_rings_once_and_an_answer_is_heard_as_well() {
        let (bell, (reader, writer)) = (Bell::new().unwrap(), pipe().unwrap());
        let wait = || bell.wait(&reader, Duration::ZERO).unwrap();
        assert_eq!(wait(), First::Nothing);
        bell.ring();
        bell.ring();
        assert_eq!([wait(), wait()], [First::Bell, First::Nothing]);
        rustix::io::write(&writer, b"a").unwrap();
        assert_eq!(wait(), First::Answer);
        bell.ring();
        assert_eq!([wait(), wait()], [First::Bell, First::Answer]);
    }
}
