//! The body of an answer that comes without hyper, for a client whom hyper serves.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::{Bytes, Frame, SizeHint};

use super::answer::Framing;
use super::body::{Body, LARGE};
use super::chunks::Malformed;
use super::line::{Line, UseAfter};
use super::query::{Heard, Rest};
use crate::body::BrokenOff;
use crate::lease::{Lease, Place};
use crate::worker::Worker;

/// So few bytes are copied, so that their buffer can be used again.
const FEW: usize = 4 * 1024;

/// What is still to come of an answer.
pub(crate) struct Tail {
    worker: Rc<Worker>,
    body: Body,
    rest: Rest,
    /// Until everything has come.
    lease: Option<Lease<Line>>,
}

/// What comes next from an instance.
enum Came {
    More,
    End,
    /// The connection broke, or what it says is no body.
    Lost,
    /// The answer is to end.
    Told,
}

impl Tail {
    /// The head of an answer, and what follows it.
    pub(crate) fn of<H>(heard: Heard<H>, worker: Rc<Worker>, place: Place) -> (H, Box<Self>) {
        let Heard { line, rest, head, .. } = heard;
        let lease = Some(Lease::new(line, worker.limits.upstream_idle_count, place));
        let body = Body::of(rest.framing);
        (head, Box::new(Self { worker, body, rest, lease }))
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(lease) = &self.lease {
            lease.ticket().is_asked();
        }
        while self.lease.is_some() {
            match self.take() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(Malformed) => return Poll::Ready(self.end(&Came::Lost)),
            }
            match ready!(self.poll_more(cx)) {
                Came::More => {}
                ended => return Poll::Ready(self.end(&ended)),
            }
        }
        Poll::Ready(None)
    }

    /// Takes the data out of what was read.
    fn take(&mut self) -> Result<Bytes, Malformed> {
        let (bytes, at) = (std::mem::take(&mut self.rest.bytes), std::mem::take(&mut self.rest.at));
        let is_one_piece = matches!(self.rest.framing, Framing::Length(_) | Framing::Close);
        let is_copied = !is_one_piece || bytes.len() - at <= FEW;
        let mut copy = Vec::new();
        let piece = self.body.take(&bytes[at..], |data| {
            if is_copied {
                copy.extend_from_slice(data);
            }
        })?;
        let is_over = at + piece.used < bytes.len();
        let is_much = bytes.len() == bytes.capacity();
        let data = if is_copied {
            self.worker.buffers.give(bytes);
            copy.into()
        } else {
            Bytes::from(bytes).slice(at..at + piece.used)
        };
        if let Some(lease) = &mut self.lease {
            lease.passed(piece.data);
            lease.ticket().gave();
        }
        if piece.is_last {
            self.finish(is_over);
        } else if is_much {
            self.rest.bytes = Vec::with_capacity(LARGE);
        }
        Ok(data)
    }

    /// Everything has come, and something more if it `is_over`: nobody is to get that.
    fn finish(&mut self, is_over: bool) {
        if let Some(mut lease) = self.lease.take() {
            if is_over {
                lease.was_overlong();
                lease.line().0.use_after = UseAfter::None;
            }
            lease.complete();
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Came> {
        let Some(lease) = &mut self.lease else { return Poll::Ready(Came::More) };
        let (line, ticket) = lease.line();
        match line.poll_hear(cx, &mut self.rest.bytes, &self.worker) {
            Poll::Ready(Ok(1..)) => Poll::Ready(Came::More),
            Poll::Ready(Ok(0)) => Poll::Ready(Came::End),
            Poll::Ready(Err(_)) => Poll::Ready(Came::Lost),
            Poll::Pending if ticket.poll_told(cx) => Poll::Ready(Came::Told),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ends an answer of which nothing more comes.
    fn end(&mut self, why: &Came) -> Option<Result<Frame<Bytes>, BrokenOff>> {
        let lease = self.lease.take()?;
        let is_framed = matches!(self.rest.framing, Framing::Chunks | Framing::Close);
        match why {
            Came::End if self.rest.framing == Framing::Close => lease.complete(),
            // Clients expect events to end and come again.
            Came::Told if self.rest.is_events && is_framed => lease.ended(),
            _ => {
                lease.cut_short();
                return Some(Err(BrokenOff));
            }
        }
        None
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.lease.is_none() || self.body.has_ended()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // An answer without a body is never polled.
        if self.body.has_ended() {
            self.finish(self.rest.at < self.rest.bytes.len());
        }
    }
}
