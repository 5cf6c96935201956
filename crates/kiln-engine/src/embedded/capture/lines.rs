//! Bytes cut into lines.

use kiln_model::{OutputLine, OutputStream, OutputTime};

/// The start of a line whose end has not come yet.
#[derive(Debug)]
pub(super) struct Lines {
    stream: OutputStream,
    begun: Vec<u8>,
}

/// Longer lines are kept in parts; as long as those of container runtimes.
const LONGEST: usize = 16 << 10;

impl Lines {
    pub(super) fn new(stream: OutputStream) -> Self {
        Self { stream, begun: Vec::new() }
    }

    /// Takes what was read; appends the lines it completes to `out`.
    pub(super) fn take(&mut self, mut bytes: &[u8], at: OutputTime, out: &mut Vec<u8>) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.take_part(&bytes[..end], at, out);
            self.write(false, at, out);
            bytes = &bytes[end + 1..];
        }
        self.take_part(bytes, at, out);
    }

    /// Nothing more will come; appends what is left to `out`.
    pub(super) fn finish(&mut self, at: OutputTime, out: &mut Vec<u8>) {
        if !self.begun.is_empty() {
            self.write(true, at, out);
        }
    }

    /// Bytes without a newline.
    fn take_part(&mut self, mut bytes: &[u8], at: OutputTime, out: &mut Vec<u8>) {
        while self.begun.len() + bytes.len() > LONGEST {
            let (now, later) = bytes.split_at(LONGEST - self.begun.len());
            self.begun.extend_from_slice(now);
            self.write(true, at, out);
            bytes = later;
        }
        self.begun.extend_from_slice(bytes);
    }

    fn write(&mut self, is_partial: bool, at: OutputTime, out: &mut Vec<u8>) {
        // Taken, not cleared: thousands of instances that once wrote a long line should not keep its memory.
        let text = std::mem::take(&mut self.begun);
        OutputLine { at, stream: self.stream, is_partial, text: &text }.encode(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let (mut lines, mut out) = (Lines::new(OutputStream::Stdout), Vec::new());
        chunks.iter().for_each(|chunk| lines.take(chunk, OutputTime(0), &mut out));
        lines.finish(OutputTime(0), &mut out);
        let parsed = out.split(|b| *b == b'\n').filter_map(OutputLine::parse);
        parsed.map(|line| (line.is_partial, line.text.to_vec())).collect()
    }

    #[test]
    fn lines_come_out_whole_however_they_went_in() {
        let whole = [(false, b"one".to_vec()), (false, vec![]), (false, b"two".to_vec())];
        assert_eq!(cut(&[b"one\n\ntwo\n"]), whole);
        assert_eq!(cut(&[b"o", b"ne", b"\n\nt", b"wo\n"]), whole);
    }

    #[test]
    fn the_last_line_is_kept_even_if_it_never_ended() {
        assert_eq!(cut(&[b"one\ntw"]), [(false, b"one".to_vec()), (true, b"tw".to_vec())]);
        assert_eq!(cut(&[]), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_kept_in_parts() {
        let long = vec![b'x'; LONGEST + 1];
        let lines = cut(&[&long[..10], &long[10..], b"\n"]);
        assert_eq!(lines, [(true, long[..LONGEST].to_vec()), (false, b"x".to_vec())]);
        let exact = cut(&[&long[..LONGEST], b"\n"]);
        assert_eq!(exact, [(false, long[..LONGEST].to_vec())]);
    }
}
