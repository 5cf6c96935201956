//! The format in which the output of instances is kept: one line of text for each, as container runtimes write it,
//! so that tools for collecting logs understand it.
//!
//! ```text
//!   2026-09-21T14:13:20.042000000Z stdout F a whole line
//!   2026-09-21T14:13:20.043000000Z stderr P the first part of a line that is long, or was written bit by bit
//!   2026-09-21T14:13:20.044000000Z stderr F , and its end
//! ```

use std::fmt;
use std::io::Write;

use jiff::Timestamp as Moment;

use crate::OutputStream;

/// When something was written: nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputTime(pub u64);

/// One line of kept output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine<'a> {
    /// When it was read from the instance.
    pub at: OutputTime,
    /// Where the instance wrote it to.
    pub stream: OutputStream,
    /// Whether the instance's line goes on: with the next one of the same stream, or, if there is none, nowhere.
    pub is_partial: bool,
    /// What it wrote, without the newline; not necessarily UTF-8.
    pub text: &'a [u8],
}

impl OutputStream {
    /// As it is written in a line of output.
    pub fn as_str(self) -> &'static str {
        match self {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        }
    }
}

impl fmt::Display for OutputTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every u64 is a moment before the year 2555, which jiff can express.
        let moment = Moment::from_nanosecond(i128::from(self.0)).unwrap_or(Moment::MAX);
        write!(f, "{moment:.9}")
    }
}

impl<'a> OutputLine<'a> {
    /// Appends the line, with its newline, to `out`. A newline inside the text would begin another line: whoever
    /// splits an instance's output splits it there.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let tag = if self.is_partial { 'P' } else { 'F' };
        // Writing to memory does not fail.
        let _ = write!(out, "{} {} {tag} ", self.at, self.stream.as_str());
        out.extend_from_slice(self.text);
        out.push(b'\n');
    }

    /// Reads a line, given without its newline; none if it is not one, as when its end is missing.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let mut part = || parts.next();
        let at: Moment = std::str::from_utf8(part()?).ok()?.parse().ok()?;
        let stream = match part()? {
            b"stdout" => OutputStream::Stdout,
            b"stderr" => OutputStream::Stderr,
            _ => return None,
        };
        let is_partial = match part()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        let at = OutputTime(u64::try_from(at.as_nanosecond()).ok()?);
        Some(Self { at, stream, is_partial, text: part()? })
    }
}

/// One line as the instance wrote it, of one or more that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeLine {
    /// When its beginning was read from the instance.
    pub at: OutputTime,
    /// When its end was, or what there is of it.
    pub until: OutputTime,
    /// Where the instance wrote it to.
    pub stream: OutputStream,
    /// Whether its end is not there (yet).
    pub is_partial: bool,
    /// What it wrote, without the newline; not necessarily UTF-8.
    pub text: Vec<u8>,
}

/// Puts the lines of one instance together, which are kept in parts.
#[derive(Debug, Default)]
pub struct WholeLines {
    begun: [Option<WholeLine>; 2],
}

impl WholeLines {
    /// No line is put together beyond this many bytes: instances are not trusted.
    pub const LONGEST: usize = 1 << 20;

    /// Takes up a line that was begun, as somebody else has put it together so far.
    pub fn take_up(&mut self, begun: WholeLine) {
        let slot = usize::from(begun.stream == OutputStream::Stderr);
        self.begun[slot] = Some(begun);
    }

    /// Takes the next kept line; gives the whole one it completes. One that is too long is given in parts.
    pub fn take(&mut self, line: &OutputLine<'_>) -> Option<WholeLine> {
        let slot = &mut self.begun[usize::from(line.stream == OutputStream::Stderr)];
        let mut whole = slot.take().unwrap_or_else(|| WholeLine {
            at: line.at,
            until: line.at,
            stream: line.stream,
            is_partial: true,
            text: Vec::new(),
        });
        whole.until = line.at;
        whole.text.extend_from_slice(line.text);
        whole.is_partial = line.is_partial;
        if whole.is_partial && whole.text.len() < Self::LONGEST {
            *slot = Some(whole);
            return None;
        }
        Some(whole)
    }

