//! The entries of a tar archive, one after the other, each with what the archive says of it before it: long names (GNU)
//! and extended headers (pax).

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read};

use tar::{EntryType, Header};

use super::pax::Records;

const BLOCK: u64 = 512;
/// A long name or an extended header may take this many bytes: many times what one file can have.
const LONGEST: u64 = 1 << 20;

/// An archive being read.
pub(crate) struct Entries<R> {
    from: R,
    /// What is left of the content of the entry that was read last, …
    left: u64,
    /// … and what fills its last block.
    padding: u64,
}

/// One entry; reading it gives its content.
pub(crate) struct Entry<'a, R> {
    header: Header,
    before: Before,
    size: u64,
    archive: &'a mut Entries<R>,
}

/// What was said of an entry before it.
#[derive(Default)]
struct Before {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Records>,
}

impl<R: Read> Entries<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, left: 0, padding: 0 }
    }

    /// The next entry; nothing at the end of the archive.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry<'_, R>>> {
        let mut before = Before::default();
        let mut is_first = true;
        while let Some(header) = self.header()? {
            is_first = false;
            let own = header.entry_size()?;
            let place = match header.entry_type() {
                EntryType::GNULongName => &mut before.path,
                EntryType::GNULongLink => &mut before.link,
                EntryType::XHeader => {
                    let records = Records::parse(&self.whole(own)?).map_err(io::Error::other)?;
                    set(&mut before.records, records)?;
                    continue;
                }
                _ => {
                    let size = before.number("size")?.unwrap_or(own);
                    self.begin(size)?;
                    return Ok(Some(Entry { header, before, size, archive: self }));
                }
            };
            let mut name = self.whole(own)?;
            if name.last() == Some(&0) {
                name.pop();
            }
            set(place, name)?;
        }
        if is_first { Ok(None) } else { Err(io::Error::other("it ends where an entry should follow")) }
    }

    /// The next header, if there is one.
    fn header(&mut self) -> io::Result<Option<Header>> {
        self.skip()?;
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        match fill(&mut self.from, bytes)? {
            0 => return Ok(None),
            n if n < bytes.len() => return Err(ErrorKind::UnexpectedEof.into()),
            _ if bytes.iter().all(|b| *b == 0) => return Ok(None),
            _ => {}
        }
        // What holds the checksum counts as spaces.
        let counts = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) };
        let sum: u32 = header.as_bytes().iter().enumerate().map(counts).sum();
        if header.cksum()? != sum {
            return Err(io::Error::other("the checksum of a header does not match"));
        }
        Ok(Some(header))
    }

    fn begin(&mut self, size: u64) -> io::Result<()> {
        let end = size.checked_next_multiple_of(BLOCK);
        self.padding = end.ok_or_else(|| io::Error::other("an entry is larger than anything"))? - size;
        self.left = size;
        Ok(())
    }

    /// Goes to the end of the entry that was read last.
    fn skip(&mut self) -> io::Result<()> {
        let left = std::mem::take(&mut self.left);
        if io::copy(&mut (&mut self.from).take(left), &mut io::sink())? < left {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // The last file's may be missing, with the end of the archive: what vouches for the bytes knows where they end.
        let padding = std::mem::take(&mut self.padding);
        io::copy(&mut (&mut self.from).take(padding), &mut io::sink()).map(drop)
    }

    /// All of what an entry holds that says something of the next.
    fn whole(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > LONGEST {
            return Err(io::Error::other(format!(
                "what it says of one entry takes {size} bytes, and {LONGEST} are allowed"
            )));
        }
        self.begin(size)?;
        let mut bytes = Vec::new();
        (&mut self.from).take(size).read_to_end(&mut bytes)?;
        self.left -= bytes.len() as u64;
        if self.left > 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> io::Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(io::Error::other("it says the same twice of one entry")),
    }
}

/// Reads until `bytes` are full or nothing is left; how many that were.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < bytes.len() {
        match from.read(&mut bytes[at..]) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(at)
}

impl Before {
    fn field(&self, key: &str) -> Option<&[u8]> {
        self.records.as_ref().and_then(|records| records.field(key))
    }

    fn number(&self, key: &'static str) -> io::Result<Option<u64>> {
        let number = self.records.as_ref().map(|records| records.number(key)).transpose();
        number.map(Option::flatten).map_err(io::Error::other)
    }
}

impl<R> Entry<'_, R> {
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn path(&self) -> Cow<'_, [u8]> {
        let said = self.before.path.as_deref().or_else(|| self.before.field("path"));
        said.map_or_else(|| self.header.path_bytes(), Cow::Borrowed)
    }

    pub(crate) fn link(&self) -> Option<Cow<'_, [u8]>> {
        let said = self.before.link.as_deref().or_else(|| self.before.field("linkpath"));
        said.map(Cow::Borrowed).or_else(|| self.header.link_name_bytes())
    }

    pub(crate) fn uid(&self) -> io::Result<u64> {
        self.before.number("uid")?.map_or_else(|| self.header.uid(), Ok)
    }

    pub(crate) fn gid(&self) -> io::Result<u64> {
        self.before.number("gid")?.map_or_else(|| self.header.gid(), Ok)
    }

    /// The records of its extended header.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.before.records.iter().flat_map(Records::iter)
    }
}

impl<R: Read> Read for Entry<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.archive.left).unwrap_or(usize::MAX));
        let n = self.archive.from.read(&mut buffer[..most])?;
        if n == 0 && most > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.archive.left -= n as u64;
        Ok(n)
    }
}
