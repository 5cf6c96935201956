//! The last lines of instances: it costs what is told, however much there is.
//!
//! Lines are put together from their parts as [`WholeLines`] does it, and are in the same order: that in which their ends
//! were read. A line that has no end stands where its last part does. Of a clock that was set back in between, each
//! instance's own order is kept.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::path::PathBuf;

use kiln_model::{InstanceId, OutputLine, OutputStream, OutputTime, WholeLine, WholeLines};

use super::Progress;
use super::backwards::Backwards;

/// The end of what one instance has written.
pub(super) struct Tail {
    instance: InstanceId,
    kept: Backwards,
    progress: Progress,
    /// Of each stream, the line whose beginning is being looked for.
    open: [Option<Open>; 2],
    /// Lines that are whole, by where they stand, the last first; no more than are wanted.
    whole: BTreeMap<u64, WholeLine>,
    most: usize,
    /// How many lines have been found.
    found: u64,
    waits: bool,
}

/// A line that is known from its end up to some part of it.
struct Open {
    /// Where it stands: so many lines are behind it.
    place: u64,
    at: OutputTime,
    until: OutputTime,
    is_partial: bool,
    /// The last one first.
    parts: Vec<Vec<u8>>,
    length: usize,
}

impl Tail {
    /// Of which no more than `most` lines are wanted, read in pieces of `size`.
    pub(super) fn of(
        instance: InstanceId,
        paths: Vec<PathBuf>,
        (size, most): (usize, usize),
        waits: bool,
    ) -> io::Result<Self> {
        let mut kept = Backwards::of(paths, size)?;
        let progress = Progress { offsets: kept.ends()?.into_iter().collect(), lines: WholeLines::default() };
        let (open, whole, found) = Default::default();
        Ok(Self { instance, kept, progress, open, whole, most, found, waits })
    }

    /// When the end of the line was read that is given next. Its beginning need not be known for that.
    fn peek(&mut self) -> io::Result<Option<OutputTime>> {
        loop {
            let first = self.whole.first_key_value().map(|(place, line)| (*place, line.until));
            let open = self.open.iter().flatten().filter(|open| !self.is_awaited(open));
            if let Some((_, until)) = open.map(|open| (open.place, open.until)).chain(first).min() {
                return Ok(Some(until));
            }
            if !self.read_on()? {
                return Ok(None);
            }
        }
    }

    /// The line before the one that was given last.
    fn next(&mut self) -> io::Result<Option<WholeLine>> {
        loop {
            let first = self.whole.first_key_value().map(|(place, _)| *place);
            let open = self.open.iter().flatten().filter(|open| !self.is_awaited(open));
            let is_next = |place: u64| open.map(|open| open.place).min().is_none_or(|open| place < open);
            if first.is_some_and(is_next) {
                return Ok(self.whole.pop_first().map(|(_, line)| line));
            }
            if !self.read_on()? {
                return Ok(None);
            }
        }
    }

    /// Whether its end is for the next reading.
    fn is_awaited(&self, open: &Open) -> bool {
        self.waits && open.is_partial
    }

    /// Takes account of one kept line more; at the beginning, of that. Whether it has led to anything.
    fn read_on(&mut self) -> io::Result<bool> {
        let Some(kept) = self.kept.next()? else {
            let were_open = self.open.iter().any(Option::is_some);
            [OutputStream::Stdout, OutputStream::Stderr].into_iter().for_each(|stream| self.complete(stream));
            return Ok(were_open);
        };
        let Some(line) = OutputLine::parse(&kept) else { return Ok(true) };
        if !line.is_partial {
            // Here ends the line before the one that is open.
            self.complete(line.stream);
        }
        let found = &mut self.found;
        let open = self.open[slot(line.stream)].get_or_insert_with(|| {
            *found += 1;
            let (is_partial, until) = (line.is_partial, line.at);
            Open { place: *found, at: until, until, is_partial, parts: Vec::new(), length: 0 }
        });
        open.at = line.at;
        open.length += line.text.len();
        open.parts.push(line.text.to_vec());
        if open.length >= WholeLines::LONGEST {
            self.complete(line.stream);
        }
        Ok(true)
    }

    /// All there is of a line is known.
    fn complete(&mut self, stream: OutputStream) {
        let Some(open) = self.open[slot(stream)].take() else { return };
        let (place, is_awaited) = (open.place, self.is_awaited(&open));
        let line = open.put_together(stream);
        if is_awaited {
            return self.progress.lines.take_up(line);
        }
        self.whole.insert(place, line);
        if self.whole.len() > self.most {
            self.whole.pop_last();
        }
    }

    /// Where the next reading begins. Of a line that has no end yet it knows what has been read here.
    pub(super) fn finish(mut self) -> (InstanceId, Progress) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            if self.open[slot(stream)].as_ref().is_some_and(|open| self.is_awaited(open)) {
                self.complete(stream);
            }
        }
        (self.instance, self.progress)
    }
}

impl Open {
    fn put_together(mut self, stream: OutputStream) -> WholeLine {
        self.parts.reverse();
        let Self { at, until, is_partial, parts, .. } = self;
        WholeLine { at, until, stream, is_partial, text: parts.concat() }
    }
}

fn slot(stream: OutputStream) -> usize {
    usize::from(stream == OutputStream::Stderr)
}

