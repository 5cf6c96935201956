//! A second look at the heads of requests of HTTP/1.1, at the bytes themselves.
//!
//! hyper takes a request that says its length in two ways by the stricter of them and then closes the connection,
//! which is safe, and leaves no trace of it. What cannot be understood in one way only is better not answered at all
//! (RFC 9112, 6.3), so every head on a connection is looked through for both.
//!
//! To find the heads, bodies are followed by their framing. That has to agree with hyper on what hyper accepts, and on
//! nothing else: what it refuses ends the connection. Where the two could differ about where the next head begins,
//! the next head is refused.

/// Follows the bytes of a connection, in whatever pieces they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadCheck {
    at: At,
    /// The beginning of the current line, as far as it can matter.
    line: [u8; LONGEST],
    length: usize,
    is_cut: bool,
    /// The byte before the one that is looked at, within the line.
    last: u8,
    /// What the head under way has said so far; none before its first line.
    head: Option<Head>,
    heads: u32,
    refused: Option<u32>,
    /// The first line of the head that was last begun, as far as it is kept; and which head that is.
    start: Vec<u8>,
    started: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Head {
    length: Option<u64>,
    has_encoding: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    /// In a body, so many bytes before its end.
    Body(u64),
    /// At the line with the size of a chunk.
    Size,
    /// In a chunk, so many bytes before the end of the line break behind it.
    Chunk(u64),
    /// Behind the last chunk.
    Trailers,
    /// Where nothing that follows is a request.
    Lost,
}

const LENGTH: &[u8] = b"content-length";
const ENCODING: &[u8] = b"transfer-encoding";
/// As much of a line as can matter: a name, and the longest number.
const LONGEST: usize = 64;
/// As much of a first line as is kept, for those who want to say which request it was.
const START: usize = 2048;

impl Default for HeadCheck {
    fn default() -> Self {
        let (length, is_cut, last, head, heads, refused) = Default::default();
        let (start, started) = Default::default();
        Self { at: At::Head, line: [0; LONGEST], length, is_cut, last, head, heads, refused, start, started }
    }
}

impl HeadCheck {
    /// Follows these bytes.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let passed = match self.at {
                At::Lost => return,
                At::Body(left) | At::Chunk(left) => self.skip(left, bytes.len()),
                At::Head | At::Size | At::Trailers => self.gather(bytes),
            };
            bytes = &bytes[passed..];
        }
    }

    /// Which head is not to be answered, counted from 1, because it says the length of its body in two ways or because
    /// it may not be where it seems to be. It is the last that is looked at.
    pub fn refused(&self) -> Option<u32> {
        self.refused
    }

    /// How the head with this number begins, counted from 1, if it is the one last begun.
    pub(crate) fn start_of(&self, head: u32) -> Option<&[u8]> {
        (self.started == head && !self.start.is_empty()).then_some(&self.start[..])
    }

    fn skip(&mut self, left: u64, there: usize) -> usize {
        let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        let left = left - skipped as u64;
        self.at = match (self.at, left) {
            (At::Body(_), 0) => At::Head,
            (At::Body(_), _) => At::Body(left),
            (_, 0) => At::Size,
            _ => At::Chunk(left),
        };
        skipped
    }

    /// Takes up to the end of the line, or all there is.
    fn gather(&mut self, bytes: &[u8]) -> usize {
        let end = memchr::memchr(b'\n', bytes);
        let part = &bytes[..end.unwrap_or(bytes.len())];
        if self.at == At::Head && self.head.is_none() {
            self.begin(part);
        }
        let taken = part.len().min(LONGEST - self.length);
        self.line[self.length..self.length + taken].copy_from_slice(&part[..taken]);
        self.length += taken;
        self.is_cut |= taken < part.len();
        self.last = part.last().copied().unwrap_or(self.last);
        if end.is_some() {
            self.end_line();
            (self.length, self.is_cut, self.last) = Default::default();
        }
        part.len() + usize::from(end.is_some())
    }

    /// Keeps what belongs to the first line of a head.
    fn begin(&mut self, part: &[u8]) {
        if self.length == 0 {
            self.start.clear();
            self.started = self.heads.saturating_add(1);
        }
        let room = START - self.start.len();
        self.start.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self) {
        match self.at {
            At::Size => self.size(),
            // hyper ends these at CRLF only.
            At::Trailers if self.last != b'\r' => self.refuse_the_next(),
            At::Trailers if self.line() == b"\r" => self.at = At::Head,
            At::Head if matches!(self.line(), [] | [b'\r']) => {
                // Empty lines before a request mean nothing.
                if let Some(head) = self.head.take() {
                    self.end_head(head);
                }
            }
            At::Head => self.field(),
            At::Trailers | At::Body(_) | At::Chunk(_) | At::Lost => {}
        }
    }

    fn line(&self) -> &[u8] {
        &self.line[..self.length]
    }

    fn field(&mut self) {
        let mut head = self.head.unwrap_or_default();
        head.has_encoding |= value(self.line(), ENCODING).is_some();
        if let Some(value) = value(self.line(), LENGTH) {
            match number(value).filter(|_| !self.is_cut) {
                Some(length) => head.length = Some(length),
                None => return self.refuse_the_next(),
            }
        }
        self.head = Some(head);
    }

    fn end_head(&mut self, head: Head) {
        if head.has_encoding && head.length.is_some() {
            return self.refuse_the_next();
        }
        self.heads = self.heads.saturating_add(1);
        self.at = match head.length {
            // The one encoding of requests that hyper accepts is `chunked`.
            _ if head.has_encoding => At::Size,
            Some(length @ 1..) => At::Body(length),
            _ => At::Head,
        };
    }

    fn size(&mut self) {
        let digits = self.line().iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let text = std::str::from_utf8(&self.line()[..digits]).unwrap_or_default();
        let size = u64::from_str_radix(text, 16).ok().and_then(|size| Some((size, size.checked_add(2)?)));
        match size {
            Some(_) if self.last != b'\r' || digits == LONGEST => self.refuse_the_next(),
            Some((0, _)) => self.at = At::Trailers,
            Some((_, with_break)) => self.at = At::Chunk(with_break),
            None => self.refuse_the_next(),
        }
    }

    fn refuse_the_next(&mut self) {
        self.refused = Some(self.heads.saturating_add(1));
        self.at = At::Lost;
    }
}

