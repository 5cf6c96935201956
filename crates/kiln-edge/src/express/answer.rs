//! The head of an instance's answer, and what it says of the body behind it.

use std::mem::MaybeUninit;
use std::time::SystemTime;

use httparse::{Header, ParserConfig};

use super::field::{Kind, kind, length_of_answer};
use super::request::line;
use crate::hygiene;

/// Header fields of an answer for which there is room.
pub const FIELDS: usize = 128;

/// What the first bytes of an answer are.
pub enum Parsed<'h, 'b> {
    /// Too few to tell.
    Partial,
    /// No answer in HTTP/1.1.
    Garbage,
    /// The head of one that precedes the answer, of so many bytes.
    Interim(usize),
    /// The head of the answer.
    Whole(Answer<'h, 'b>),
}

/// One answer.
pub struct Answer<'h, 'b> {
    /// Its status.
    pub status: u16,
    /// The bytes of its head.
    pub length: usize,
    /// How the end of its body is known.
    pub framing: Framing,
    /// Whether the connection may carry another request after it.
    pub keeps: bool,
    /// Whether it is events, as they happen.
    pub is_events: bool,
    reason: &'b str,
    fields: &'h [Header<'b>],
    has_date: bool,
    has_id: bool,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Nothing,
    /// By so many bytes.
    Length(u64),
    /// By a last chunk.
    Chunks,
    /// By the end of the connection.
    Close,
}

/// Reads the head at the beginning of `bytes`, the answer to a request with this method; `at_most` fields are
/// understood.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut [MaybeUninit<Header<'b>>; FIELDS],
    method: &str,
    at_most: usize,
) -> Parsed<'h, 'b> {
    let mut head = httparse::Response::new(&mut []);
    let room = &mut room[..at_most.min(FIELDS)];
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut head, bytes, room);
    let end = match parsed {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Garbage,
    };
    let (Some(status), Some(reason), Some(version)) = (head.code, head.reason, head.version) else {
        return Parsed::Garbage;
    };
    if (100..200).contains(&status) {
        // Nobody asked to go over to another protocol.
        return if status == 101 { Parsed::Garbage } else { Parsed::Interim(end) };
    }
    let Some(fields) = fields(head.headers).filter(|_| (200..1000).contains(&status)) else {
        return Parsed::Garbage;
    };
    let framing = match (fields.is_chunked, fields.length) {
        _ if method == "HEAD" || matches!(status, 204 | 304) => Framing::Nothing,
        // Who knows only HTTP/1.0 knows no coding: whoever stands in between may take it otherwise (RFC 9112, 6.1).
        (true, _) if version == 0 => return Parsed::Garbage,
        (true, _) => Framing::Chunks,
        (false, Some(0)) => Framing::Nothing,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Close,
    };
    let keeps = fields.keeps && version == 1 && framing != Framing::Close;
    let Fields { is_events, has_date, has_id, .. } = fields;
    let fields = head.headers;
    Parsed::Whole(Answer { status, length: end, framing, keeps, is_events, reason, fields, has_date, has_id })
}

/// What fields say.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    is_chunked: bool,
    keeps: bool,
    is_events: bool,
    has_date: bool,
    has_id: bool,
}

/// None if they cannot be understood.
fn fields(all: &[Header<'_>]) -> Option<Fields> {
    let mut said = Fields { keeps: true, ..Fields::default() };
    for field in all {
        match kind(field.name) {
            Kind::ContentLength => {
                let length = length_of_answer(field.value)?;
                if said.length.replace(length).is_some_and(|before| before != length) {
                    return None;
                }
            }
            Kind::TransferEncoding => {
                // Nothing else was asked for.
                if said.is_chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return None;
                }
                said.is_chunked = true;
            }
            Kind::Connection => said.keeps &= !names(field.value, "close"),
            Kind::ContentType => said.is_events = field.value.starts_with(b"text/event-stream"),
            Kind::Date => said.has_date = true,
            Kind::RequestId => said.has_id = true,
            _ => {}
        }
    }
    Some(said)
}

/// Whether a list has this name in it.
fn names(list: &[u8], name: &str) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
}

impl Answer<'_, '_> {
    /// How many fields its head has.
    pub(crate) fn count(&self) -> usize {
        self.fields.len()
    }

    /// Writes the head for a client of HTTP/1.1, without the line at its end: what is about the instance's connection
    /// is left out, and the body behind it is framed by its length or in chunks. Whether the answer names its request.
    pub(crate) fn write(&self, head: &mut Vec<u8>) -> bool {
        let status = [
            b'0' + (self.status / 100) as u8,
            b'0' + (self.status / 10 % 10) as u8,
            b'0' + (self.status % 10) as u8,
        ];
        head.extend_from_slice(b"HTTP/1.1 ");
        head.extend_from_slice(&status);
        head.push(b' ');
        head.extend_from_slice(self.reason.as_bytes());
        head.extend_from_slice(b"\r\n");
        self.passed_on().for_each(|field| line(head, &field));
        if !self.has_date {
            date(head);
        }
        if matches!(self.framing, Framing::Chunks | Framing::Close) {
            head.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        self.has_id
    }

    /// The fields that go on.
    pub(crate) fn passed_on(&self) -> impl Iterator<Item = Header<'_>> {
        let mut says_length = matches!(self.framing, Framing::Chunks | Framing::Close) || self.status == 204;
        self.fields.iter().filter_map(move |field| match kind(field.name) {
            Kind::HopByHop | Kind::Connection | Kind::TransferEncoding => None,
            // Once.
            Kind::ContentLength if std::mem::replace(&mut says_length, true) => None,
            Kind::ContentLength => Some(Header { value: hygiene::first_of_list(field.value), ..*field }),
            Kind::Date | Kind::RequestId => Some(*field),
            _ => (!self.is_named(field.name)).then_some(*field),
        })
    }

    /// Whether `Connection` says of a field that it is about the connection.
    fn is_named(&self, name: &str) -> bool {
        self.fields.iter().any(|f| kind(f.name) == Kind::Connection && names(f.value, name))
    }
}

/// Says what time it is, for those who do not say it themselves (RFC 9110, 6.6.1).
pub(super) fn date(head: &mut Vec<u8>) {
    head.extend_from_slice(format!("date: {}\r\n", httpdate::fmt_http_date(SystemTime::now())).as_bytes());
}

#[cfg(test)]
mod tests;
