//! What a keeper waits for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use kiln_model::OutputStream;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// Where something happened. Numbers are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Somebody knocks at a door.
    Door(u64),
    /// The keeper is asked to end by a signal.
    Signal,
    /// A conversation goes on.
    Conversation(u64),
    /// A child on its way has something to say.
    Launch(u64),
    /// A main process has ended.
    Main(u64),
    /// An instance has written something.
    Output(u64, OutputStream),
}

impl Source {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Source::Door(n) => (0, n),
            Source::Signal => (1, 0),
            Source::Conversation(n) => (2, n),
            Source::Launch(n) => (3, n),
            Source::Main(n) => (4, n),
            Source::Output(n, OutputStream::Stdout) => (5, n),
            Source::Output(n, OutputStream::Stderr) => (6, n),
        };
        number << 3 | kind
    }

    fn decode(data: u64) -> Self {
        let number = data >> 3;
        match data & 7 {
            0 => Source::Door(number),
            1 => Source::Signal,
            2 => Source::Conversation(number),
            3 => Source::Launch(number),
            4 => Source::Main(number),
            5 => Source::Output(number, OutputStream::Stdout),
            _ => Source::Output(number, OutputStream::Stderr),
        }
    }
}

/// An epoll instance.
#[derive(Debug)]
pub(super) struct Poll(OwnedFd);

/// How many events one turn takes.
const AT_ONCE: usize = 128;

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Waits for `fd` to become readable from now on.
    pub(super) fn add(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, EventData::new_u64(source.encode()), EventFlags::IN)?)
    }

    /// Waits for something else of `fd`; its end is always waited for.
    pub(super) fn change(&self, fd: impl AsFd, source: Source, wanted: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, EventData::new_u64(source.encode()), wanted)?)
    }

    /// Waits for `fd` no more. To be called before it is closed: children that have not executed their program yet
    /// have copies of it, and as long as one copy is open its events would keep coming.
    pub(super) fn remove(&self, fd: impl AsFd) {
        // It was added, so this cannot fail.
        let _ = epoll::delete(&self.0, fd);
    }

    /// What happened; waits for it up to `timeout`.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Source>> {
        let timeout = timeout.map(|t| Timespec::try_from(t).unwrap_or(Timespec { tv_sec: 60, tv_nsec: 0 }));
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); AT_ONCE];
        match epoll::wait(&self.0, &mut space, timeout.as_ref()) {
            Ok((events, _)) => Ok(events.iter().map(|e| Source::decode(e.data.u64())).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_kernel() {
        use OutputStream::{Stderr, Stdout};
        let n = 1 << 40;
        for source in [
            Source::Door(1),
            Source::Signal,
            Source::Conversation(n),
            Source::Launch(n),
            Source::Main(n),
            Source::Output(n, Stdout),
            Source::Output(n, Stderr),
        ] {
            assert_eq!(Source::decode(source.encode()), source);
        }
    }
}
