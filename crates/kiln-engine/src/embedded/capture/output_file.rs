//! The files output is kept in.
//!
//! ```text
//!   <output dir>/<instance id>.log      what was written last, up to 16 MiB
//!   <output dir>/<instance id>.log.1    what was written before that, up to 16 MiB; absent as long as all fits
//!   <output dir>/<instance id>.log.new  for a moment, while one takes the place of the other
//! ```
//! What is older than both is gone; how much, the first line of the newer one says.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_model::{InstanceId, OutputTime};
use rustix::fs::{AtFlags, Mode, OFlags, fstat, ftruncate, open, openat, renameat, statat};
use rustix::io::Errno;

use super::note::Note;
use super::transit::ONE_TURN;

/// The directory of output, held open.
#[derive(Debug)]
pub(crate) struct OutputDir {
    dir: OwnedFd,
    most: u64,
}

/// Where lines go: a file, and how long it is without them.
pub(super) struct Place {
    file: OwnedFd,
    pub(super) offset: u64,
}

/// How much a file may hold.
const WHOLE: u64 = 16 << 20;
/// The most that the bytes of one turn make: each may be a line of its own, and what stands before a line is longer.
const WORST: u64 = (ONE_TURN * 42) as u64;
/// How much it may hold with what is added, as bytes of an instance, before it is set aside.
const MOST: u64 = WHOLE - WORST;

impl OutputDir {
    /// Opens the directory.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { dir: open(path, flags, Mode::empty())?, most: MOST })
    }

    /// Opens the directory, with files of another size.
    #[cfg(test)]
    pub(super) fn with_files_of(most: u64, path: &Path) -> Self {
        Self { most, ..Self::open(path).unwrap() }
    }

    /// Where the next lines of an instance go, made of `more` bytes: a full file is set aside before. Opened for that
    /// only: an idle instance costs no descriptor.
    pub(super) fn place(&self, id: &InstanceId, more: usize, now: OutputTime) -> io::Result<Place> {
        let name = format!("{id}.log");
        let place = self.end_of(&name)?;
        if place.offset == 0 || place.offset + more as u64 <= self.most {
            return Ok(place);
        }
        self.set_aside(&name, place, now)?;
        self.end_of(&name)
    }

    /// Where lines were going when a keeper was killed.
    pub(super) fn place_again(&self, id: &InstanceId, offset: u64) -> io::Result<Place> {
        let place = self.end_of(&format!("{id}.log"))?;
        Ok(Place { offset: offset.min(place.offset), ..place })
    }

    fn end_of(&self, name: &str) -> io::Result<Place> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                // A keeper may have been killed when it had set aside the one and not yet put the other in its place.
                let _ = renameat(&self.dir, format!("{name}.new"), &self.dir, name);
                openat(&self.dir, name, flags | OFlags::CREATE, Mode::from_raw_mode(0o640))?
            }
            other => other?,
        };
        let offset = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        Ok(Place { file, offset })
    }

    fn set_aside(&self, name: &str, full: Place, now: OutputTime) -> io::Result<()> {
        let (old, new) = (format!("{name}.1"), format!("{name}.new"));
        let going =
            statat(&self.dir, &old, AtFlags::SYMLINK_NOFOLLOW).map_or(0, |s| s.st_size.unsigned_abs());
        let gone = Note::gone(&full.beginning()?).saturating_add(going);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, &new, flags, Mode::from_raw_mode(0o640))?;
        if gone > 0 {
            Place { file, offset: 0 }.write(&Note::Gone(gone).line(now))?;
        }
        renameat(&self.dir, name, &self.dir, &old)?;
        Ok(renameat(&self.dir, &new, &self.dir, name)?)
    }
}

impl Place {
    /// Writes lines there, all of them or none. Doing it again with the same lines changes nothing.
    pub(super) fn write(&self, lines: &[u8]) -> io::Result<()> {
        let written = self.write_all(lines);
        if written.is_err() {
            // Half a line would spoil the next one.
            ftruncate(&self.file, self.offset)?;
        }
        written
    }

    fn write_all(&self, mut lines: &[u8]) -> io::Result<()> {
        let mut offset = self.offset;
        while !lines.is_empty() {
            match rustix::io::pwrite(&self.file, lines, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    lines = &lines[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Enough of the file's beginning for a note.
    fn beginning(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; Note::LONGEST];
        let length = rustix::io::pread(&self.file, &mut bytes[..], 0)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;

    const NOW: OutputTime = OutputTime(0);

    fn id() -> InstanceId {
        "app-web-1-1".parse().unwrap()
    }

    #[test]
    fn a_full_file_is_set_aside_and_how_much_went_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let output = OutputDir::with_files_of(10, dir.path());
        let append =
            |line: &str| output.place(&id(), line.len(), NOW).unwrap().write(line.as_bytes()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        ["first\n", "2nd\n", "third\n"].into_iter().for_each(append);
        assert_eq!(
            (read("app-web-1-1.log.1"), read("app-web-1-1.log")),
            ("first\n2nd\n".into(), "third\n".into())
        );
        append("fourth\n");
        assert_eq!(read("app-web-1-1.log.1"), "third\n");
        let log = read("app-web-1-1.log");
        assert!(log.contains("10 bytes of older output are gone") && log.ends_with("\nfourth\n"), "{log}");
        append("fifth\n");
        assert!(read("app-web-1-1.log").contains("16 bytes of older output are gone"));
    }

    #[test]
    fn no_turn_makes_more_than_a_file_has_room_for() {
        let mut lines = Vec::new();
        let at = OutputTime(u64::MAX);
        super::super::lines::frame(&vec![b'\n'; ONE_TURN], kiln_model::OutputStream::Stderr, at, &mut lines);
        assert!(lines.len() > 40 * ONE_TURN && lines.len() as u64 <= WORST, "{}", lines.len());
    }

    /// An instance may write the keeper's own words.
    #[test]
    fn a_forged_note_is_at_worst_believed() {
        let dir = tempfile::tempdir().unwrap();
        let output = OutputDir::with_files_of(10, dir.path());
        let forged = Note::Gone(u64::MAX).line(NOW);
        for line in [&forged[..], b"2nd\n", b"third is long\n"] {
            output.place(&id(), line.len(), NOW).unwrap().write(line).unwrap();
        }
        let log = fs::read_to_string(dir.path().join("app-web-1-1.log")).unwrap();
        assert!(log.contains(&format!("{} bytes of older output are gone", u64::MAX)), "{log}");
    }

    #[test]
    fn what_was_set_aside_by_one_that_was_killed_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let output = OutputDir::with_files_of(10, dir.path());
        fs::write(dir.path().join("app-web-1-1.log.new"), "a note\n").unwrap();
        output.place(&id(), 1, NOW).unwrap().write(b"a\n").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("app-web-1-1.log")).unwrap(), "a note\na\n");
    }

    #[test]
    fn half_a_write_is_none_and_a_whole_one_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let output = OutputDir::open(dir.path()).unwrap();
        let path = dir.path().join("app-web-1-1.log");
        output.place(&id(), 4, NOW).unwrap().write(b"one\n").unwrap();
        let place = output.place(&id(), 4, NOW).unwrap();
        // Its beginning is there, as of a keeper that was killed in the middle.
        fs::File::options().write(true).open(&path).unwrap().write_at(b"tw", place.offset).unwrap();
        let again = output.place_again(&id(), place.offset).unwrap();
        again.write(b"two\n").unwrap();
        again.write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }
}
