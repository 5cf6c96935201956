//! Bodies on their way through: never held whole, and watched for how they end.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use crate::lease::Lease;

/// How a request's body is getting on, for those who wait for the answer meanwhile.
pub(crate) struct Progress {
    last: Cell<Instant>,
    broken: Cell<bool>,
    done: Cell<bool>,
}

impl Progress {
    pub(crate) fn new(done: bool) -> Rc<Self> {
        let (last, broken, done) = (Cell::new(Instant::now()), Cell::new(false), Cell::new(done));
        Rc::new(Self { last, broken, done })
    }

    /// When the client last sent something.
    pub(crate) fn last(&self) -> Instant {
        self.last.get()
    }

    /// Whether the client's own sending failed: it broke off, or its framing is wrong.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Whether the client has sent everything.
    pub(crate) fn is_done(&self) -> bool {
        self.done.get()
    }
}

/// What an instance is sent.
pub(crate) enum RequestBody {
    /// Nothing.
    Empty,
    /// What the client sends, as it comes.
    Streamed(Incoming, Rc<Progress>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Streamed(incoming, progress) = self.get_mut() else { return Poll::Ready(None) };
        let frame = Pin::new(&mut *incoming).poll_frame(cx);
        if let Poll::Ready(frame) = &frame {
            progress.last.set(Instant::now());
            progress.broken.set(matches!(frame, Some(Err(_))));
            progress.done.set(frame.is_none() || incoming.is_end_stream());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(incoming, _) => incoming.size_hint(),
        }
    }
}

/// What a client is answered.
pub(crate) enum ResponseBody {
    /// The edge's own words.
    Own(Option<Bytes>),
    /// What an instance sends, as it comes; the lease knows whom to tell when it ends.
    Streamed(Incoming, Option<Lease>),
}

impl ResponseBody {
    pub(crate) fn streamed(incoming: Incoming, lease: Lease) -> Self {
        Self::Streamed(incoming, Some(lease))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let (incoming, lease) = match self.get_mut() {
            Self::Own(words) => return Poll::Ready(words.take().map(|w| Ok(Frame::data(w)))),
            Self::Streamed(incoming, lease) => (incoming, lease),
        };
        let frame = Pin::new(&mut *incoming).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Err(_))) => end(lease, Lease::cut_short),
            Poll::Ready(None) => end(lease, Lease::complete),
            Poll::Ready(Some(Ok(_))) if incoming.is_end_stream() => end(lease, Lease::complete),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(words) => words.is_none(),
            Self::Streamed(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(words) => SizeHint::with_exact(words.as_ref().map_or(0, |w| w.len() as u64)),
            Self::Streamed(incoming, _) => incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // An answer without a body is never polled.
        if let Self::Streamed(incoming, lease) = self
            && incoming.is_end_stream()
        {
            end(lease, Lease::complete);
        }
    }
}

/// Ends a lease, once.
fn end(lease: &mut Option<Lease>, how: fn(Lease)) {
    if let Some(lease) = lease.take() {
        how(lease);
    }
}
