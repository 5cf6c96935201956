//! An ordinary request, as it is said to an instance of HTTP/1.1.

use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;

use hyper::header::HeaderValue;
use hyper::{Method, Version};
use kiln_model::Protocol;

use super::query::{Head, Heard, Query, Repeats};
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

/// A request, as instances get it; its answer is heard as an `H`, which is what its client's protocol takes.
pub(crate) struct Express<H> {
    query: Query,
    places: Places,
    /// Bytes of its body.
    body: usize,
    id: Range<usize>,
    trace: Range<usize>,
    origin: Origin,
    heard_as: PhantomData<H>,
}

impl<H> Express<H> {
    /// None if it has a method that nobody can have.
    pub(super) fn new(
        request: &Request<'_, '_>,
        body: &[u8],
        connection: &Connection,
        random: &Random,
    ) -> Option<Self> {
        let method = Method::from_bytes(request.method.as_bytes()).ok()?;
        // What is added is no longer than that.
        let mut head = Vec::with_capacity(request.length.0 + body.len() + 384);
        let places = request.write(&mut head);
        let origin = connection.peer().write(&mut head, request.host);
        let id = placed(&mut head, request.id, b"x-request-id: ", |head| random.write_id(head));
        let trace = placed(&mut head, request.trace, b"traceparent: ", |head| trace::begin(head, random));
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(body);
        let repeats = if body.is_empty() && method.is_safe() { Repeats::Allowed } else { Repeats::Never };
        let query = Query::new(method, head, repeats);
        Some(Self { query, places, body: body.len(), id, trace, origin, heard_as: PhantomData })
    }

    fn text(&self, range: &Range<usize>) -> &str {
        std::str::from_utf8(&self.query.bytes()[range.clone()]).unwrap_or_default()
    }

    pub(crate) fn host(&self) -> &str {
        self.text(&self.places.host)
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        self.text(&self.places.target)
    }

    pub(crate) fn id(&self) -> &[u8] {
        &self.query.bytes()[self.id.clone()]
    }

    /// Whether it asks for a head alone.
    pub(super) fn is_head(&self) -> bool {
        *self.query.method() == Method::HEAD
    }

    /// What the access log tells of it.
    pub(crate) fn story(&self, version: Version) -> Story {
        let value = |text: &str| HeaderValue::from_str(text).ok();
        Story {
            client: Some(self.origin.ip),
            method: Some(self.query.method().clone()),
            version,
            host: value(self.host()),
            path: self.target().parse().ok(),
            id: HeaderValue::from_bytes(self.id()).ok(),
            trace: trace::traced(self.text(&self.trace)),
            instance: None,
            fleet: None,
            cause: None,
        }
    }
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

impl<H: Head> Errand for Express<H> {
    type Answer = Heard<H>;

    fn asked(&self) -> Asked<'_> {
        Asked { host: Some(self.host()), path: self.text(&self.places.path), scheme: self.origin.scheme }
    }

    fn visitor(&self, random: &Random) -> Option<Visitor> {
        let mut room = [httparse::EMPTY_HEADER; request::FIELDS + 8];
        let mut head = httparse::Request::new(&mut room);
        head.parse(self.query.bytes()).ok()?;
        let named = |name: &'static str| {
            let fields = head.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
            fields.map(|field| field.value)
        };
        Some(Visitor::of(named(visitor::PREVIEW).next(), named("cookie"), random))
    }

    fn bound(&self, at_most: Option<u64>, _: &Rc<Ticket>) -> Result<(), Refusal> {
        let is_larger = at_most.is_some_and(|at_most| self.body as u64 > at_most);
        if is_larger { Err(Refusal::TooLarge) } else { Ok(()) }
    }

    async fn attempt(
        &mut self,
        worker: &Rc<Worker>,
        upstream: &Rc<Upstream>,
        kept: Kept,
        ticket: &Ticket,
    ) -> Result<Heard<H>, Miss> {
        if upstream.protocol() != Protocol::Http1 {
            return Err(Miss { refusal: Refusal::Unreachable, again: Again::Otherwise });
        }
        self.query.ask(worker, upstream, kept, ticket).await
    }
}
