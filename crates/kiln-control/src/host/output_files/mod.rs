//! The files that instances' output is kept in: read from where the last reading ended, all of them in one order of time,
//! and never more than a piece of each in memory, however much there is. `tail` has the last lines only, which it finds
//! from the ends of the files (`backwards`).

mod backwards;
mod tail;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_model::{InstanceId, OutputLine, OutputTime, WholeLine, WholeLines};

use tail::Tail;

/// The longest line that is read; instances are not trusted.
const MAX_LINE: usize = 1 << 20;

/// What all pieces together take, if there are not so many that each has the least.
const PIECES: usize = 32 << 20;
const SMALLEST_PIECE: usize = 4 << 10;
const LARGEST_PIECE: usize = 128 << 10;

/// How far the output of each instance has been read.
#[derive(Default)]
pub(super) struct OutputFiles(BTreeMap<InstanceId, Progress>);

/// The files of one instance, by what they are: when one is set aside it gets another name.
#[derive(Default)]
struct Progress {
    offsets: BTreeMap<u64, u64>,
    lines: WholeLines,
}

impl OutputFiles {
    /// What is new of these instances, up to what is there now. With `waits`, a line that was begun is waited for, but not
    /// for long.
    pub(super) fn begin(
        &mut self,
        instances: Vec<(InstanceId, Vec<PathBuf>)>,
        waits: bool,
    ) -> io::Result<Vec<Source<'_>>> {
        for (instance, _) in &instances {
            self.0.entry(instance.clone()).or_default();
        }
        let mut wanted: BTreeMap<InstanceId, Vec<PathBuf>> = instances.into_iter().collect();
        let size = (PIECES / wanted.len().max(1)).clamp(SMALLEST_PIECE, LARGEST_PIECE);
        let known = self.0.iter_mut().filter_map(|(id, progress)| Some((id, wanted.remove(id)?, progress)));
        known.map(|(id, paths, progress)| Source::begin(id, paths, progress, size, waits)).collect()
    }

    /// The last lines of these instances, the oldest first. What there is now counts as read. With `waits`, a line that was
    /// begun is waited for by the next reading, but not for long.
    pub(super) fn last(
        &mut self,
        instances: Vec<(InstanceId, Vec<PathBuf>)>,
        most: usize,
        waits: bool,
    ) -> io::Result<Vec<(InstanceId, WholeLine)>> {
        let size = (PIECES / instances.len().max(1)).clamp(SMALLEST_PIECE, LARGEST_PIECE);
        let mut tails = Vec::with_capacity(instances.len());
        for (instance, paths) in instances {
            tails.push(Tail::of(instance, paths, (size, most), waits)?);
        }
        let last = tail::last(&mut tails, most)?;
        self.0.extend(tails.into_iter().map(Tail::finish));
        Ok(last)
    }
}

/// What is new of one instance.
pub(super) struct Source<'a> {
    instance: &'a InstanceId,
    progress: &'a mut Progress,
    paths: Vec<PathBuf>,
    /// Those of its files in which something is new: which, and up to where.
    parts: VecDeque<(u64, u64)>,
    /// What has been read of the first of them and not been told.
    piece: Vec<u8>,
    told: usize,
    size: usize,
    /// Lines that have no end, when there is nothing else.
    rest: Option<VecDeque<WholeLine>>,
    waits: bool,
}

