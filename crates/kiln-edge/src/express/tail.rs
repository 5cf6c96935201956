//! The body of an answer that comes without hyper, for a client whom hyper serves.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::{Bytes, Frame, SizeHint};

use super::answer::Framing;
use super::body::{Body, LARGE};
use super::chunks::Malformed;
use super::line::{Came, Line};
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
        loop {
            if self.lease.is_some() {
                match self.take() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(Malformed) => return Poll::Ready(self.end(&Came::Lost)),
                }
            }
            let Some(lease) = &mut self.lease else { return Poll::Ready(None) };
            match ready!(lease.poll_more(cx, &mut self.rest.bytes, &self.worker)) {
                Came::More => {}
                ended => return Poll::Ready(self.end(&ended)),
            }
        }
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
            if !piece.is_last {
                lease.ticket().gave();
            }
        }
        if piece.is_last {
            self.finish(is_over);
        } else if is_much {
            self.rest.bytes = Vec::with_capacity(LARGE);
        }
        Ok(data)
    }

    fn finish(&mut self, is_over: bool) {
        if let Some(lease) = self.lease.take() {
            lease.has_all(is_over);
        }
    }

    /// Ends an answer of which nothing more comes.
    fn end(&mut self, why: &Came) -> Option<Result<Frame<Bytes>, BrokenOff>> {
        let is_whole = self.lease.take()?.has_no_more(why, self.rest.framing, self.rest.is_events);
        (!is_whole).then_some(Err(BrokenOff))
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
