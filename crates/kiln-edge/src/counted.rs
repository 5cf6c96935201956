//! A client's connection to a port that is passed on, and what goes through it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::metrics::OpenConnection;

/// A connection of which each byte is counted as it comes and goes: it may be open for weeks.
pub(crate) struct Counted {
    stream: TcpStream,
    open: OpenConnection,
}

impl Counted {
    pub(crate) fn new(stream: TcpStream, open: OpenConnection) -> Self {
        Self { stream, open }
    }
}

impl AsyncRead for Counted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, open } = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(stream).poll_read(cx, buf);
        open.received(buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, open } = self.get_mut();
        let written = Pin::new(stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = &written {
            open.sent(*length);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
