//! What a keeper itself has to say in the log of an instance.

use std::io;

use kiln_model::{OutputLine, OutputStream, OutputTime};

/// Something that is missing from a log.
#[derive(Debug)]
pub(super) enum Note {
    /// So many bytes were older than what is kept of an instance.
    Gone(u64),
    /// These could not be written.
    Dropped(Dropped),
}

/// What could not be written, and why.
#[derive(Debug)]
pub(super) struct Dropped {
    pub(super) lines: u64,
    pub(super) bytes: u64,
    pub(super) why: io::Error,
}

const BEGINNING: &str = "kiln: ";
const GONE: &str = " bytes of older output are gone: what is kept of an instance is bounded";

impl Note {
    /// No note of what is gone is longer.
    pub(super) const LONGEST: usize = 256;

    /// As a line of the log.
    pub(super) fn line(&self, at: OutputTime) -> Vec<u8> {
        let text = match self {
            Note::Gone(bytes) => format!("{BEGINNING}{bytes}{GONE}"),
            Note::Dropped(Dropped { lines, bytes, why }) => {
                format!("{BEGINNING}{lines} lines of output ({bytes} bytes) could not be kept here: {why}")
            }
        };
        let mut line = Vec::new();
        OutputLine { at, stream: OutputStream::Stderr, is_partial: false, text: text.as_bytes() }
            .encode(&mut line);
        line
    }

    /// Of a note that could not be written either.
    pub(super) fn into_dropped(self) -> Option<Dropped> {
        match self {
            Note::Dropped(dropped) => Some(dropped),
            Note::Gone(_) => None,
        }
    }

    /// How many bytes are gone by what the beginning of a file says.
    pub(super) fn gone(beginning: &[u8]) -> u64 {
        let first = beginning.split(|b| *b == b'\n').next().and_then(OutputLine::parse);
        let ours = first.filter(|line| line.stream == OutputStream::Stderr && !line.is_partial);
        let text = ours.and_then(|line| std::str::from_utf8(line.text).ok().map(str::to_owned));
        let number = text.and_then(|t| t.strip_prefix(BEGINNING)?.strip_suffix(GONE)?.parse().ok());
        number.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_a_line_and_its_number_is_found_again() {
        let line = Note::Gone(u64::MAX).line(OutputTime(7));
        assert!(line.len() <= Note::LONGEST);
        assert_eq!(Note::gone(&line), u64::MAX);
        for other in [&b""[..], b"kiln: 7", b"\xff\n", &Note::Gone(7).line(OutputTime(7))[..40]] {
            assert_eq!(Note::gone(other), 0);
        }
        let note = String::from_utf8(line).unwrap();
        for other in [note.replace(" stderr F ", " stdout F "), note.replace(" stderr F ", " stderr P ")] {
            assert!(other != note && Note::gone(other.as_bytes()) == 0, "{other}");
        }
    }
}
