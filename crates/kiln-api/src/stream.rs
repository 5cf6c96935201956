//! From events on a host's thread to lines on the wire.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use hyper::body::Frame;
use kiln_control::contract::{EventSink, Presence};
use kiln_model::{Event, Stamped};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::asked::Wanted;
use crate::wire::Line;

/// How many lines that could be had in any number may wait for a slow reader.
const BACKLOG: usize = 1024;

/// A line and, if it is one of those whose number is bounded, its place in the backlog.
type Queued = (Bytes, Option<OwnedSemaphorePermit>);

/// The host's side. What a deploy has to say is finite and never waits for the reader. News that later news
/// replaces is dropped when the reader is behind; output that could go on for ever waits for them.
pub(crate) struct Sender {
    lines: UnboundedSender<Queued>,
    backlog: Arc<Semaphore>,
    runtime: Handle,
    wanted: Wanted,
}

impl Sender {
    pub(crate) fn send(&self, line: &Line) {
        self.queue(line, None);
    }

    fn queue(&self, line: &Line, place: Option<OwnedSemaphorePermit>) {
        // Nobody is left to read it: `gone` says so to whoever asks.
        let _ = self.lines.send((Bytes::from(line.encode()), place));
    }
}

impl EventSink for Sender {
    fn event(&self, event: Stamped) {
        let backlog = Arc::clone(&self.backlog);
        let place = match &event.event {
            Event::Progress(progress) if !progress.finished => match backlog.try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => return,
            },
            Event::Output { .. } => match self.runtime.block_on(backlog.acquire_owned()) {
                Ok(place) => Some(place),
                Err(_) => return,
            },
            _ => None,
        };
        self.queue(&Line::Event(event), place);
    }

    fn presence(&self) -> Presence {
        match (self.wanted.is_given_up(), self.lines.is_closed()) {
            (true, _) => Presence::GaveUp,
            (false, true) => Presence::Gone,
            (false, false) => Presence::Here,
        }
    }
}

/// The reader's side, dropped by the server when the connection ends.
struct Receiver {
    lines: UnboundedReceiver<Queued>,
    backlog: Arc<Semaphore>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.backlog.close();
    }
}

impl hyper::body::Body for Receiver {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // A line gives up its place in the backlog as soon as it is taken.
        let data = |(line, _place): Queued| Ok(Frame::data(line));
        self.lines.poll_recv(context).map(|queued| queued.map(data))
    }
}

/// Both sides of the answer to something that is `wanted`; must be called on the server's runtime.
pub(crate) fn stream(wanted: Wanted) -> (Sender, Body) {
    let (sender, receiver) = unbounded_channel();
    let backlog = Arc::new(Semaphore::new(BACKLOG));
    let receiver = Receiver { lines: receiver, backlog: Arc::clone(&backlog) };
    (Sender { lines: sender, backlog, runtime: Handle::current(), wanted }, Body::new(receiver))
}
