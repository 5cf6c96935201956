//! The head of a request of HTTP/1.1 that can be understood in one way only, and asks for nothing out of the ordinary.
//!
//! What is not exactly that is [`Parsed::Foreign`], whether it is wrong or merely rare: hyper is the judge of it. So
//! nothing is refused here, and whatever is taken here hyper would take in the same way: it is parsed by the same
//! parser, and the more is asked of it.

use std::mem::MaybeUninit;
use std::ops::Range;

use httparse::{Header, ParserConfig};

use super::field::{Kind, kind, length};
use crate::{hygiene, trace};

/// Header fields of a request that is taken.
pub const FIELDS: usize = 64;

/// What the first bytes of a connection, or those after a request, are.
pub enum Parsed<'h, 'b> {
    /// Too few to tell.
    Partial,
    /// Nothing for this way.
    Foreign,
    /// A request, its body included.
    Whole(Request<'h, 'b>),
}

/// One request.
pub struct Request<'h, 'b> {
    /// Its method.
    pub method: &'b str,
    /// Path and query.
    pub target: &'b str,
    /// Whom it is for.
    pub host: &'b str,
    /// What the client calls it.
    pub id: Option<&'b str>,
    /// The trace the client says it is part of.
    pub trace: Option<&'b str>,
    /// The bytes of its head, and those of its body, which follow.
    pub length: (usize, usize),
    fields: &'h [Header<'b>],
}

/// Whether the client is believed what it says of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It is: what it says is looked at elsewhere.
    Taken,
    /// It is not: what it says goes no further.
    Nothing,
}

/// Where the parts of a head that was written are.
pub(crate) struct Places {
    pub(crate) path: Range<usize>,
    pub(crate) target: Range<usize>,
    pub(crate) host: Range<usize>,
}

/// Reads the request at the beginning of `bytes`.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut [MaybeUninit<Header<'b>>; FIELDS],
    word: Word,
) -> Parsed<'h, 'b> {
    let mut head = httparse::Request::new(&mut []);
    let parsed = ParserConfig::default().parse_request_with_uninit_headers(&mut head, bytes, room);
    let end = match parsed {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Foreign,
    };
    let (Some(method), Some(target), Some(1)) = (head.method, head.path, head.version) else {
        return Parsed::Foreign;
    };
    let is_plain = method != "CONNECT" && is_origin(target.as_bytes()) && has_whole_lines(&bytes[..end]);
    match fields(head.headers, word).filter(|_| is_plain) {
        Some(Fields { host, id, trace, body }) if bytes.len() - end >= body => Parsed::Whole(Request {
            method,
            target,
            host,
            id,
            trace,
            length: (end, body),
            fields: head.headers,
        }),
        _ => Parsed::Foreign,
    }
}

/// What fields say.
struct Fields<'b> {
    host: &'b str,
    id: Option<&'b str>,
    trace: Option<&'b str>,
    body: usize,
}

/// None if they say anything out of the ordinary.
fn fields<'b>(all: &[Header<'b>], word: Word) -> Option<Fields<'b>> {
    let (mut host, mut id, mut trace, mut body) = (None, None, None, None);
    let mut has_state = false;
    for field in all {
        match kind(field.name) {
            Kind::Host => first(&mut host, text(field).filter(|host| is_host(host))?)?,
            Kind::RequestId => first(&mut id, text(field).filter(|id| hygiene::is_fit(id.as_bytes()))?)?,
            Kind::TraceParent => {
                first(&mut trace, text(field).filter(|t| trace::is_traceparent(t.as_bytes()))?)?
            }
            Kind::TraceState => has_state = true,
            Kind::ContentLength => first(&mut body, usize::try_from(length(field.value)?).ok()?)?,
            Kind::Connection if field.value.eq_ignore_ascii_case(b"keep-alive") => {}
            Kind::Forwarded if word == Word::Nothing => {}
            Kind::Connection | Kind::Forwarded | Kind::HopByHop | Kind::TransferEncoding | Kind::Expect => {
                return None;
            }
            Kind::Date | Kind::ContentType | Kind::Other => {}
        }
    }
    let is_traced = trace.is_some() || !has_state;
    is_traced.then_some(Fields { host: host?, id, trace, body: body.unwrap_or(0) })
}

/// Sets what must be said at most once.
fn first<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

fn text<'b>(field: &Header<'b>) -> Option<&'b str> {
    std::str::from_utf8(field.value).ok()
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && hygiene::is_host(host.as_bytes())
}

/// A path and perhaps a query, of characters that stand for themselves (RFC 3986, 3.3 and 3.4).
fn is_origin(target: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/?".contains(byte);
    target.first() == Some(&b'/') && target.iter().all(is_plain)
}

/// Whether the head begins at once, and each of its lines ends as it should: the parser knows other ends as well.
fn has_whole_lines(head: &[u8]) -> bool {
    let begins = head.first().is_some_and(u8::is_ascii_graphic);
    begins && memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}

impl<'h, 'b> Request<'h, 'b> {
    /// One without a body that came in fields, not in a head; the host is among them. None if anything in it is out of the
    /// ordinary.
    pub(crate) fn of(method: &'b str, target: &'b str, all: &'h [Header<'b>], word: Word) -> Option<Self> {
        let said = fields(all, word).filter(|said| is_origin(target.as_bytes()) && said.body == 0)?;
        let Fields { host, id, trace, .. } = said;
        let head: usize = all.iter().map(|field| field.name.len() + field.value.len() + 4).sum();
        let length = (head + method.len() + target.len() + 14, 0);
        Some(Self { method, target, host, id, trace, length, fields: all })
    }
}

impl Request<'_, '_> {
    /// How many fields its head has.
    pub fn count(&self) -> usize {
        self.fields.len()
    }

    /// Writes the head as far as it comes from the client, without the line at its end: what is about the connection
    /// is left out, and so is what a client says of where its request came from.
    pub(crate) fn write(&self, head: &mut Vec<u8>) -> Places {
        head.extend_from_slice(self.method.as_bytes());
        head.push(b' ');
        let target = head.len()..head.len() + self.target.len();
        let path =
            target.start..target.start + memchr::memchr(b'?', self.target.as_bytes()).unwrap_or(target.len());
        head.extend_from_slice(self.target.as_bytes());
        head.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        let host = head.len()..head.len() + self.host.len();
        head.extend_from_slice(self.host.as_bytes());
        head.extend_from_slice(b"\r\n");
        for field in self.fields {
            if !matches!(kind(field.name), Kind::Host | Kind::Connection | Kind::Forwarded) {
                line(head, field);
            }
        }
        Places { path, target, host }
    }
}

/// Writes a field as it came.
pub(super) fn line(head: &mut Vec<u8>, field: &Header<'_>) {
    head.extend_from_slice(field.name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(field.value);
    head.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
