//! One connection to a keeper, from the outside.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use zeroize::Zeroize;

use super::bell::{Bell, First};
use super::wire::{Answer, Call, Frame, Inbox, Received, Reply, Request, receive, send};

/// How long a keeper that works may take to answer what it does not wait with.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many keepers may end, one after the other, while they are asked one thing.
const KEEPERS_AT_ONCE: usize = 3;
/// How many idle connections are kept.
const MOST_IDLE: usize = 8;

/// Connections to one socket of a keeper. Each carries one request at a time, so that callers on several threads
/// do not wait for each other.
#[derive(Debug)]
pub(super) struct Lines {
    socket: PathBuf,
    idle: Mutex<Vec<Line>>,
}

impl Lines {
    /// Connections to `socket`, of which one is tried.
    pub(super) fn open(socket: &Path) -> io::Result<Self> {
        let first = Line::open(socket)?;
        Ok(Self { socket: socket.to_owned(), idle: Mutex::new(vec![first]) })
    }

    /// Asks, and waits for the answer.
    ///
    /// All that can be asked is safe to repeat, so a connection that broke, as when the keeper was killed or replaced,
    /// is replaced too: a new one waits until the next keeper admits it.
    pub(super) fn ask(&self, call: Call) -> io::Result<(Answer, Vec<OwnedFd>)> {
        self.ask_on_any(call, |line, request| line.ask(request, |_| Ok(())))
    }

    /// Asks for what may take `longer` than usual, and waits for the answer or until the bell rings: none then.
    pub(super) fn ask_until(
        &self,
        bell: &Bell,
        call: Call,
        longer: Duration,
    ) -> io::Result<Option<(Answer, Vec<OwnedFd>)>> {
        let wait = |stream: &UnixStream| match bell.wait(stream, PATIENCE.saturating_add(longer))? {
            First::Answer => Ok(()),
            // The answer to come is nobody's: the connection ends with it.
            First::Bell => Err(io::ErrorKind::Interrupted.into()),
            First::Nothing => Err(io::ErrorKind::TimedOut.into()),
        };
        match self.ask_on_any(call, |line, request| line.ask(request, wait)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(None),
            other => other.map(Some),
        }
    }

    fn ask_on_any<T>(
        &self,
        call: Call,
        ask: impl Fn(&mut Line, &mut Request) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut request = Request { number: 0, call };
        if let Some(mut line) = self.take_idle() {
            match ask(&mut line, &mut request) {
                Err(e) if is_broken(&e) => {}
                answered => return self.put_back(line, answered),
            }
        }
        for _ in 0..KEEPERS_AT_ONCE {
            let mut line = Line::open(&self.socket)?;
            match ask(&mut line, &mut request) {
                Err(e) if is_broken(&e) => {}
                answered => return self.put_back(line, answered),
            }
        }
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// Asks, waits for the answer, and then for the end of the keeper.
    pub(super) fn ask_last(&self, call: Call) -> io::Result<Answer> {
        let mut line = Line::open(&self.socket)?;
        let (answer, _) = line.ask(&mut Request { number: 0, call }, |_| Ok(()))?;
        line.wait_for_end()?;
        Ok(answer)
    }

    /// Asks for something that takes as long as it takes, and goes when the connection does.
    pub(super) fn begin(&self, call: Call, descriptors: &[OwnedFd]) -> io::Result<Begun> {
        begin(&self.socket, call, descriptors)
    }

    fn take_idle(&self) -> Option<Line> {
        self.idle.lock().expect("no panic while connections are moved").pop()
    }

    fn put_back<T>(&self, line: Line, answered: io::Result<T>) -> io::Result<T> {
        let mut idle = self.idle.lock().expect("no panic while connections are moved");
        // After an error it is not known what comes next on a connection.
        if answered.is_ok() && idle.len() < MOST_IDLE {
            idle.push(line);
        }
        answered
    }
}

/// Asks on a connection of its own, and does not wait for the answer.
pub(super) fn begin(socket: &Path, call: Call, descriptors: &[OwnedFd]) -> io::Result<Begun> {
    let mut line = Line::open(socket)?;
    line.say(Request { number: 1, call }, descriptors)?;
    Ok(Begun(line))
}

fn is_broken(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(e.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Something that was asked for, on a connection of its own.
#[derive(Debug)]
pub(super) struct Begun(Line);

impl Begun {
    /// Asks something else when the answer has come.
    pub(super) fn ask_again(&mut self, call: Call) -> io::Result<()> {
        self.0.last_number += 1;
        let number = self.0.last_number + 1;
        self.0.say(Request { number, call }, &[])
    }

    /// The answer, if it comes within `timeout`.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<Option<Answer>> {
        use io::ErrorKind::{TimedOut, WouldBlock};
        // None at all would mean to wait for ever.
        self.0.stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        match self.0.hear() {
            Ok((reply, _)) => Ok(Some(reply.answer)),
            Err(e) if matches!(e.kind(), WouldBlock | TimedOut) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Line {
    stream: UnixStream,
    inbox: Inbox,
    last_number: u64,
}

impl Line {
    fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, inbox: Inbox::default(), last_number: 0 })
    }

    /// Asks; `wait` returns when the answer begins.
    fn ask(
        &mut self,
        request: &mut Request,
        wait: impl FnOnce(&UnixStream) -> io::Result<()>,
    ) -> io::Result<(Answer, Vec<OwnedFd>)> {
        self.last_number += 1;
        request.number = self.last_number;
        let mut frame = Frame::of(request)?;
        self.stream.set_read_timeout(Some(PATIENCE))?;
        let written = io::Write::write_all(&mut self.stream, &frame.0);
        // There may have been secrets in it.
        frame.0.zeroize();
        written?;
        wait(&self.stream)?;
        let (reply, descriptors) = self.hear()?;
        if reply.number != self.last_number {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"));
        }
        Ok((reply.answer, descriptors))
    }

    /// Sends a request with descriptors, which arrive with its first byte.
    fn say(&mut self, request: Request, descriptors: &[OwnedFd]) -> io::Result<()> {
        let (frame, mut sent) = (Frame::of(&request)?.0, 0);
        while sent < frame.len() {
            sent += send(&self.stream, &frame[sent..], if sent == 0 { descriptors } else { &[] })?;
        }
        Ok(())
    }

    fn hear(&mut self) -> io::Result<(Reply, Vec<OwnedFd>)> {
        let (mut buffer, mut descriptors) = (vec![0; 64 << 10], Vec::new());
        loop {
            if let Some(reply) = self.inbox.next()? {
                return Ok((reply, descriptors));
            }
            match receive(&self.stream, &mut buffer, &mut descriptors) {
                Ok(Received { bytes: 0, .. }) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // No answer has more than fit, so it is this process that may have no more.
                Ok(Received { is_short: true, .. }) => {
                    return Err(io::Error::from_raw_os_error(libc::EMFILE));
                }
                Ok(Received { bytes, .. }) => self.inbox.take(&buffer[..bytes]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits until the other side is gone.
    fn wait_for_end(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(PATIENCE))?;
        match io::Read::read(&mut self.stream, &mut [0])? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
