//! The socket to a client as hyper reads and writes it, and the marks by which an overdue client is known.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use crate::Limits;
use crate::farewell::Farewell;
use crate::head_check::HeadCheck;

const RESTING: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// Requests one after the other, several at once, or bytes that are no HTTP any more.
const IN_TURN: u8 = 0;
const AT_ONCE: u8 = 1;
const TUNNEL: u8 = 2;

/// What a client connection does, and since when. One walk over these every so often replaces a timer per connection
/// (a boxed one in hyper, set and reset with each request).
///
/// Only one thread ever touches one value; atomics are what makes the socket `Send`, which upgrades ask for.
#[derive(Debug)]
pub(crate) struct Marks {
    epoch: Instant,
    phase: AtomicU8,
    since: AtomicU64,
    /// When the client first refused to take more of an answer; 0 while it takes.
    stalled: AtomicU64,
    /// Whether closing the connection in good order would make half an answer look whole.
    cut: AtomicBool,
    /// Heads that have become requests.
    heads: AtomicU32,
    /// Which of them is not to be answered; 0 if none.
    refused: AtomicU32,
    /// Requests in flight on it.
    requests: AtomicU32,
    /// How the head begins that was under way at the end of the connection.
    unread: OnceLock<Box<[u8]>>,
    /// What it carries; where several requests may be under way at once bytes are no sign of a new one.
    carries: AtomicU8,
}

impl Marks {
    pub(crate) fn new(epoch: Instant) -> Arc<Self> {
        let now = epoch.elapsed().as_millis() as u64;
        let (phase, stalled) = (AtomicU8::new(RESTING), AtomicU64::new(0));
        let (cut, carries) = (AtomicBool::new(false), AtomicU8::new(IN_TURN));
        let (heads, refused, requests, unread) = Default::default();
        let since = AtomicU64::new(now);
        Arc::new(Self { epoch, phase, since, stalled, cut, heads, refused, requests, unread, carries })
    }

    /// Something is awaited from the client that does not take long: a handshake, the rest of a header.
    pub(crate) fn expect(&self) {
        self.enter(HEAD);
    }

    /// What was expected has come.
    pub(crate) fn settled(&self) {
        self.enter(RESTING);
    }

    /// From now on several requests may be under way at once.
    pub(crate) fn multiplex(&self) {
        self.carries.store(AT_ONCE, Relaxed);
        self.enter(RESTING);
    }

    /// From now on each direction ends by itself.
    pub(crate) fn becomes_a_tunnel(&self) {
        self.carries.store(TUNNEL, Relaxed);
    }

    /// Whether the client is listened to when it has been told everything.
    fn ends_in_good_order(&self) -> bool {
        self.carries.load(Relaxed) != TUNNEL && !self.cut.load(Relaxed)
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Relaxed);
        self.since.store(self.now(), Relaxed);
    }

    /// A request has been read.
    pub(crate) fn busy(&self) {
        // No time needed: nothing bounds this phase as a whole.
        self.phase.store(BUSY, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.heads.fetch_add(1, Relaxed);
    }

    /// Its answer is given.
    pub(crate) fn rest(&self) {
        if self.requests.fetch_sub(1, Relaxed) == 1 {
            self.enter(RESTING);
        }
    }

    /// The answer under way has been cut, and only a reset will tell the client so: for HTTP/1.0 the end of the
    /// connection is the end of the answer.
    pub(crate) fn reset_at_end(&self) {
        self.cut.store(true, Relaxed);
    }

    pub(crate) fn bytes_came(&self) {
        if self.phase.load(Relaxed) == RESTING && !self.is_multiplexed() {
            self.enter(HEAD);
        }
    }

    /// Whether the head that has just become a request can be understood in two ways.
    pub(crate) fn was_ambiguous(&self) -> bool {
        let refused = self.refused.load(Relaxed);
        refused != 0 && refused == self.heads.load(Relaxed)
    }

    /// How the head begins at which the connection has ended, as far as that is known.
    pub(crate) fn unread(&self) -> Option<&[u8]> {
        self.unread.get().map(|start| &**start)
    }

    fn wrote(&self, ok: bool) {
        match (ok, self.stalled.load(Relaxed)) {
            (true, 0) => {}
            (true, _) => self.stalled.store(0, Relaxed),
            (false, 0) => self.stalled.store(self.now().max(1), Relaxed),
            (false, _) => {}
        }
    }

    /// Whether the client takes nothing of what waits for it.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed) != 0
    }

    pub(crate) fn is_multiplexed(&self) -> bool {
        self.carries.load(Relaxed) == AT_ONCE
    }

    /// Whether nothing is to come from the client, or to be taken by it.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.phase.load(Relaxed) == RESTING && self.stalled.load(Relaxed) == 0
    }

    /// Whether the client has overstepped one of `limits`.
    pub(crate) fn is_overdue(&self, limits: &Limits) -> bool {
        let now = self.now();
        let longer = |since: u64, limit: Duration| now.saturating_sub(since) > limit.as_millis() as u64;
        let stalled = self.stalled.load(Relaxed);
        let since = self.since.load(Relaxed);
        let phase_overdue = match self.phase.load(Relaxed) {
            RESTING => longer(since, limits.keep_alive),
            HEAD => longer(since, limits.header_read),
            _ => false,
        };
        phase_overdue || stalled != 0 && longer(stalled, limits.client_stall)
    }
}