/// The last lines of all of them, the oldest first.
pub(super) fn last(tails: &mut [Tail], most: usize) -> io::Result<Vec<(InstanceId, WholeLine)>> {
    let mut order: BinaryHeap<(OutputTime, usize)> = BinaryHeap::new();
    for (number, tail) in tails.iter_mut().enumerate() {
        order.extend(tail.peek()?.map(|until| (until, number)));
    }
    let mut last = VecDeque::new();
    while last.len() < most
        && let Some((_, number)) = order.pop()
    {
        let tail = &mut tails[number];
        if let Some(line) = tail.next()? {
            last.push_front((tail.instance.clone(), line));
            order.extend(tail.peek()?.map(|until| (until, number)));
        }
    }
    Ok(last.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::ops::ControlFlow;

    use proptest::prelude::*;

    use super::super::{OutputFiles, files, merge};
    use super::*;

    /// A kept line: how much later than the one before, and what.
    type Kept = (u64, bool, bool, Vec<u8>);

    fn encoded(at: &mut u64, kept: &[Kept]) -> Vec<u8> {
        let mut out = Vec::new();
        for (later, is_stderr, is_partial, text) in kept {
            *at += 1 + later;
            let stream = if *is_stderr { OutputStream::Stderr } else { OutputStream::Stdout };
            OutputLine { at: OutputTime(*at), stream, is_partial: *is_partial, text }.encode(&mut out);
        }
        out
    }

    fn told(lines: Vec<(InstanceId, WholeLine)>) -> Vec<String> {
        let text = |line: &WholeLine| String::from_utf8_lossy(&line.text).into_owned();
        lines.iter().map(|(id, line)| format!("{id}: {}", text(line))).collect()
    }

    /// All there is, as it is read from the beginning. A line without end is told when there is no other; it stands where
    /// its last part does.
    fn forwards(dir: &tempfile::TempDir) -> Vec<(InstanceId, WholeLine)> {
        let (mut read, mut all) = (OutputFiles::default(), Vec::new());
        let sources = read.begin(files(dir.path()).unwrap().into_iter().collect(), false).unwrap();
        merge(sources, &mut |id, line| {
            all.push((id.clone(), line));
            ControlFlow::Continue(())
        })
        .unwrap();
        all.sort_by_key(|(id, line)| (line.until, id.clone()));
        all
    }

    fn kept() -> impl Strategy<Value = Kept> {
        let text = prop::collection::vec(any::<u8>().prop_filter("newline", |b| *b != b'\n'), 0..90);
        // Mostly one stream, and mostly whole lines: as programs write.
        (0..4_u64, prop::bool::weighted(0.2), prop::bool::weighted(0.3), text)
    }

    fn instance() -> impl Strategy<Value = (Vec<Kept>, usize, Vec<u8>)> {
        (prop::collection::vec(kept(), 0..40), 0..40_usize, prop::collection::vec(any::<u8>(), 0..40))
    }

    proptest! {
        #[test]
        fn the_last_lines_are_those_that_are_last_when_all_are_read(
            instances in prop::collection::vec(instance(), 0..5),
            size in 1..400_usize,
            most in 0..60_usize,
        ) {
            let dir = tempfile::tempdir().unwrap();
            for (n, (kept, set_aside, torn)) in instances.iter().enumerate() {
                let (mut at, cut) = (0, (*set_aside).min(kept.len()));
                let (old, new) = (encoded(&mut at, &kept[..cut]), encoded(&mut at, &kept[cut..]));
                // What has no end yet is being written.
                let torn: Vec<u8> = torn.iter().copied().filter(|b| *b != b'\n').collect();
                fs::write(dir.path().join(format!("i-{n}.log.1")), old).unwrap();
                fs::write(dir.path().join(format!("i-{n}.log")), [new, torn].concat()).unwrap();
            }
            let tails = files(dir.path()).unwrap().into_iter();
            let tails = tails.map(|(id, paths)| Tail::of(id, paths, (size, most), false));
            let mut tails = tails.collect::<io::Result<Vec<_>>>().unwrap();
            let all = forwards(&dir);
            let expected = all[all.len().saturating_sub(most)..].to_vec();
            prop_assert_eq!(last(&mut tails, most).unwrap(), expected);
        }
    }

    #[test]
    fn who_follows_goes_on_where_the_last_lines_end() {
        let (dir, mut read, mut at) = (tempfile::tempdir().unwrap(), OutputFiles::default(), 0);
        let path = dir.path().join("a.log");
        let text = |text: &str| text.as_bytes().to_vec();
        let line = |is_partial, words: &str| (0, false, is_partial, text(words));
        let first = encoded(&mut at, &[line(false, "one"), line(false, "two"), line(true, "th")]);
        fs::write(&path, [first.clone(), text("2026-09-2")].concat()).unwrap();
        let all = |dir: &tempfile::TempDir| files(dir.path()).unwrap().into_iter().collect();
        assert_eq!(told(read.last(all(&dir), 1, true).unwrap()), ["a: two"]);
        let more = encoded(&mut at, &[line(false, "ree"), line(false, "four")]);
        fs::write(&path, [first, more].concat()).unwrap();
        let mut next = Vec::new();
        let sources = read.begin(all(&dir), true).unwrap();
        merge(sources, &mut |id, line| {
            next.push((id.clone(), line));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(told(next), ["a: three", "a: four"]);
    }

    /// What is read is what is told, and a little more.
    #[test]
    fn of_what_is_long_only_the_end_is_read() {
        let (dir, mut at) = (tempfile::tempdir().unwrap(), 0);
        let lines = vec![(0, false, false, vec![b'x'; 80]); 20_000];
        let path = dir.path().join("a.log");
        fs::write(&path, encoded(&mut at, &lines)).unwrap();
        let mut tail = [Tail::of("a".parse().unwrap(), vec![path.clone()], (4096, 3), false).unwrap()];
        // Whatever has not been read by now cannot be.
        fs::remove_file(path).unwrap();
        assert_eq!(last(&mut tail, 3).unwrap().len(), 3);
    }
}
