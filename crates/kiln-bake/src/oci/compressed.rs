//! Decompression by what the bytes say they are: gzip, zstd (also many frames, with skippable ones between, as
//! chunked layers have), or nothing.

use std::io::{self, BufRead, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// The first of the sixteen magic numbers of skippable frames.
const SKIPPABLE: u32 = 0x184d_2a50;

/// The decompressed bytes of `reader`.
pub(crate) fn decompressed<'a>(mut reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = reader.fill_buf()?;
    let skippable = start.first_chunk().is_some_and(|four| is_skippable(*four));
    if start.starts_with(GZIP) {
        Ok(Box::new(MultiGzDecoder::new(reader)))
    } else if start.starts_with(ZSTD) || skippable {
        Ok(Box::new(Frames::Between(Box::new(reader))))
    } else {
        Ok(Box::new(reader))
    }
}

fn is_skippable(magic: [u8; 4]) -> bool {
    u32::from_le_bytes(magic) & !15 == SKIPPABLE
}

type Source<'a> = Box<dyn Read + 'a>;
type Frame<'a> = io::Chain<Cursor<[u8; 4]>, Source<'a>>;

/// Frames of zstd, one after another.
enum Frames<'a> {
    Between(Source<'a>),
    Within(Box<StreamingDecoder<Frame<'a>, ruzstd::decoding::FrameDecoder>>),
    Ended,
}

impl<'a> Frames<'a> {
    /// The next frame that holds something, if there is one.
    fn next(mut source: Source<'a>) -> io::Result<Self> {
        loop {
            let mut magic = [0; 4];
            match read_up_to(&mut source, &mut magic)? {
                0 => return Ok(Self::Ended),
                4 => {}
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            if !is_skippable(magic) {
                let frame = Cursor::new(magic).chain(source);
                let decoder = StreamingDecoder::new(frame).map_err(invalid)?;
                return Ok(Self::Within(Box::new(decoder)));
            }
            let mut length = [0; 4];
            source.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            if io::copy(&mut (&mut source).take(length), &mut io::sink())? != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn read_up_to(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a damaged zstd frame: {error}"))
}

impl Read for Frames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(self, Self::Ended) {
                Self::Ended => return Ok(0),
                Self::Between(source) => *self = Self::next(source)?,
                Self::Within(mut decoder) => match decoder.read(buffer)? {
                    0 if !buffer.is_empty() => *self = Self::Between(decoder.into_inner().into_inner().1),
                    n => {
                        *self = Self::Within(decoder);
                        return Ok(n);
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompressed(bytes)?.read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn each_form_is_known_by_its_beginning() {
        let text = b"hello, hello, hello".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd =
            ruzstd::encoding::compress_to_vec(text.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        let skippable = [&0x184d_2a57_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"xyz"].concat();
        for whole in [text.clone(), gzip.clone(), zstd.clone(), [&skippable[..], &zstd, &skippable].concat()]
        {
            assert_eq!(read(&whole).unwrap(), text);
        }
        assert_eq!(read(&[&zstd[..], &zstd].concat()).unwrap(), text.repeat(2));
        for cut in [&gzip[..gzip.len() - 9], &zstd[..zstd.len() - 3], &skippable[..9]] {
            assert!(read(cut).is_err());
        }
    }
}