    /// Those that were begun and have no end, the older one first: nothing more is to come, or nobody wants to wait.
    pub fn rest(&mut self) -> Vec<WholeLine> {
        let mut rest: Vec<WholeLine> = self.begun.iter_mut().filter_map(Option::take).collect();
        rest.sort_by_key(|line| line.at);
        rest
    }

    /// Whether a line was begun and has no end.
    pub fn are_begun(&self) -> bool {
        self.begun.iter().any(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(line: &OutputLine<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        line.encode(&mut out);
        out
    }

    #[test]
    fn a_line_as_container_runtimes_write_it() {
        let at = OutputTime(1_790_000_000_042_000_007);
        let line = OutputLine { at, stream: OutputStream::Stderr, is_partial: false, text: b"hello  world" };
        let text = "2026-09-21T14:13:20.042000007Z stderr F hello  world\n";
        assert_eq!(String::from_utf8(encoded(&line)).unwrap(), text);
        assert_eq!(OutputLine::parse(text.trim_end().as_bytes()), Some(line));
    }

    #[test]
    fn what_is_no_line_is_none() {
        for bad in ["", "hello", "2026-09-21T14:13:20Z stdout F", "2026-09-21T14:13:20Z other F x"] {
            assert_eq!(OutputLine::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(OutputLine::parse(b"2026-09-21T14:13:20Z stdout X x"), None);
        assert_eq!(OutputLine::parse(b"1926-09-21T14:13:20Z stdout F x"), None);
    }

    #[test]
    fn parts_are_put_together_stream_by_stream() {
        use OutputStream::{Stderr, Stdout};
        let kept = [
            (Stdout, true, "a"),
            (Stderr, false, "x"),
            (Stdout, true, "b"),
            (Stderr, true, "y"),
            (Stdout, false, "c"),
        ];
        let mut lines = WholeLines::default();
        let mut whole = Vec::new();
        for (n, (stream, is_partial, text)) in (0..).zip(kept) {
            whole.extend(lines.take(&OutputLine {
                at: OutputTime(n),
                stream,
                is_partial,
                text: text.as_bytes(),
            }));
        }
        assert!(lines.are_begun());
        whole.extend(lines.rest());
        assert!(!lines.are_begun() && lines.rest().is_empty());
        let told: Vec<_> = whole
            .iter()
            .map(|l| (l.at.0, l.is_partial, String::from_utf8_lossy(&l.text).into_owned()))
            .collect();
        assert_eq!(told, [(1, false, "x".into()), (0, false, "abc".into()), (3, true, "y".to_owned())]);
    }

    #[test]
    fn a_line_without_end_is_given_in_parts() {
        let mut lines = WholeLines::default();
        let part = vec![b'x'; 16 << 10];
        let line =
            OutputLine { at: OutputTime(0), stream: OutputStream::Stdout, is_partial: true, text: &part };
        let given: Vec<WholeLine> = (0..64).filter_map(|_| lines.take(&line)).collect();
        assert!(given.len() == 1 && given[0].is_partial && given[0].text.len() == WholeLines::LONGEST);
    }

    proptest! {
        #[test]
        fn every_line_reads_back(
            at: u64,
            is_stderr: bool,
            is_partial: bool,
            text in prop::collection::vec(any::<u8>().prop_filter("newline", |b| *b != b'\n'), 0..200),
        ) {
            let stream = if is_stderr { OutputStream::Stderr } else { OutputStream::Stdout };
            let line = OutputLine { at: OutputTime(at), stream, is_partial, text: &text };
            let bytes = encoded(&line);
            let (end, bytes) = bytes.split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            prop_assert_eq!(OutputLine::parse(bytes), Some(line));
        }

        #[test]
        fn nothing_makes_the_parser_panic(bytes: Vec<u8>) {
            let _ = OutputLine::parse(&bytes);
        }
    }
}
