//! One request as it is sent to an instance, and the head of the answer to it.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;

use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Version};
use kiln_model::Protocol;
use tokio::time::Instant;

use super::answer::{self, Framing};
use super::line::Line;
use super::request::{self, Places, Request};
use crate::account::Story;
use crate::connection::Connection;
use crate::course::{Again, Asked, Errand, Kept, Miss};
use crate::cut::Ticket;
use crate::origin::Origin;
use crate::random::Random;
use crate::refusal::Refusal;
use crate::trace;
use crate::upstream::Upstream;
use crate::visitor::{self, Visitor};
use crate::worker::Worker;

/// A request, as instances get it.
pub(super) struct Express {
    /// Head and body.
    bytes: Vec<u8>,
    places: Places,
    id: Range<usize>,
    trace: Range<usize>,
    method: Method,
    origin: Origin,
    /// Whether it may be sent again when it may have been carried out.
    repeats: Repeats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Allowed,
    Never,
}

/// The head of an answer, and what was read with it.
pub(super) struct Heard {
    pub(super) line: Line,
    pub(super) status: u16,
    pub(super) rest: Rest,
    /// As it goes to the client, without the line at its end.
    pub(super) head: Vec<u8>,
    /// Whether it names its request.
    pub(super) has_id: bool,
}

/// What follows the head of an answer.
pub(super) struct Rest {
    pub(super) framing: Framing,
    pub(super) is_events: bool,
    /// What was read with the head, and where in it the body begins.
    pub(super) bytes: Vec<u8>,
    pub(super) at: usize,
}

impl Express {
    /// `bytes` are those the request was read from. None if it has a method that nobody can have.
    pub(super) fn new(
        request: &Request<'_, '_>,
        bytes: &[u8],
        connection: &Connection,
        random: &Random,
    ) -> Option<Self> {
        let method = Method::from_bytes(request.method.as_bytes()).ok()?;
        let (end, body) = request.length;
        // What is added is no longer than that.
        let mut head = Vec::with_capacity(end + body + 384);
        let places = request.write(&mut head);
        let origin = connection.peer().write(&mut head, request.host);
        let id = placed(&mut head, request.id, b"x-request-id: ", |head| random.write_id(head));
        let trace = placed(&mut head, request.trace, b"traceparent: ", |head| trace::begin(head, random));
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(bytes.get(end..end + body)?);
        let repeats = if body == 0 && method.is_safe() { Repeats::Allowed } else { Repeats::Never };
        Some(Self { bytes: head, places, id, trace, method, origin, repeats })
    }

    fn text(&self, range: &Range<usize>) -> &str {
        std::str::from_utf8(&self.bytes[range.clone()]).unwrap_or_default()
    }

    pub(super) fn host(&self) -> &str {
        self.text(&self.places.host)
    }

    /// Path and query.
    pub(super) fn target(&self) -> &str {
        self.text(&self.places.target)
    }

    pub(super) fn id(&self) -> &[u8] {
        &self.bytes[self.id.clone()]
    }

    /// Whether it asks for a head alone.
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// What the access log tells of it.
    pub(super) fn story(&self) -> Story {
        let value = |text: &str| HeaderValue::from_str(text).ok();
        Story {
            client: Some(self.origin.ip),
            method: self.method.clone(),
            version: Version::HTTP_11,
            host: value(self.host()),
            path: self.target().parse().unwrap_or(PathAndQuery::from_static("/")),
            id: HeaderValue::from_bytes(self.id()).ok(),
            trace: trace::traced(self.text(&self.trace)),
            instance: None,
            fleet: None,
            cause: None,
        }
    }

    /// What follows when an instance was sent it and gave no answer.
    fn lost(&self, line: &Line, refusal: Refusal) -> Miss {
        let again = match self.repeats {
            Repeats::Never if refusal != Refusal::Unreachable => Again::No,
            _ if line.was_kept => Again::Fresh,
            _ => Again::Elsewhere,
        };
        Miss { refusal, again }
    }

    async fn send(&self, line: &mut Line, ticket: &Ticket) -> Result<(), Miss> {
        let mut sent = 0;
        let sending = poll_fn(|cx| match line.poll_send(cx, &self.bytes, &mut sent) {
            Poll::Pending if ticket.is_late() => Poll::Ready(None),
            sending => sending.map(Some),
        });
        match sending.await {
            Some(Ok(())) => Ok(()),
            // Nothing of it was taken.
            Some(Err(_)) if sent == 0 => Err(self.lost(line, Refusal::Unreachable)),
            Some(Err(_)) => Err(self.lost(line, Refusal::Lost)),
            None => Err(Miss { refusal: Refusal::ResponseTimeout, again: Again::No }),
        }
    }