impl<'a> Source<'a> {
    fn begin(
        instance: &'a InstanceId,
        paths: Vec<PathBuf>,
        progress: &'a mut Progress,
        size: usize,
        waits: bool,
    ) -> io::Result<Self> {
        let mut parts = VecDeque::new();
        for path in &paths {
            let meta = match std::fs::metadata(path) {
                Ok(meta) => meta,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let offset = progress.offsets.entry(meta.ino()).or_default();
            if meta.len() < *offset {
                // Another file, to which the number of one that is gone was given.
                *offset = 0;
            }
            if meta.len() > *offset {
                parts.push_back((meta.ino(), meta.len()));
            }
        }
        let waits = waits && !parts.is_empty();
        let (piece, told, rest) = (Vec::new(), 0, None);
        Ok(Self { instance, progress, paths, parts, piece, told, size, rest, waits })
    }

    /// The next whole line, if there is one.
    fn next(&mut self) -> io::Result<Option<WholeLine>> {
        while let Some(line) = self.next_kept()? {
            let whole = OutputLine::parse(&line).and_then(|line| self.progress.lines.take(&line));
            if whole.is_some() {
                return Ok(whole);
            }
        }
        let lines = &mut self.progress.lines;
        let waits = self.waits;
        let rest = self.rest.get_or_insert_with(|| if waits { VecDeque::new() } else { lines.rest().into() });
        Ok(rest.pop_front())
    }

    /// The next line as it is kept, without its end.
    fn next_kept(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(&(number, end)) = self.parts.front() {
            let held = &self.piece[self.told..];
            let found = held.iter().position(|b| *b == b'\n');
            let length = found.unwrap_or(held.len()).min(MAX_LINE);
            let offset = self.progress.offsets.entry(number).or_default();
            if found.is_some() || held.len() >= MAX_LINE {
                let line = held[..length].to_vec();
                let taken = length + usize::from(found == Some(length));
                self.told += taken;
                *offset += taken as u64;
                return Ok(Some(line));
            }
            // A line without its end is still being written.
            let left = usize::try_from(end.saturating_sub(*offset)).unwrap_or(usize::MAX);
            let wanted = self.size.max(2 * held.len()).min(left);
            let offset = *offset;
            if wanted <= held.len() || !self.refill(number, offset, wanted)? {
                self.parts.pop_front();
                self.piece.clear();
                self.told = 0;
            }
        }
        Ok(None)
    }

    /// Whether there was more to read than was held already: none of a file that is gone.
    fn refill(&mut self, number: u64, offset: u64, wanted: usize) -> io::Result<bool> {
        let held = self.piece.len() - self.told;
        self.piece.clear();
        self.told = 0;
        read_from(&self.paths, number, (offset, wanted), &mut self.piece)?;
        Ok(self.piece.len() > held)
    }
}

/// Reads some of the file that had this number when it was looked at; nothing if it is gone.
fn read_from(
    paths: &[PathBuf],
    number: u64,
    (offset, wanted): (u64, usize),
    into: &mut Vec<u8>,
) -> io::Result<()> {
    for path in paths {
        let Ok(mut file) = File::open(path) else { continue };
        if file.metadata()?.ino() == number {
            file.seek(SeekFrom::Start(offset))?;
            file.take(wanted as u64).read_to_end(into)?;
            break;
        }
    }
    Ok(())
}

/// Tells the lines of all sources, in the order in which their ends were read, until whoever is told has enough.
pub(super) fn merge(
    mut sources: Vec<Source<'_>>,
    tell: &mut dyn FnMut(&InstanceId, WholeLine) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut heads: Vec<Option<WholeLine>> = Vec::with_capacity(sources.len());
    let mut order: BinaryHeap<Reverse<(OutputTime, usize)>> = BinaryHeap::new();
    for (number, source) in sources.iter_mut().enumerate() {
        let head = source.next()?;
        order.extend(head.as_ref().map(|line| Reverse((line.until, number))));
        heads.push(head);
    }
    while let Some(Reverse((_, number))) = order.pop() {
        let Some(line) = heads[number].take() else { continue };
        if tell(sources[number].instance, line).is_break() {
            return Ok(());
        }
        heads[number] = sources[number].next()?;
        order.extend(heads[number].as_ref().map(|line| Reverse((line.until, number))));
    }
    Ok(())
}

/// The output files of each instance, older parts first.
pub(super) fn files(dir: &Path) -> io::Result<BTreeMap<InstanceId, Vec<PathBuf>>> {
    let mut files: BTreeMap<InstanceId, Vec<PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let stem = name.strip_suffix(".log.1").or_else(|| name.strip_suffix(".log"));
        if let Some(Ok(id)) = stem.map(str::parse) {
            files.entry(id).or_default().push(path);
        }
    }
    // By name, `.log` comes before `.log.1`.
    files.values_mut().for_each(|paths| paths.sort_by(|a, b| b.cmp(a)));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kiln_model::OutputStream;
    use tempfile::TempDir;

