//! An `ar` archive as packages are: a magic word, then members one after another.
//!
//! ```text
//! !<arch>\n
//! name (16) time (12) uid (6) gid (6) mode (8) size in decimal (10) `\n     padded with spaces
//! content, and a newline if its size is odd
//! ```
//! Long names have tables of their own elsewhere. No package needs one: a name is what is in its field.

use std::io::{self, Read};

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER: usize = 60;
const NAME: std::ops::Range<usize> = 0..16;
const SIZE: std::ops::Range<usize> = 48..58;
const END: &[u8; 2] = b"`\n";

/// An archive being read.
pub(super) struct Archive<R> {
    from: R,
    /// What has not been read of the member at hand, and whether a newline follows it.
    left: u64,
    is_padded: bool,
}

impl<R: Read> Archive<R> {
    pub(super) fn open(mut from: R) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        match from.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
            _ => return Err(wrong("it is no archive")),
        }
        Ok(Self { from, left: 0, is_padded: false })
    }

    /// The next member, by name, if there is one. What was not read of the one before is passed over.
    pub(super) fn next(&mut self) -> io::Result<Option<(String, Member<'_, R>)>> {
        io::copy(&mut Member(self), &mut io::sink())?;
        if self.is_padded {
            (&mut self.from).take(1).read_to_end(&mut Vec::new())?;
        }
        let mut header = Vec::with_capacity(HEADER);
        (&mut self.from).take(HEADER as u64).read_to_end(&mut header)?;
        if header.is_empty() {
            return Ok(None);
        }
        if header.len() < HEADER || !header.ends_with(END) {
            return Err(wrong("it has no header where a member should begin"));
        }
        let text = |field| String::from_utf8_lossy(&header[field]).trim_end().to_owned();
        let size = text(SIZE);
        let is_number = size.bytes().all(|b| b.is_ascii_digit());
        self.left = size
            .parse()
            .ok()
            .filter(|_| is_number)
            .ok_or_else(|| wrong("the size of a member is no number"))?;
        self.is_padded = self.left % 2 == 1;
        Ok(Some((text(NAME), Member(self))))
    }
}

/// The content of the member at hand.
pub(super) struct Member<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Member<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Archive { from, left, .. } = self.0;
        let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let n = from.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle of a member"));
        }
        *left -= n as u64;
        Ok(n)
    }
}

fn wrong(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, size: &str, content: &str) -> String {
        format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n{content}", 0, 0, 0, 644)
    }

    fn read(archive: &str) -> io::Result<Vec<(String, String)>> {
        let mut archive = Archive::open(archive.as_bytes())?;
        let mut all = Vec::new();
        while let Some((name, mut content)) = archive.next()? {
            let mut text = String::new();
            // Of some only the beginning.
            content.by_ref().take(2).read_to_string(&mut text)?;
            all.push((name, text));
        }
        Ok(all)
    }

    #[test]
    fn members_come_one_after_another() {
        let all = ["!<arch>\n", &member("odd", "3", "abc\n"), &member("even/", "4", "defg")].concat();
        assert_eq!(read(&all).unwrap(), [("odd".into(), "ab".into()), ("even/".into(), "de".into())]);
        assert_eq!(read("!<arch>\n").unwrap(), []);
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        for (archive, says) in [
            ("!<arch>X".to_owned(), "no archive"),
            ("!<arch".to_owned(), "no archive"),
            (String::new(), "no archive"),
            (["!<arch>\n", &member("a", "+3", "abc")].concat(), "no number"),
            (["!<arch>\n", &member("a", "", "abc")].concat(), "no number"),
            (["!<arch>\n", &member("a", "5", "abc")].concat(), "middle of a member"),
            (["!<arch>\n", &member("a", "-5", "abc")].concat(), "no number"),
            (["!<arch>\n", &member("a", "2", "ab"), "half a header"].concat(), "no header"),
        ] {
            let refused = read(&archive).unwrap_err().to_string();
            assert!(refused.contains(says), "{archive}: {refused}");
        }
        // A name out of a table that is not there is a name like any other.
        let table = ["!<arch>\n", &member("/80000", "2", "ab")].concat();
        assert_eq!(read(&table).unwrap()[0].0, "/80000");
    }
}