/// What a line says of a field, if it is the one with this name.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    rest.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii)
}

/// A number as hyper reads it: digits, and nothing but digits.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spoilt::Numbers;

    fn refused(bytes: &[u8], piece: usize) -> Option<u32> {
        let mut check = HeadCheck::default();
        bytes.chunks(piece).for_each(|bytes| check.pass(bytes));
        check.refused()
    }

    const PIECES: [usize; 9] = [1, 2, 3, 5, 16, 17, 18, 19, 1000];
    const BOTH: &str = "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn both_ways_are_found_in_any_order_and_pieces() {
        for head in [
            BOTH,
            "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\nX: y\r\ncontent-length:4\r\n\r\n",
            "POST / HTTP/1.1\nTRANSFER-ENCODING : x\nCONTENT-LENGTH\t: 4\n\n",
            "\r\nPOST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(PIECES.iter().all(|piece| refused(head.as_bytes(), *piece) == Some(1)), "{head:?}");
        }
    }

    #[test]
    fn one_way_is_one_way() {
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Lengthy: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nX: Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /content-length:transfer-encoding: HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(PIECES.iter().all(|piece| refused(head.as_bytes(), *piece).is_none()), "{head:?}");
        }
    }

    /// Requests that are as they should be, with bodies that look like heads.
    const FAIR: [&str; 8] = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\nGET / HTTP/1.1\nHost: a\n\n",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length:  68 \r\n\r\n\
         \r\nPOST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
         044;x=\"y\"\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\r\n00 \r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\n",
        "PUT / HTTP/1.1\r\nCookie: 0123456789012345678901234567890123456789012345678901234567890123456789\r\n\r\n",
    ];

    #[test]
    fn every_head_of_a_connection_is_found_wherever_it_is() {
        let mut numbers = Numbers::from(5);
        let mut below = |n: usize| numbers.below(n);
        for _ in 0..5_000 {
            let many = below(6);
            let mut bytes: String = (0..many).map(|_| FAIR[below(FAIR.len())]).collect();
            let piece = 1 + below(100);
            assert_eq!(refused(bytes.as_bytes(), piece), None, "{bytes:?}");
            bytes.push_str(BOTH);
            assert_eq!(refused(bytes.as_bytes(), piece), Some(many as u32 + 1), "{bytes:?}");
        }
    }

    #[test]
    fn how_a_head_begins_is_known_until_the_next_one_does() {
        for piece in PIECES {
            let mut check = HeadCheck::default();
            let mut pass = |bytes: &[u8]| {
                bytes.chunks(piece).for_each(|bytes| check.pass(bytes));
                let starts = [1, 2, 3].map(|head| check.start_of(head).map(<[u8]>::to_vec));
                starts.map(|start| start.map(|start| String::from_utf8(start).unwrap()))
            };
            let line = |text: &str| Some(text.to_owned());
            assert_eq!(pass(b"\r\nGET /a HT"), [line("GET /a HT"), None, None]);
            assert_eq!(pass(b"TP/1.1\r\nX: y\r\n"), [line("GET /a HTTP/1.1\r"), None, None]);
            assert_eq!(pass(b"\r\nGET /b"), [None, line("GET /b"), None]);
            let long = "b".repeat(10_000);
            let start = format!("GET /b{}", &long[..START - 6]);
            assert_eq!(pass(long.as_bytes()), [None, Some(start), None]);
        }
    }

    #[test]
    fn what_follows_something_that_may_be_read_in_two_ways_is_refused() {
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let zeroes = format!("{:0>80}\r\n", 5);
        for body in ["5\nhello\r\n", "0\r\nX: y\n\r\n", "x\r\n", "ffffffffffffffff\r\n", "\r\n", &zeroes] {
            assert_eq!(refused(format!("{chunked}{body}").as_bytes(), 1000), Some(2), "{body:?}");
        }
        for length in ["+5", "5,5", "", "0x5", "99999999999999999999", "5\u{b}5"] {
            let head = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(refused(head.as_bytes(), 1000), Some(1), "{head:?}");
        }
    }

    #[test]
    fn the_pieces_do_not_matter_whatever_the_bytes() {
        let seed = [FAIR[5], BOTH, "body"].concat().into_bytes();
        let mut numbers = Numbers::from(3);
        for _ in 0..5_000 {
            let bytes = numbers.spoil(&seed, 2, Numbers::byte);
            let (mut whole, mut pieces) = (HeadCheck::default(), HeadCheck::default());
            whole.pass(&bytes);
            bytes.chunks(1 + numbers.below(16)).for_each(|piece| pieces.pass(piece));
            assert_eq!(whole.refused(), pieces.refused(), "{bytes:?}");
        }
    }
}
