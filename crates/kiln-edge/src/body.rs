//! Bodies on their way through: never held whole, and watched for how they end.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::HeaderName;
use tokio::time::{Instant, timeout};

use crate::cut::Ticket;
use crate::express::Tail;
use crate::kept_body::KeptBody;
use crate::lease::Lease;
use crate::refusal::Refusal;
use crate::trailers;

/// How a request's body is getting on, for those who wait for the answer meanwhile.
pub(crate) struct Progress {
    last: Cell<Instant>,
    broken: Cell<Option<Refusal>>,
    done: Cell<bool>,
    /// How many bytes have come, and how many may.
    came: Cell<u64>,
    bound: RefCell<Option<Bound>>,
    /// Whether nobody waits for the rest of it any more, and who is to be told.
    is_given_up: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
    /// Fields that are about the client's connection, as its head says.
    named: Vec<HeaderName>,
}

/// How much of a body may come, and of which request.
struct Bound {
    at_most: u64,
    ticket: Rc<Ticket>,
}

impl Progress {
    /// Of a body that is `done` if there is none, behind a head that has `named` these fields as being about its connection.
    pub(crate) fn new(done: bool, named: Vec<HeaderName>) -> Rc<Self> {
        let (last, broken, done) = (Cell::new(Instant::now()), Cell::new(None), Cell::new(done));
        let (came, bound, is_given_up, waiting) = Default::default();
        Rc::new(Self { last, broken, done, came, bound, is_given_up, waiting, named })
    }

    /// So many bytes may come, from the first on; if there are more, that is noted in `ticket`.
    pub(crate) fn bound(&self, at_most: Option<u64>, ticket: &Rc<Ticket>) {
        *self.bound.borrow_mut() = at_most.map(|at_most| Bound { at_most, ticket: ticket.clone() });
    }

    /// Whether more has come than may.
    pub(crate) fn is_too_large(&self) -> bool {
        self.bound.borrow().as_ref().is_some_and(|bound| self.came.get() > bound.at_most)
    }

    /// A piece of a body, unless there is too much of it with this one.
    fn let_through(&self, piece: Result<Frame<Bytes>, hyper::Error>) -> Result<Frame<Bytes>, BrokenUpload> {
        let piece = piece.map_err(BrokenUpload::Client)?;
        let length = piece.data_ref().map_or(0, |data| data.len() as u64);
        self.came.set(self.came.get() + length);
        match &*self.bound.borrow() {
            Some(Bound { at_most, ticket }) if self.came.get() > *at_most => {
                ticket.overruns();
                Err(BrokenUpload::TooLarge)
            }
            _ => Ok(piece),
        }
    }

    /// Ends what comes no more: whoever passes it on is told that it is broken.
    fn give_up(&self) {
        self.is_given_up.set(true);
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    /// When the client last sent something.
    pub(crate) fn last(&self) -> Instant {
        self.last.get()
    }

    /// What is wrong with the client's own sending, if it failed: the client left, or its framing is wrong.
    pub(crate) fn broken(&self) -> Option<Refusal> {
        self.broken.get()
    }

    /// Whether the client has sent everything.
    pub(crate) fn is_done(&self) -> bool {
        self.done.get()
    }
}

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenUpload {
    /// Its client has left, or says nonsense.
    #[error("the client broke off")]
    Client(#[source] hyper::Error),
    /// There is more of it than may be.
    #[error("the body is larger than it may be")]
    TooLarge,
    /// It was answered before its end, and then nothing came of it for too long.
    #[error("the rest of the body does not come")]
    Stalled,
}

/// Gives a body up that goes on after its answer has ended, when nothing has come of it for `limit`: the walk over all
/// connections sees only requests that have not been answered.
pub(crate) async fn see_to_the_rest(progress: Weak<Progress>, ticket: Rc<Ticket>, limit: Duration) {
    loop {
        tokio::time::sleep(limit).await;
        let Some(progress) = progress.upgrade().filter(|p| !p.is_done()) else { return };
        // While it is being answered both sides may take their time.
        let over = ticket.over_since().map(|since| since.max(progress.last()));
        if over.is_some_and(|since| since.elapsed() >= limit) {
            return progress.give_up();
        }
    }
}

/// A body as its client sends it.
pub(crate) struct Upload(Incoming, Rc<Progress>);

impl Upload {
    pub(crate) fn new(incoming: Incoming, progress: Rc<Progress>) -> Self {
        Self(incoming, progress)
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        let Self(incoming, progress) = self;
        if progress.is_given_up.get() {
            return Poll::Ready(Some(Err(BrokenUpload::Stalled)));
        }
        let frame = Pin::new(&mut *incoming).poll_frame(cx);
        let frame = frame.map(|frame| trailers::passed_on(frame, &progress.named));
        let frame = frame.map(|frame| frame.map(|frame| progress.let_through(frame)));
        if let Poll::Ready(frame) = &frame {
            progress.last.set(Instant::now());
            progress.broken.set(frame.as_ref().and_then(|frame| Some(frame.as_ref().err()?.refusal())));
            // Behind trailers nothing comes, and nobody looks for it.
            let is_last = |frame: &Result<Frame<Bytes>, _>| frame.as_ref().is_ok_and(Frame::is_trailers);
            progress.done.set(frame.as_ref().is_none_or(is_last) || incoming.is_end_stream());
        } else {
            *progress.waiting.borrow_mut() = Some(cx.waker().clone());
        }
        frame
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// What an instance is sent.
pub(crate) enum RequestBody {
    /// Nothing.
    Empty,
    /// What the client sends, as it comes.
    Streamed(Upload),
    /// The same, of which what has come can be sent again.
    Kept(KeptBody),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenUpload;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(upload) => upload.poll_frame(cx),
            Self::Kept(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(upload) => upload.is_end_stream(),
            Self::Kept(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(upload) => upload.size_hint(),
            Self::Kept(body) => body.size_hint(),
        }
    }
}

impl BrokenUpload {
    /// What its client is told.
    fn refusal(&self) -> Refusal {
        match self {
            Self::Client(error) => spoilt_by(error),
            Self::TooLarge => Refusal::TooLarge,
            Self::Stalled => Refusal::ClientTooSlow,
        }
    }
}

/// What a body has ended by that has no end: what the client says, or that it says nothing more.
fn spoilt_by(error: &hyper::Error) -> Refusal {
    let mut cause = error.source();
    while let Some(error) = cause {
        if is_nonsense(error) {
            return Refusal::Malformed("the body is malformed");
        }
        cause = error.source();
    }
    Refusal::ClientLeft
}

/// Whether this is about what was said, and not about the end of it.
fn is_nonsense(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref::<h2::Error>() {
        Some(error) => error.is_library(),
        None => error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData)),
    }
}

/// What a client is answered.
pub(crate) enum ResponseBody {
    /// The edge's own words.
    Own(Option<Bytes>),
    /// What an instance sends, as it comes; the lease knows whom to tell when it ends.
    Streamed(Box<Opened>, Option<Lease>, Shape),
    /// The same, of an answer that comes without hyper.
    Heard(Box<Tail>),
}

/// The body of an answer, of which the first piece may be there.
pub(crate) struct Opened {
    first: Option<Bytes>,
    rest: Incoming,
    /// Fields that are about the instance's connection, as its head says.
    named: Vec<HeaderName>,
}

impl Opened {
    /// Waits for the first piece of a body that must have one, for at most `limit`. One that does not come by then may
    /// come later; none if it never comes.
    pub(crate) async fn begun(mut rest: Incoming, limit: Duration) -> Option<Self> {
        let piece = poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx));
        match timeout(limit, piece).await {
            // A body that has a length begins with data, if it begins.
            Ok(Some(Ok(first))) => {
                Some(Self { first: Some(first.into_data().ok()?), rest, named: Vec::new() })
            }
            Ok(Some(Err(_)) | None) => None,
            Err(_) => Some(rest.into()),
        }
    }