/// What carries the bytes.
pub(crate) enum Transport {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Transport {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(io) => io.inner(),
            Self::Tls(io) => io.inner().get_ref().0,
        }
    }
}

/// A client's socket.
pub(crate) struct ClientIo {
    io: Transport,
    marks: Arc<Marks>,
    check: HeadCheck,
    /// What was read and given back, to be read again.
    again: Vec<u8>,
    /// From when on nothing more is said.
    farewell: Option<Farewell>,
}

impl ClientIo {
    pub(crate) fn plain(stream: TcpStream, marks: Arc<Marks>) -> Self {
        Self {
            io: Transport::Plain(TokioIo::new(stream)),
            marks,
            check: HeadCheck::default(),
            again: Vec::new(),
            farewell: None,
        }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>, marks: Arc<Marks>) -> Self {
        Self {
            io: Transport::Tls(Box::new(TokioIo::new(stream))),
            marks,
            check: HeadCheck::default(),
            again: Vec::new(),
            farewell: None,
        }
    }

    /// Takes note of what was read.
    fn note(&mut self, bytes: &[u8]) {
        self.marks.bytes_came();
        if !self.marks.is_multiplexed() {
            self.check.pass(bytes);
            if let Some(head) = self.check.refused() {
                self.marks.refused.store(head, Relaxed);
            }
        }
    }

    /// Gives back what was read without taking note.
    pub(crate) fn give_back(&mut self, bytes: Vec<u8>) {
        // Of the heads that are looked at twice it is the first.
        self.marks.heads.store(0, Relaxed);
        self.again = bytes;
    }

    /// Takes what was given back.
    pub(crate) fn given_back(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.again)
    }

    /// Reads without taking note, behind what `buffer` has.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Transport::Plain(io) => pin!(io.inner_mut().read_buf(buffer)).poll(cx),
            Transport::Tls(io) => pin!(io.inner_mut().read_buf(buffer)).poll(cx),
        }
    }

    /// Whether it is known without a buffer that there is nothing to be read; then the task is woken when there is.
    pub(crate) fn has_nothing(&self, cx: &mut Context<'_>) -> bool {
        match &self.io {
            Transport::Plain(io) => io.inner().poll_read_ready(cx).is_pending(),
            Transport::Tls(_) => false,
        }
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        let next = self.marks.heads.load(Relaxed).saturating_add(1);
        if let Some(start) = self.check.start_of(next) {
            let _ = self.marks.unread.set(start.into());
        }
        if self.marks.cut.load(Relaxed) {
            // If it fails the client is gone, and nobody is misled.
            let _ = rustix::net::sockopt::set_socket_linger(self.io.socket(), Some(Duration::ZERO));
        }
    }
}

/// Calls the same method on whichever transport there is.
macro_rules! carried {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match &mut $self.io {
            Transport::Plain(io) => Pin::new(io).$method($($argument),*),
            Transport::Tls(io) => Pin::new(&mut **io).$method($($argument),*),
        }
    };
}

impl Read for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.again.is_empty() {
            let length = self.again.len().min(buf.remaining());
            let bytes: Vec<u8> = self.again.drain(..length).collect();
            self.note(&bytes);
            buf.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        // SAFETY: the memory is only handed on to a reader that writes initialised bytes into it.
        let mut read = ReadBuf::uninit(unsafe { buf.as_mut() });
        ready!(carried!(self.poll_read(cx, read.unfilled())))?;
        self.note(read.filled());
        let length = read.filled().len();
        // SAFETY: so many bytes of the same memory have just been filled.
        unsafe { buf.advance(length) };
        Poll::Ready(Ok(()))
    }
}

impl Write for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = carried!(self.poll_write(cx, buf));
        self.marks.wrote(wrote.is_ready());
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = carried!(self.poll_flush(cx));
        self.marks.wrote(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            ready!(carried!(self.poll_shutdown(cx)))?;
            if !self.marks.ends_in_good_order() {
                return Poll::Ready(Ok(()));
            }
        }
        let this = &mut *self;
        let farewell = this.farewell.get_or_insert_with(Farewell::begin);
        farewell.poll(this.io.socket(), cx).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Transport::Plain(io) => io.is_write_vectored(),
            Transport::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = carried!(self.poll_write_vectored(cx, bufs));
        self.marks.wrote(wrote.is_ready());
        wrote
    }
}