    async fn hear(&self, mut line: Line, worker: &Worker, ticket: &Ticket) -> Result<Heard, Miss> {
        let (mut bytes, mut at) = (Vec::new(), 0);
        loop {
            match more(&mut line, &mut bytes, worker, ticket).await {
                Some(Ok(1..)) => {}
                Some(Ok(0) | Err(_)) => return Err(self.lost(&line, Refusal::Lost)),
                None => return Err(Miss { refusal: Refusal::ResponseTimeout, again: Again::No }),
            }
            match self.read(&bytes, &mut at, worker) {
                // Those before the answer count as well: there is an end to them.
                Read::Partial if bytes.len() < worker.limits.header_bytes => {}
                Read::Partial | Read::Garbage => {
                    return Err(Miss { refusal: Refusal::Garbage, again: Again::No });
                }
                Read::Whole(Head { status, framing, keeps, is_events, head, has_id }) => {
                    line.used_for(framing, keeps);
                    if matches!(framing, Framing::Length(_)) && !is_events && bytes.len() == at {
                        self.begins(&mut line, &mut bytes, worker, ticket).await?;
                    }
                    let rest = Rest { framing, is_events, bytes, at };
                    return Ok(Heard { line, status, rest, head, has_id });
                }
            }
        }
    }

    /// Waits for the first bytes of a body that was promised. An instance that dies between the head and the body has
    /// not begun to answer as far as anybody was told, and the request may be asked again as if there were no head. One
    /// that takes its time is believed in the end.
    async fn begins(
        &self,
        line: &mut Line,
        bytes: &mut Vec<u8>,
        worker: &Worker,
        ticket: &Ticket,
    ) -> Result<(), Miss> {
        match more(line, bytes, worker, ticket).await {
            Some(Ok(1..)) | None => Ok(()),
            Some(Ok(0) | Err(_)) => Err(self.lost(line, Refusal::Lost)),
        }
    }

    /// Reads what was heard from `at` on, which moves past every head that is whole.
    fn read(&self, bytes: &[u8], at: &mut usize, worker: &Worker) -> Read {
        loop {
            let mut room = [MaybeUninit::uninit(); answer::FIELDS];
            let most = worker.limits.header_count;
            match answer::parse(&bytes[*at..], &mut room, self.method.as_str(), most) {
                answer::Parsed::Interim(length) => *at += length,
                answer::Parsed::Partial => return Read::Partial,
                answer::Parsed::Garbage => return Read::Garbage,
                answer::Parsed::Whole(answer) => {
                    *at += answer.length;
                    let mut head = worker.buffers.take();
                    let has_id = answer.write(&mut head);
                    let answer::Answer { status, framing, keeps, is_events, .. } = answer;
                    return Read::Whole(Head { status, framing, keeps, is_events, head, has_id });
                }
            }
        }
    }
}

/// Reads more of an answer; none if it is late.
async fn more(
    line: &mut Line,
    bytes: &mut Vec<u8>,
    worker: &Worker,
    ticket: &Ticket,
) -> Option<io::Result<usize>> {
    poll_fn(|cx| match line.poll_hear(cx, bytes, worker) {
        Poll::Pending if ticket.is_late() => Poll::Ready(None),
        hearing => hearing.map(Some),
    })
    .await
}

enum Read {
    Partial,
    Garbage,
    Whole(Head),
}

struct Head {
    status: u16,
    framing: Framing,
    keeps: bool,
    is_events: bool,
    head: Vec<u8>,
    has_id: bool,
}

/// Where a value is that the head has, or is given by `make` behind `name`.
fn placed(
    head: &mut Vec<u8>,
    given: Option<&str>,
    name: &[u8],
    make: impl FnOnce(&mut Vec<u8>),
) -> Range<usize> {
    if let Some(given) = given {
        let at = memchr::memmem::rfind(head, given.as_bytes()).unwrap_or(0);
        return at..at + given.len();
    }
    head.extend_from_slice(name);
    let at = head.len();
    make(head);
    let end = head.len();
    head.extend_from_slice(b"\r\n");
    at..end
}

impl Errand for Express {
    type Answer = Heard;

    fn asked(&self) -> Asked<'_> {
        Asked { host: Some(self.host()), path: self.text(&self.places.path), scheme: self.origin.scheme }
    }

    fn visitor(&self, random: &Random) -> Option<Visitor> {
        let mut room = [httparse::EMPTY_HEADER; request::FIELDS + 8];
        let mut head = httparse::Request::new(&mut room);
        head.parse(&self.bytes).ok()?;
        let named = |name: &'static str| {
            let fields = head.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
            fields.map(|field| field.value)
        };
        let cookies = named("cookie").filter_map(|line| std::str::from_utf8(line).ok());
        Some(Visitor::of(named(visitor::PREVIEW).next(), cookies, random))
    }

    async fn attempt(
        &mut self,
        worker: &Rc<Worker>,
        upstream: &Rc<Upstream>,
        kept: Kept,
        ticket: &Ticket,
    ) -> Result<Heard, Miss> {
        if upstream.protocol() != Protocol::Http1 {
            return Err(Miss { refusal: Refusal::Unreachable, again: Again::Otherwise });
        }
        let mut line = Line::to(upstream, worker, kept, self.repeats == Repeats::Never).await?;
        ticket.awaits(Some(Instant::now()));
        let heard = match self.send(&mut line, ticket).await {
            Ok(()) => self.hear(line, worker, ticket).await,
            Err(miss) => Err(miss),
        };
        ticket.awaits(None);
        heard
    }
}