    /// Behind it nothing goes on that its head has named as being about its connection.
    pub(crate) fn without(self, named: Vec<HeaderName>) -> Self {
        Self { named, ..self }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => {
                let piece = Pin::new(&mut self.rest).poll_frame(cx);
                piece.map(|piece| trailers::passed_on(piece, &self.named))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, |data| data.len() as u64);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + first);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + first);
        }
        hint
    }
}

impl From<Incoming> for Opened {
    fn from(rest: Incoming) -> Self {
        Self { first: None, rest, named: Vec::new() }
    }
}

/// What the end of an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Whatever is missing is missed.
    Whole,
    /// Events, as they happen: clients expect it to end and come again.
    Events,
}

impl ResponseBody {
    /// The edge's own words; none if it is an instance's.
    pub(crate) fn own(mut self) -> Bytes {
        match &mut self {
            Self::Own(words) => words.take().unwrap_or_default(),
            Self::Streamed(..) | Self::Heard(_) => Bytes::new(),
        }
    }

    pub(crate) fn streamed(body: Opened, lease: Lease, shape: Shape) -> Self {
        Self::Streamed(Box::new(body), Some(lease), shape)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let (body, lease, shape) = match self.get_mut() {
            Self::Own(words) => return Poll::Ready(words.take().map(|w| Ok(Frame::data(w)))),
            Self::Heard(tail) => return tail.poll_frame(cx),
            Self::Streamed(body, lease, shape) => (body, lease, shape),
        };
        if let Some(lease) = lease {
            lease.ticket().is_asked();
        }
        let frame = body.poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(lease)) = (&frame, &mut *lease)
            && let Some(data) = frame.data_ref()
        {
            lease.passed(data.len());
            lease.ticket().gave();
        }
        match &frame {
            Poll::Ready(Some(Err(_))) => end(lease, Lease::cut_short),
            Poll::Ready(None) => end(lease, Lease::complete),
            Poll::Ready(Some(Ok(_))) if body.is_end_stream() => end(lease, Lease::complete),
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Pending => {
                let told = lease.as_ref().is_some_and(|l| l.ticket().poll_told(cx));
                return if told { cut(lease, *shape) } else { Poll::Pending };
            }
        }
        frame.map_err(|_| BrokenOff)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(words) => words.is_none(),
            Self::Streamed(body, ..) => body.is_end_stream(),
            Self::Heard(tail) => tail.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(words) => SizeHint::with_exact(words.as_ref().map_or(0, |w| w.len() as u64)),
            Self::Streamed(body, ..) => body.size_hint(),
            Self::Heard(tail) => tail.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // An answer without a body is never polled.
        if let Self::Streamed(body, lease, _) = self
            && body.is_end_stream()
        {
            end(lease, Lease::complete);
        }
    }
}

/// The answer ends before its end.
#[derive(Debug, thiserror::Error)]
#[error("the answer was broken off")]
pub(crate) struct BrokenOff;

/// Ends an answer that is told to: events just end, everything else is broken off so that nobody takes it for whole.
fn cut(lease: &mut Option<Lease>, shape: Shape) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
    match shape {
        Shape::Events => {
            end(lease, Lease::ended);
            Poll::Ready(None)
        }
        Shape::Whole => {
            end(lease, Lease::cut_short);
            Poll::Ready(Some(Err(BrokenOff)))
        }
    }
}

/// Ends a lease, once.
fn end(lease: &mut Option<Lease>, how: fn(Lease)) {
    if let Some(lease) = lease.take() {
        how(lease);
    }
}
