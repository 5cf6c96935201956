//! A second look at the head of a request of HTTP/1.1, at the bytes themselves.
//!
//! hyper takes a request that says its length in two ways by the stricter of them and then closes the connection,
//! which is safe, and leaves no trace of it. What cannot be understood in one way only is better not answered at all
//! (RFC 9112, 6.3), so the first head of what is read is looked through for both.

/// Follows the bytes of one head, in whatever pieces they come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadCheck {
    /// The beginning of the current line, as far as it can matter.
    line: [u8; LONGEST],
    length: usize,
    has_length: bool,
    has_encoding: bool,
    ended: bool,
}

const LENGTH: &[u8] = b"content-length";
const ENCODING: &[u8] = b"transfer-encoding";
const LONGEST: usize = ENCODING.len() + 1;

impl HeadCheck {
    /// Follows these bytes; what comes after the head is none of its business.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !self.ended && !bytes.is_empty() {
            let (line, whole) = match memchr::memchr(b'\n', bytes) {
                Some(end) => (&bytes[..end], true),
                None => (bytes, false),
            };
            let room = LONGEST - self.length;
            let beginning = &line[..line.len().min(room)];
            self.line[self.length..self.length + beginning.len()].copy_from_slice(beginning);
            self.length += beginning.len();
            if whole {
                self.end_line();
                bytes = &bytes[line.len() + 1..];
            } else {
                return;
            }
        }
    }

    fn end_line(&mut self) {
        let line = &self.line[..self.length];
        let names = |name: &[u8]| {
            let after = line.get(name.len());
            line.len() > name.len()
                && line[..name.len()].eq_ignore_ascii_case(name)
                && matches!(after, Some(b':' | b' ' | b'\t'))
        };
        self.has_length |= names(LENGTH);
        self.has_encoding |= names(ENCODING);
        self.ended = matches!(line, [] | [b'\r']) && self.length < 2;
        self.length = 0;
    }

    /// Whether the head says the length of its body in two ways.
    pub fn is_ambiguous(&self) -> bool {
        self.has_length && self.has_encoding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, piece: usize) -> bool {
        let mut check = HeadCheck::default();
        head.as_bytes().chunks(piece).for_each(|bytes| check.pass(bytes));
        check.is_ambiguous()
    }

    #[test]
    fn both_ways_are_found_in_any_order_and_pieces() {
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\nX: y\r\ncontent-length:4\r\n\r\n",
            "POST / HTTP/1.1\nTRANSFER-ENCODING : x\nCONTENT-LENGTH\t: 4\n\n",
        ] {
            assert!([1, 2, 5, 16, 17, 18, 19, 1000].iter().all(|piece| check(head, *piece)), "{head:?}");
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
            assert!([1, 3, 1000].iter().all(|piece| !check(head, *piece)), "{head:?}");
        }
    }

    #[test]
    fn the_pieces_do_not_matter_whatever_the_bytes() {
        let seed = b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nbody".to_vec();
        let mut state = 3u64;
        for _ in 0..5_000 {
            let mut bytes = seed.clone();
            for _ in 0..2 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 17) as u8;
            }
            let (mut whole, mut pieces) = (HeadCheck::default(), HeadCheck::default());
            whole.pass(&bytes);
            bytes.chunks(1 + (state >> 60) as usize).for_each(|piece| pieces.pass(piece));
            assert_eq!(whole.is_ambiguous(), pieces.is_ambiguous(), "{bytes:?}");
        }
    }
}
