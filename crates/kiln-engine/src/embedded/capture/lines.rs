//! Bytes as lines of a file.
//!
//! Nothing is held back for its newline to come: what has been read is in the file when it has left the pipe, the start
//! of a line as a part of one. Whoever reads puts parts together ([`kiln_model::WholeLines`]).

use kiln_model::{OutputLine, OutputStream, OutputTime};

/// Longer lines are kept in parts; as long as those of container runtimes.
const LONGEST: usize = 16 << 10;

/// What was read at one time, as lines; appended to `out`.
pub(super) fn frame(mut bytes: &[u8], stream: OutputStream, at: OutputTime, out: &mut Vec<u8>) {
    let mut put = |is_partial, text| OutputLine { at, stream, is_partial, text }.encode(out);
    while !bytes.is_empty() {
        let end = bytes.iter().take(LONGEST + 1).position(|b| *b == b'\n');
        let length = end.unwrap_or(bytes.len().min(LONGEST));
        put(end.is_none(), &bytes[..length]);
        bytes = &bytes[length + usize::from(end.is_some())..];
    }
}

/// How many lines there are in what was read, one that has no end included.
pub(super) fn count(bytes: &[u8]) -> u64 {
    let ended = bytes.iter().filter(|b| **b == b'\n').count() as u64;
    ended + u64::from(bytes.last().is_some_and(|b| *b != b'\n'))
}

#[cfg(test)]
mod tests {
    use kiln_model::WholeLines;
    use proptest::prelude::*;

    use super::*;

    fn parts(chunks: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        chunks.iter().for_each(|chunk| frame(chunk, OutputStream::Stdout, OutputTime(0), &mut out));
        out
    }

    fn whole(parts: &[u8]) -> Vec<(bool, Vec<u8>)> {
        let mut lines = WholeLines::default();
        let parsed = parts.split(|b| *b == b'\n').filter_map(OutputLine::parse);
        let mut whole: Vec<_> = parsed.filter_map(|line| lines.take(&line)).collect();
        whole.extend(lines.rest());
        whole.into_iter().map(|line| (line.is_partial, line.text)).collect()
    }

    #[test]
    fn the_last_line_is_kept_even_if_it_never_ended() {
        assert_eq!(whole(&parts(&[b"one\ntw"])), [(false, b"one".to_vec()), (true, b"tw".to_vec())]);
        assert_eq!(whole(&parts(&[])), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_kept_in_parts() {
        let long = vec![b'x'; 2 * LONGEST + 1];
        let kept = parts(&[&long, b"\n"]);
        let lengths: Vec<usize> =
            kept.split(|b| *b == b'\n').filter_map(OutputLine::parse).map(|l| l.text.len()).collect();
        assert_eq!(lengths, [LONGEST, LONGEST, 1, 0]);
        assert_eq!(whole(&kept), [(false, long)]);
        let exact = parts(&[&[&[b'x'; LONGEST][..], b"\n"].concat()]);
        assert_eq!(exact.iter().filter(|b| **b == b'\n').count(), 1, "what fits is one line");
    }

    #[test]
    fn lines_are_counted_as_they_were_written() {
        assert_eq!([&b""[..], b"a", b"a\n", b"\n\nb"].map(count), [0, 1, 1, 3]);
    }

    proptest! {
        #[test]
        fn lines_come_out_whole_however_they_went_in(
            text in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400),
            cuts in prop::collection::vec(0..400_usize, 0..9),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|c| &text[c[0]..c[1]]).collect();
            let again: Vec<u8> = whole(&parts(&chunks))
                .into_iter()
                .flat_map(|(is_partial, line)| [line, if is_partial { vec![] } else { vec![b'\n'] }].concat())
                .collect();
            prop_assert_eq!(again, text);
        }
    }
}
