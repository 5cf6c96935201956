//! A client's request made fit to be passed on, or refused.

use std::rc::Rc;

use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::{PathAndQuery, Uri};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Version};

use crate::body::{Progress, RequestBody};
use crate::connection::Connection;
use crate::hygiene;
use crate::random::Random;
use crate::refusal::Refusal;

/// A request as instances get it, and what has to be remembered of it.
pub(crate) struct Inbound {
    /// What is sent; taken by each attempt, put back if it can be made again.
    pub(crate) request: Option<Request<RequestBody>>,
    /// The head once more, if the request may be sent a second time.
    spare: Option<Parts>,
    /// Whom the request is for, by which it is routed.
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: PathAndQuery,
    pub(crate) id: HeaderValue,
    pub(crate) progress: Rc<Progress>,
    /// The protocol it asks to go over to, and the client's side of that.
    pub(crate) upgrade: Option<OnUpgrade>,
}

impl Inbound {
    pub(crate) fn read(
        mut request: Request<Incoming>,
        connection: &Connection,
        random: &Random,
    ) -> Result<Self, Refusal> {
        if *request.method() == Method::CONNECT {
            return Err(Refusal::NoTunnels);
        }
        let host = host(&request)?;
        let protocol = hygiene::upgrade_asked(request.headers());
        let upgrade = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let chunked = head.headers.contains_key(TRANSFER_ENCODING);
        hygiene::strip_hop_by_hop(&mut head.headers);
        hygiene::tell_origin(&mut head.headers, &connection.peer, host.clone());
        if let Some(protocol) = protocol {
            hygiene::ask_upgrade(&mut head.headers, protocol);
        }
        let id = hygiene::request_id(&mut head.headers, || random.id());
        let told = host.clone().or_else(|| HeaderValue::try_from(connection.local.to_string()).ok());
        head.headers.insert(HOST, told.ok_or(Refusal::Malformed("no host"))?);
        head.uri = Uri::from(path.clone());
        head.version = Version::HTTP_11;
        let (body, progress) = body_of(body, chunked, &mut head);
        let spare = (matches!(body, RequestBody::Empty) && head.method.is_idempotent()).then(|| head.clone());
        let request = Some(Request::from_parts(head, body));
        Ok(Self { request, spare, host, path, id, progress, upgrade })
    }

    /// Whether the request must reach an instance at most once.
    pub(crate) fn is_at_most_once(&self) -> bool {
        self.spare.is_none()
    }

    /// Makes the request ready to be sent again after an attempt that took it; whether that is allowed.
    pub(crate) fn renew(&mut self) -> bool {
        self.request = self.spare.clone().map(|head| Request::from_parts(head, RequestBody::Empty));
        self.request.is_some()
    }
}

fn body_of(body: Incoming, chunked: bool, head: &mut Parts) -> (RequestBody, Rc<Progress>) {
    if body.is_end_stream() {
        return (RequestBody::Empty, Progress::new(true));
    }
    if chunked {
        // Said again for the next hop: without it hyper sends no body with a GET.
        head.headers.remove(CONTENT_LENGTH);
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let progress = Progress::new(false);
    (RequestBody::Streamed(body, progress.clone()), progress)
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
    match host {
        Some(host) if !host.as_bytes().iter().all(is_of_a_host) => {
            Err(Refusal::Malformed("the Host field is not a host"))
        }
        host => Ok(host),
    }
}

fn is_of_a_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte)
}
