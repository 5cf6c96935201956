//! One output of one instance.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use kiln_model::{InstanceId, OutputStream, OutputTime};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, openat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::OutputDir;
use super::lines::Lines;

/// The reading end of a pipe an instance writes to.
#[derive(Debug)]
pub(crate) struct OutputPipe {
    reader: OwnedFd,
    lines: Lines,
}

/// What one look at a pipe takes at most, so that one instance that writes without end does not keep others waiting:
/// as much as a pipe holds.
const ONE_TURN: usize = 64 << 10;

impl OutputPipe {
    /// A pipe; the second value is the end to write to. `proc` is /proc.
    ///
    /// Whoever writes holds it open for reading too. So a pipe outlives its keeper: a write waits when the pipe is
    /// full, and is never answered with SIGPIPE, until the next keeper finds it.
    pub(crate) fn new(stream: OutputStream, proc: BorrowedFd<'_>) -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let path = format!("self/fd/{}", writer.as_raw_fd());
        let writer = openat(proc, path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        // The reader alone: programs do not expect their output to be non-blocking.
        fcntl_setfl(&reader, fcntl_getfl(&reader)? | OFlags::NONBLOCK)?;
        Ok((Self::adopt(stream, reader), writer))
    }

    /// The reading end of a pipe of a keeper before this one.
    pub(crate) fn adopt(stream: OutputStream, reader: OwnedFd) -> Self {
        Self { reader, lines: Lines::new(stream) }
    }

    /// What becomes readable when there is output, and at its end.
    pub(crate) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Keeps some of what has been written. True at the end of it.
    ///
    /// Output that cannot be kept (no space) is lost: an instance that cannot log goes on serving.
    pub(crate) fn turn(&mut self, id: &InstanceId, dir: &OutputDir) -> bool {
        let mut buffer = [0; ONE_TURN];
        let mut lines = Vec::new();
        let is_over = match rustix::io::read(&self.reader, &mut buffer) {
            Ok(0) => {
                self.lines.finish(now(), &mut lines);
                true
            }
            Ok(length) => {
                self.lines.take(&buffer[..length], now(), &mut lines);
                false
            }
            Err(e) => !matches!(e, Errno::AGAIN | Errno::INTR),
        };
        if !lines.is_empty() {
            let _ = dir.append(id, &lines);
        }
        is_over
    }
}

fn now() -> OutputTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    OutputTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
