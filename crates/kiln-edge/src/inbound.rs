//! A client's request made fit to be passed on, or refused.

use std::rc::Rc;

use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use hyper::{HeaderMap, Method, Request, Version};
use kiln_model::Protocol;

use crate::body::{Progress, RequestBody, Upload};
use crate::connection::Connection;
use crate::cut::Ticket;
use crate::express::Repeats;
use crate::hygiene;
use crate::kept_body::KeptBody;
use crate::origin::Origin;
use crate::refusal::Refusal;
use crate::trace;
use crate::tunnel::Switch;
use crate::worker::Worker;

/// A request as instances get it, and what has to be remembered of it.
pub(crate) struct Inbound {
    /// What is sent; taken by each attempt, unless it can be sent again.
    request: Option<(Parts, RequestBody)>,
    repeats: Repeats,
    /// Whom the request is for, by which it is routed.
    pub(crate) host: Option<HeaderValue>,
    /// What instances are told: the same, or where the client's connection came in.
    told: HeaderValue,
    pub(crate) path: PathAndQuery,
    pub(crate) id: HeaderValue,
    pub(crate) progress: Rc<Progress>,
    /// How long its body is, if that is known.
    length: Option<u64>,
    /// The protocol it asks to go over to, and the client's side of that.
    pub(crate) upgrade: Option<Switch>,
    pub(crate) origin: Origin,
    /// The trace it is part of, if somebody wants to know.
    pub(crate) trace: Option<String>,
    /// Whether the client takes trailers.
    trailers: bool,
}

/// Whom a request is for, if it may be read further.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn judge(
    request: &Request<Incoming>,
    connection: &Connection,
    worker: &Worker,
) -> Result<Option<HeaderValue>, Refusal> {
    if *request.method() == Method::CONNECT {
        return Err(Refusal::NoTunnels);
    }
    let limits = &worker.limits;
    if request.headers().len() > limits.header_count || weight(request) > limits.header_bytes {
        return Err(Refusal::TooManyFields);
    }
    // That form is for CONNECT alone (RFC 9112, 3.2.3).
    if request.uri().path_and_query().is_none() {
        return Err(Refusal::Malformed("the target is not a path"));
    }
    if connection.marks.was_ambiguous() {
        return Err(Refusal::Malformed("it says its length in two ways"));
    }
    if !hygiene::is_plainly_coded(request.headers()) {
        return Err(Refusal::UnknownCoding);
    }
    host(request)
}

impl Inbound {
    /// `host`: whom it is for, as [`judge`] says.
    pub(crate) fn read(
        mut request: Request<Incoming>,
        host: Option<HeaderValue>,
        connection: &Connection,
        worker: &Worker,
    ) -> Result<Self, Refusal> {
        // Who speaks HTTP/1.0 cannot ask for another protocol (RFC 9110, 7.8).
        let protocol = hygiene::upgrade_asked(request.headers());
        let protocol = protocol.filter(|_| request.version() == Version::HTTP_11);
        let upgrade =
            protocol.clone().map(|asked| Switch { asked, client: hyper::upgrade::on(&mut request) });
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let (version, trailers) = (head.version, hygiene::takes_trailers(&head.headers));
        let framing = Framing::of(&head);
        let named = hygiene::strip_hop_by_hop(&mut head.headers);
        if version == Version::HTTP_2 {
            hygiene::gather_cookies(&mut head.headers);
        }
        // The edge answers the expectation itself, by reading the body as soon as the instance takes it.
        head.headers.remove(EXPECT);
        let origin = connection.peer().introduce(&mut head.headers, host.as_ref(), &worker.trust);
        if let Some(protocol) = protocol {
            hygiene::ask_upgrade(&mut head.headers, protocol);
        }
        let id = hygiene::request_id(&mut head.headers, || worker.random.id());
        trace::pass_on(&mut head.headers, &worker.random);
        let trace = worker.log.as_ref().and_then(|_| trace::id(&head.headers));
        let told = host.clone().or_else(|| HeaderValue::try_from(connection.local.to_string()).ok());
        let told = told.ok_or(Refusal::Malformed("no host"))?;
        let length = body.size_hint().exact();
        let (body, progress) = body_of(body, framing, &mut head, named);
        speak(&mut head, Protocol::Http1, &told, &path, trailers)?;
        let is_harmless = matches!(body, RequestBody::Empty) && head.method.is_safe();
        let repeats = if is_harmless { Repeats::Allowed } else { Repeats::Never };
        let request = Some((head, body));
        let inbound = Self {
            request,
            repeats,
            host,
            told,
            path,
            id,
            progress,
            length,
            upgrade,
            origin,
            trace,
            trailers,
        };
        Ok(inbound)
    }

    /// Lets its body be so large at most; if it grows larger, that is noted in `ticket`.
    ///
    /// # Errors
    /// If it is known to be larger.
    pub(crate) fn bound(&self, at_most: Option<u64>, ticket: &Rc<Ticket>) -> Result<(), Refusal> {
        self.progress.bound(at_most, ticket);
        let says_more = at_most.zip(self.length).is_some_and(|(at_most, length)| length > at_most);
        if says_more || self.progress.is_too_large() { Err(Refusal::TooLarge) } else { Ok(()) }
    }

    /// Takes the request as it is to be sent to an instance that speaks `protocol`.
    pub(crate) fn take(&mut self, protocol: Protocol) -> Result<Request<RequestBody>, Refusal> {
        let (mut head, body) = self.again(protocol).ok_or(Refusal::Lost)?;
        if protocol != Protocol::Http1 || head.version != Version::HTTP_11 {
            speak(&mut head, protocol, &self.told, &self.path, self.trailers)?;
        }
        Ok(Request::from_parts(head, body))
    }

