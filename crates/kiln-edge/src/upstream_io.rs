//! The socket to an instance as hyper reads and writes it, and a way to look at it from outside.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustix::net::RecvFlags;
use tokio::net::TcpStream;

/// A connected socket, owned by the task that drives the connection.
pub(crate) struct UpstreamIo {
    io: TokioIo<TcpStream>,
    open: Arc<AtomicBool>,
    /// Whether the instance takes nothing more.
    is_deaf: bool,
}

/// Looks at a socket that a connection task owns.
pub(crate) struct Watch {
    fd: RawFd,
    open: Arc<AtomicBool>,
}

impl UpstreamIo {
    pub(crate) fn new(stream: TcpStream) -> (Self, Watch) {
        let open = Arc::new(AtomicBool::new(true));
        let watch = Watch { fd: stream.as_raw_fd(), open: open.clone() };
        (Self { io: TokioIo::new(stream), open, is_deaf: false }, watch)
    }

    /// What was written, unless that has failed. An instance that answers before the end of an upload and closes resets the
    /// connection, and what it has said is still there to be read: a failure to write waits until reading fails as well.
    fn wrote(&mut self, wrote: Poll<io::Result<usize>>, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        if matches!(wrote, Poll::Ready(Err(_))) {
            self.is_deaf = true;
            // Whoever reads is to look again.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        wrote
    }
}

impl Drop for UpstreamIo {
    fn drop(&mut self) {
        // Before the descriptor is closed: fields are dropped after this body.
        self.open.store(false, Relaxed);
    }
}

impl Watch {
    /// Whether the peer has neither closed nor said anything: the state in which an unused connection must be.
    ///
    /// The reactor may not have told hyper yet about a close that the kernel knows; this asks the kernel.
    pub(crate) fn is_quiet(&self) -> bool {
        if !self.open.load(Relaxed) {
            return false;
        }
        // SAFETY: the descriptor is open while `open` is true. It is closed only by the drop of the `UpstreamIo`,
        // which clears `open` first, and which happens on this thread (the task that owns it is local to the
        // thread, and so is whoever holds this value), hence not between the check and the call.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        is_silent(fd)
    }
}

/// Whether the other end of a socket has neither closed nor said anything, as the kernel knows.
pub(crate) fn is_silent(fd: BorrowedFd<'_>) -> bool {
    let mut byte = [0u8; 1];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(rustix::net::recv(fd, &mut byte, flags), Err(rustix::io::Errno::AGAIN))
}

impl Read for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_deaf {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        // SAFETY: the memory is only handed on to a reader that writes initialised bytes into it.
        let mut read = ReadBuf::uninit(unsafe { buf.as_mut() });
        ready!(Pin::new(&mut self.io).poll_read(cx, read.unfilled()))?;
        let length = read.filled().len();
        if length == 0 {
            // The end of a connection that was reset is the end of no answer.
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        // SAFETY: so many bytes of the same memory have just been filled.
        unsafe { buf.advance(length) };
        Poll::Ready(Ok(()))
    }
}

impl Write for UpstreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Pending;
        }
        let wrote = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(wrote, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Pending;
        }
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(wrote, cx)
    }
}
