//! A connection to an instance, held by the request that uses it.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::answer::Framing;
use crate::connect;
use crate::course::{Again, Kept, Miss};
use crate::lease::{self, Lease};
use crate::upstream::Upstream;
use crate::worker::Worker;

/// One connection.
pub(crate) struct Line {
    stream: TcpStream,
    /// Whether a request went over it before.
    pub(super) was_kept: bool,
    /// Whether the instance takes nothing more.
    is_deaf: bool,
    pub(super) use_after: UseAfter,
}

/// What becomes of a connection when its answer has gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UseAfter {
    Next,
    None,
}

impl Line {
    /// A connection to `upstream`, kept or fresh.
    pub(super) async fn to(
        upstream: &Rc<Upstream>,
        worker: &Worker,
        kept: Kept,
        at_most_once: bool,
    ) -> Result<Self, Miss> {
        let use_after = UseAfter::Next;
        match upstream.take_bare(at_most_once).filter(|_| kept == Kept::Welcome) {
            Some(stream) => Ok(Self { stream, was_kept: true, is_deaf: false, use_after }),
            None => {
                let stream = Box::pin(connect::reach(upstream, worker)).await;
                let stream = stream.map_err(|refusal| Miss { refusal, again: Again::Elsewhere })?;
                Ok(Self { stream, was_kept: false, is_deaf: false, use_after })
            }
        }
    }

    /// Sends `bytes` from `sent` on.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        sent: &mut usize,
    ) -> Poll<io::Result<()>> {
        while *sent < bytes.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[*sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => *sent += length,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what there is behind what `bytes` has; a buffer is had only while there is something to be read.
    pub(super) fn poll_hear(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Vec<u8>,
        worker: &Worker,
    ) -> Poll<io::Result<usize>> {
        let heard = match self.stream.poll_read_ready(cx)? {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                if bytes.capacity() == 0 {
                    *bytes = worker.buffers.take();
                }
                pin!(self.stream.read_buf(bytes)).poll(cx)
            }
        };
        if heard.is_pending() && bytes.is_empty() {
            worker.buffers.give(std::mem::take(bytes));
        }
        match heard {
            // The end of a connection that was reset is the end of no answer.
            Poll::Ready(Ok(0)) if self.is_deaf => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            heard => heard,
        }
    }

    /// Nothing more can be sent; what was said before that is still there to be heard.
    pub(super) fn is_reset(&mut self) {
        (self.is_deaf, self.use_after) = (true, UseAfter::None);
    }

    /// What an answer with this framing leaves of it.
    pub(super) fn used_for(&mut self, framing: Framing, keeps: bool) {
        if !keeps || framing == Framing::Close {
            self.use_after = UseAfter::None;
        }
    }
}

/// What comes next of an answer.
pub(super) enum Came {
    More,
    End,
    /// The connection broke, or what it says is no body.
    Lost,
    /// The answer is to end.
    Told,
}

impl Lease<Line> {
    /// Waits for more of an answer, which is read behind what `bytes` has.
    pub(super) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Vec<u8>,
        worker: &Worker,
    ) -> Poll<Came> {
        let (line, ticket) = self.line();
        match line.poll_hear(cx, bytes, worker) {
            Poll::Ready(Ok(1..)) => Poll::Ready(Came::More),
            Poll::Ready(Ok(0)) => Poll::Ready(Came::End),
            Poll::Ready(Err(_)) => Poll::Ready(Came::Lost),
            Poll::Pending if ticket.poll_told(cx) => Poll::Ready(Came::Told),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Everything has come, and something more if it `is_over`: nobody is to get that.
    pub(super) fn has_all(mut self, is_over: bool) {
        if is_over {
            self.was_overlong();
            self.line().0.use_after = UseAfter::None;
        }
        self.complete();
    }

    /// Nothing more comes of an answer with this framing: whether the client may take what it has for whole.
    pub(super) fn has_no_more(self, why: &Came, framing: Framing, is_events: bool) -> bool {
        match (why, framing) {
            (Came::End, Framing::Close) => self.complete(),
            // Clients expect events to end and come again.
            (Came::Told, Framing::Chunks | Framing::Close) if is_events => self.ended(),
            _ => {
                self.cut_short();
                return false;
            }
        }
        true
    }
}

impl lease::Line for Line {
    fn keep(self, upstream: &Upstream, at_most: usize) {
        if self.use_after == UseAfter::Next {
            upstream.put_bare(self.stream, Instant::now(), at_most);
        }
    }
}