    /// The request as it is sent now. Only an instance that speaks HTTP/2 can say that it has not begun with it, so it is
    /// kept for that case alone.
    fn again(&mut self, protocol: Protocol) -> Option<(Parts, RequestBody)> {
        let is_kept = protocol == Protocol::H2c || self.repeats == Repeats::Allowed;
        let (head, body) = self.request.take()?;
        let (kept, body) = match body {
            RequestBody::Empty if is_kept => (RequestBody::Empty, RequestBody::Empty),
            RequestBody::Streamed(upload) if is_kept => {
                let kept = KeptBody::new(upload);
                let body = kept.again()?;
                (RequestBody::Kept(kept), RequestBody::Kept(body))
            }
            RequestBody::Kept(kept) => {
                let body = kept.again()?;
                (RequestBody::Kept(kept), RequestBody::Kept(body))
            }
            body => return Some((head, body)),
        };
        self.request = Some((head.clone(), kept));
        Some((head, body))
    }

    /// Whether all of it is still there, to be sent from the beginning.
    pub(crate) fn is_kept(&self) -> bool {
        match &self.request {
            Some((_, RequestBody::Kept(body))) => body.is_whole(),
            other => other.is_some(),
        }
    }

    /// It is answered: what was kept of it is not needed any more.
    pub(crate) fn let_go(&self) {
        if let Some((_, RequestBody::Kept(body))) = &self.request {
            body.let_go();
        }
    }

    /// Gives back what was taken and not sent.
    pub(crate) fn give_back(&mut self, unsent: Request<RequestBody>) {
        self.request.get_or_insert_with(|| unsent.into_parts());
    }

    /// What it says beside what it is for.
    pub(crate) fn headers(&self) -> Option<&HeaderMap> {
        self.request.as_ref().map(|(head, _)| &head.headers)
    }

    /// Whether the request may be sent again when it may have been carried out.
    pub(crate) fn repeats(&self) -> Repeats {
        self.repeats
    }
}

/// What a head of HTTP/2 weighs (RFC 9113, 6.5.2). hyper bounds those of HTTP/1.1.
pub(crate) fn weight<B>(request: &Request<B>) -> usize {
    if request.version() != Version::HTTP_2 {
        return 0;
    }
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    fields.sum::<usize>() + path
}

/// Puts what differs between versions of HTTP into a head: where the host stands, and what is said of trailers.
fn speak(
    head: &mut Parts,
    protocol: Protocol,
    host: &HeaderValue,
    path: &PathAndQuery,
    trailers: bool,
) -> Result<(), Refusal> {
    head.headers.remove(TE);
    match protocol {
        Protocol::Http1 => {
            head.headers.insert(HOST, host.clone());
            head.uri = Uri::from(path.clone());
            head.version = Version::HTTP_11;
        }
        Protocol::H2c => {
            let wrong = || Refusal::Malformed("the Host field is not a host");
            let authority = Authority::try_from(host.as_bytes()).map_err(|_| wrong())?;
            let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path.clone());
            head.uri = uri.build().map_err(|_| wrong())?;
            head.headers.remove(HOST);
            head.headers.remove(TRANSFER_ENCODING);
            if trailers {
                head.headers.insert(TE, HeaderValue::from_static("trailers"));
            }
            head.version = Version::HTTP_2;
        }
    }
    Ok(())
}

/// How the end of a body is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// By its length, if there is one.
    Length,
    /// By a last chunk or frame.
    Open,
}

impl Framing {
    fn of(head: &Parts) -> Self {
        let open = match head.version {
            Version::HTTP_2 => !head.headers.contains_key(CONTENT_LENGTH),
            _ => head.headers.contains_key(TRANSFER_ENCODING),
        };
        if open { Self::Open } else { Self::Length }
    }
}

fn body_of(
    body: Incoming,
    framing: Framing,
    head: &mut Parts,
    named: Vec<HeaderName>,
) -> (RequestBody, Rc<Progress>) {
    if body.is_end_stream() {
        return (RequestBody::Empty, Progress::new(true, named));
    }
    if framing == Framing::Open {
        // Said again for the next hop: without it hyper sends no body with a GET.
        head.headers.remove(CONTENT_LENGTH);
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let progress = Progress::new(false, named);
    (RequestBody::Streamed(Upload::new(body, progress.clone())), progress)
}

/// Whom the request is for: the authority of an absolute target, else the one Host field (RFC 9112, 3.2).
fn host(request: &Request<Incoming>) -> Result<Option<HeaderValue>, Refusal> {
    let mut fields = request.headers().get_all(HOST).iter();
    let (field, another) = (fields.next(), fields.next());
    if another.is_some() {
        return Err(Refusal::Malformed("more than one Host field"));
    }
    if field.is_none() && request.version() == Version::HTTP_11 {
        return Err(Refusal::Malformed("no Host field"));
    }
    let host = match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => field.filter(|v| !v.is_empty()).cloned(),
    };
    if request.version() == Version::HTTP_2 && field.is_some() && field != host.as_ref() {
        return Err(Refusal::Malformed("the Host field is not the authority"));
    }
    match host {
        Some(host) if !hygiene::is_host(host.as_bytes()) => {
            Err(Refusal::Malformed("the Host field is not a host"))
        }
        host => Ok(host),
    }
}
