//! Bodies in chunks (RFC 9112, 7.1), taken apart: what is between the data goes no further.

/// The longest size, extensions and trailers that anybody needs, in bytes, for a whole body.
const ASIDE: usize = 16 * 1024;

/// Follows a body in chunks, in whatever pieces it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunks {
    state: State,
    /// Bytes that may still be spent on what is no data.
    aside: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a size of so many digits.
    Size(u64, u8),
    /// In what follows it on its line.
    Extension(u64),
    /// Before the end of that line.
    SizeEnd(u64),
    Data(u64),
    /// Behind data, before the end of its line.
    DataCr,
    DataLf,
    /// At the beginning of a line behind the last chunk.
    Trailer,
    /// In such a line.
    InTrailer,
    TrailerLf,
    /// Before the last end of a line.
    LastLf,
    Done,
}

/// This is no body in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Default for Chunks {
    fn default() -> Self {
        Self { state: State::Size(0, 0), aside: ASIDE }
    }
}

impl Chunks {
    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Goes through `bytes` up to the next data in them, or through all of them: how many are behind then, and which
    /// of them, the last ones, are data.
    ///
    /// # Errors
    /// If they do not go on as they should.
    pub fn next<'b>(&mut self, bytes: &'b [u8]) -> Result<(usize, &'b [u8]), Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            if let State::Data(left) = self.state {
                let rest = &bytes[at..];
                let data = &rest[..rest.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
                let left = left - data.len() as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                return Ok((at + data.len(), data));
            }
            if self.state == State::Done {
                break;
            }
            self.aside = self.aside.checked_sub(1).ok_or(Malformed)?;
            self.state = self.state.after(bytes[at])?;
            if self.state == State::DataLf {
                // What each chunk needs is no more than fair.
                self.aside = self.aside.saturating_add(24).min(ASIDE);
            }
            at += 1;
        }
        Ok((at, &[]))
    }
}

impl State {
    fn after(self, byte: u8) -> Result<Self, Malformed> {
        Ok(match (self, byte) {
            (Self::Size(size, digits), byte) if byte.is_ascii_hexdigit() && digits < 16 => {
                let digit = (byte as char).to_digit(16).ok_or(Malformed)?;
                Self::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (Self::Size(size, 1..), b'\r') => Self::SizeEnd(size),
            (Self::Size(size, 1..), b';' | b' ' | b'\t') => Self::Extension(size),
            (Self::Extension(size), b'\r') => Self::SizeEnd(size),
            (Self::Extension(size), byte) if byte == b'\t' || byte >= b' ' && byte != 0x7f => {
                Self::Extension(size)
            }
            (Self::SizeEnd(0), b'\n') => Self::Trailer,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size(0, 0),
            (Self::Trailer, b'\r') => Self::LastLf,
            (Self::Trailer | Self::InTrailer, byte) if byte == b'\t' || byte >= b' ' && byte != 0x7f => {
                Self::InTrailer
            }
            (Self::InTrailer, b'\r') => Self::TrailerLf,
            (Self::TrailerLf, b'\n') => Self::Trailer,
            (Self::LastLf, b'\n') => Self::Done,
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spoilt::Numbers;

    /// The data of a body, if it is whole, and how many bytes it took.
    fn whole(body: &[u8], piece: usize) -> Option<(Vec<u8>, usize)> {
        let (mut chunks, mut data, mut taken) = (Chunks::default(), Vec::new(), 0);
        for mut bytes in body.chunks(piece) {
            while !bytes.is_empty() && !chunks.is_done() {
                let (behind, part) = chunks.next(bytes).ok()?;
                data.extend_from_slice(part);
                taken += behind;
                bytes = &bytes[behind..];
            }
        }
        chunks.is_done().then_some((data, taken))
    }

    #[test]
    fn data_is_found_whatever_the_pieces() {
        for (body, data) in [
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("05;a=\"b\"\r\nhello\r\n1 \r\n!\r\n000\r\nX: y\r\nZ: w\r\n\r\n", "hello!"),
            ("a\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n0\r\n\r\n"),
        ] {
            let more = format!("{body}HTTP/1.1 200 OK");
            for piece in [1, 2, 3, 7, 1000] {
                assert_eq!(
                    whole(more.as_bytes(), piece),
                    Some((data.into(), body.len())),
                    "{body:?} {piece}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_body_in_chunks_is_none() {
        let endless = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(ASIDE));
        for body in [
            "zz\r\n",
            "\r\n0\r\n\r\n",
            "5\nhello\n0\n\n",
            "5\r\nhello0\r\n\r\n",
            "5;\nhello",
            "0x5\r\nhello",
            "+5\r\nhello",
            "11111111111111111\r\nx",
            "0\r\nX: y\n\r\n",
            &endless,
        ] {
            assert!([1, 4, 100_000].iter().all(|piece| whole(body.as_bytes(), *piece).is_none()), "{body:?}");
        }
    }

    #[test]
    fn mutated_bodies_mean_the_same_in_any_pieces() {
        let seed = b"5;x\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\nmore".to_vec();
        let mut numbers = Numbers::from(7);
        for _ in 0..5_000 {
            let bytes = numbers.spoil(&seed, 2, Numbers::byte);
            let piece = 1 + numbers.below(16);
            assert_eq!(whole(&bytes, bytes.len()), whole(&bytes, piece), "{bytes:?}");
        }
    }
}