    use super::*;

    fn line(at: u64, is_partial: bool, text: &str) -> Vec<u8> {
        let mut line = Vec::new();
        let (at, text) = (OutputTime(at), text.as_bytes());
        OutputLine { at, stream: OutputStream::Stdout, is_partial, text }.encode(&mut line);
        line
    }

    /// All that is new in a directory, as it is told.
    fn read(read: &mut OutputFiles, dir: &TempDir, waits: bool) -> Vec<String> {
        let instances = files(dir.path()).unwrap().into_iter().collect();
        let mut told = Vec::new();
        let sources = read.begin(instances, waits).unwrap();
        merge(sources, &mut |id, line| {
            told.push(format!("{id}: {}", String::from_utf8_lossy(&line.text)));
            ControlFlow::Continue(())
        })
        .unwrap();
        told
    }

    #[test]
    fn a_log_that_is_followed_is_told_once_also_when_it_is_set_aside() {
        let (dir, mut files) = (tempfile::tempdir().unwrap(), OutputFiles::default());
        let (log, old) = (dir.path().join("a.log"), dir.path().join("a.log.1"));
        let mut read = || read(&mut files, &dir, true);
        fs::write(&log, [line(1, false, "one"), line(2, true, "tw")].concat()).unwrap();
        assert_eq!(read(), ["a: one"]);
        let more = [fs::read(&log).unwrap(), line(3, false, "o")].concat();
        fs::write(&log, more).unwrap();
        fs::rename(&log, &old).unwrap();
        fs::write(&log, line(4, true, "three, slowly")).unwrap();
        assert_eq!(read(), ["a: two"]);
        assert_eq!(read(), ["a: three, slowly"], "nobody waits for ever");
        assert_eq!(read(), [""; 0]);
    }

    #[test]
    fn lines_of_all_instances_are_told_in_order_of_time() {
        let (dir, mut files) = (tempfile::tempdir().unwrap(), OutputFiles::default());
        let long = "x".repeat(3 * LARGEST_PIECE);
        let write = |name: &str, lines: &[(u64, &str)]| {
            let lines: Vec<u8> = lines.iter().flat_map(|(at, text)| line(*at, false, text)).collect();
            fs::write(dir.path().join(name), lines).unwrap();
        };
        write("a.log.1", &[(1, "one"), (4, &long)]);
        write("a.log", &[(6, "six")]);
        write("b.log", &[(2, "two"), (3, "three"), (5, "five"), (7, "seven")]);
        let long = format!("a: {long}");
        let expected = ["a: one", "b: two", "b: three", &long, "b: five", "a: six", "b: seven"];
        assert!(read(&mut files, &dir, false) == expected);
        assert_eq!(read(&mut files, &dir, false), [""; 0]);
    }

    /// What is gone when the first line is told cannot be told but for what was held by then.
    #[test]
    fn no_more_than_a_piece_of_each_instance_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let lines: Vec<u8> = (0..40_000).flat_map(|at| line(at, false, &"x".repeat(80))).collect();
        for name in ["a.log", "b.log", "c.log"] {
            fs::write(dir.path().join(name), &lines).unwrap();
        }
        let (mut read, mut told) = (OutputFiles::default(), 0);
        let sources = read.begin(files(dir.path()).unwrap().into_iter().collect(), false).unwrap();
        merge(sources, &mut |_, line| {
            if told == 0 {
                for name in ["a.log", "b.log", "c.log"] {
                    fs::remove_file(dir.path().join(name)).unwrap();
                }
            }
            told += line.text.len();
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(told > 0 && told <= 3 * LARGEST_PIECE, "{told} of {} bytes were held", 3 * lines.len());
    }
}
