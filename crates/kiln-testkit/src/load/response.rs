//! As much of HTTP/1.1 as it takes to tell a whole answer from anything else.

use super::plan::Marker;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) length: Length,
    /// Whether the service closes the connection after this answer.
    pub(super) closes: bool,
    pub(super) marker: Option<String>,
}

/// How the end of the body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Known(usize),
    Chunked,
    UntilClose,
}

impl Head {
    /// Reads the head at the start of `bytes` and says how long it is; None if it is not all there yet.
    pub(super) fn parse(bytes: &[u8], marker: &Marker) -> Option<Result<(Self, usize), String>> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let nonsense = || format!("not an answer: {:?}", String::from_utf8_lossy(&bytes[..end.min(80)]));
        let parsed = std::str::from_utf8(&bytes[..end]).ok().and_then(|head| Self::read(head, marker));
        Some(parsed.map(|head| (head, end + 4)).ok_or_else(nonsense))
    }

    fn read(head: &str, marker: &Marker) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let mut read = Self { status, length: Length::UntilClose, closes: false, marker: None };
        for line in lines {
            let (name, value) = line.split_once(':').map(|(n, v)| (n, v.trim()))?;
            if name.eq_ignore_ascii_case("content-length") {
                read.length = Length::Known(value.parse().ok()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                read.length = Length::Chunked;
            } else if name.eq_ignore_ascii_case("connection") {
                read.closes |= value.eq_ignore_ascii_case("close");
            }
            if matches!(marker, Marker::Header(wanted) if name.eq_ignore_ascii_case(wanted)) {
                read.marker = Some(value.to_owned());
            }
        }
        read.closes |= read.length == Length::UntilClose;
        Some(read)
    }
}

/// The contents of a chunked body that is all in `bytes`; None if its end is not there yet.
pub(super) fn chunks(bytes: &[u8]) -> Option<Result<Vec<u8>, String>> {
    let (mut body, mut rest) = (Vec::new(), bytes);
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).ok().and_then(|s| usize::from_str_radix(s, 16).ok());
        let Some(size) = size else { return Some(Err("a chunk without a size".into())) };
        let chunk = rest.get(line + 2..)?;
        let (data, after) = (chunk.get(..size)?, chunk.get(size..size + 2)?);
        if after != b"\r\n" {
            return Some(Err("a chunk longer than its size".into()));
        }
        body.extend_from_slice(data);
        rest = &chunk[size + 2..];
        if size == 0 {
            return Some(Ok(body));
        }
    }
}

/// What a body says about who sent it.
pub(super) fn first_line(body: &[u8]) -> String {
    let line = body.split(|b| *b == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).trim_end().chars().take(80).collect()
}
