//! One output of one instance.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use kiln_model::{InstanceId, OutputStream, OutputTime};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::ioctl_fionread;
use rustix::pipe::{PipeFlags, pipe_with};

use super::lines::{count, frame};
use super::note::{Dropped, Note};
use super::output_file::Place;
use super::transit::{ONE_TURN, Way};
use super::{OutputDir, Transit};

/// The reading end of a pipe an instance writes to.
#[derive(Debug)]
pub(crate) struct OutputPipe {
    reader: OwnedFd,
    stream: OutputStream,
    /// What could not be kept and has not been told.
    dropped: Option<Box<Dropped>>,
}

impl OutputPipe {
    /// A pipe; the second value is the end to write to. `proc` is /proc.
    ///
    /// Whoever writes holds it open for reading too. So a pipe outlives its keeper: a write waits when the pipe is
    /// full, and is never answered with SIGPIPE, until the next keeper finds it.
    pub(crate) fn new(stream: OutputStream, proc: BorrowedFd<'_>) -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let path = format!("self/fd/{}", writer.as_raw_fd());
        // Opened again it is not non-blocking, which programs do not expect of their output.
        let writer = openat(proc, path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok((Self::adopt(stream, reader), writer))
    }

    /// The reading end of a pipe of a keeper before this one.
    pub(crate) fn adopt(stream: OutputStream, reader: OwnedFd) -> Self {
        Self { reader, stream, dropped: None }
    }

    /// What becomes readable when there is output, and at its end.
    pub(crate) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Keeps some of what has been written. True at the end of it.
    ///
    /// Output that cannot be kept (no space) is counted and let go: an instance that cannot log goes on serving.
    pub(crate) fn turn(&mut self, id: &InstanceId, dir: &OutputDir, transit: &mut Transit) -> bool {
        let length = match ioctl_fionread(&self.reader) {
            Ok(0) => return self.has_ended(),
            Ok(length) => usize::try_from(length).unwrap_or(ONE_TURN).min(ONE_TURN),
            Err(_) => return true,
        };
        let at = now();
        match self.find_place(id, dir, length, at) {
            Ok(place) => {
                self.keep(&place, Way { id, stream: self.stream, at, offset: place.offset }, transit, length)
            }
            Err(why) => self.let_go(length, why),
        }
        false
    }

    fn find_place(
        &mut self,
        id: &InstanceId,
        dir: &OutputDir,
        length: usize,
        at: OutputTime,
    ) -> io::Result<Place> {
        let mut place = dir.place(id, length, at)?;
        if let Some(dropped) = self.dropped.take() {
            let note = Note::Dropped(*dropped);
            if let Err(why) = place.write(&note.line(at)) {
                self.dropped = note.into_dropped().map(Box::new);
                return Err(why);
            }
            place = dir.place(id, length, at)?;
        }
        Ok(place)
    }

    /// The steps that `transit` describes.
    fn keep(&mut self, place: &Place, way: Way<'_>, transit: &mut Transit, length: usize) {
        // Whoever can have taken it meanwhile is the instance itself.
        let Some(first) = transit.peek(self.reader.as_fd()) else { return };
        transit.depart(&way, length, first);
        if let Ok(taken) = transit.take(self.reader.as_fd(), length) {
            let mut lines = Vec::with_capacity(length + 256);
            frame(taken, way.stream, way.at, &mut lines);
            if let Err(why) = place.write(&lines) {
                let (lines, bytes) = (count(taken), taken.len() as u64);
                self.count(lines, bytes, why);
            }
        }
        transit.arrived();
    }

    /// Takes what cannot be kept out of the pipe, or the instance would wait for ever.
    fn let_go(&mut self, length: usize, why: io::Error) {
        let mut bytes = vec![0; length];
        if let Ok(taken) = rustix::io::read(&self.reader, &mut bytes[..]) {
            self.count(count(&bytes[..taken]), taken as u64, why);
        }
    }

    fn count(&mut self, lines: u64, bytes: u64, why: io::Error) {
        match &mut self.dropped {
            Some(dropped) => {
                dropped.lines += lines;
                dropped.bytes += bytes;
            }
            none => *none = Some(Box::new(Dropped { lines, bytes, why })),
        }
    }

    /// Whether nobody can write to it any more and all of it has been read.
    fn has_ended(&self) -> bool {
        let mut ended = [PollFd::new(&self.reader, PollFlags::IN)];
        let is_asked = poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok();
        is_asked && ended[0].revents() == PollFlags::HUP
    }
}

fn now() -> OutputTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    OutputTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = Transit::path(self.dir.path()).and_then(fs::remove_file);
        }
    }

    struct Bench {
        dir: tempfile::TempDir,
        pipe: OutputPipe,
        writer: OwnedFd,
        transit: Transit,
        id: InstanceId,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            fs::create_dir(dir.path().join("output")).unwrap();
            let transit = Transit::open(dir.path()).unwrap();
            let pipe = OutputPipe::adopt(OutputStream::Stdout, reader);
            Self { dir, pipe, writer, transit, id: "app-web-1-1".parse().unwrap() }
        }

        fn say(&mut self, text: &str) -> bool {
            rustix::io::write(&self.writer, text.as_bytes()).unwrap();
            self.turn()
        }

        fn turn(&mut self) -> bool {
            let output = OutputDir::open(&self.dir.path().join("output")).unwrap();
            self.pipe.turn(&self.id, &output, &mut self.transit)
        }

        /// Waits until nobody can write any more: a process that another test starts has everything this one has
        /// open, until it runs its program.
        fn is_let_go(&self) {
            let mut ended = [PollFd::new(&self.pipe.reader, PollFlags::empty())];
            assert_eq!(poll(&mut ended, Some(&Timespec { tv_sec: 60, tv_nsec: 0 })), Ok(1));
        }

        fn log(&self) -> std::path::PathBuf {
            self.dir.path().join("output/app-web-1-1.log")
        }
    }

    #[test]
    fn its_end_is_seen_when_all_of_it_is_kept() {
        let mut bench = Bench::new();
        assert!(!bench.turn(), "nothing yet");
        rustix::io::write(&bench.writer, b"last").unwrap();
        bench.writer = fs::File::open("/dev/null").unwrap().into();
        bench.is_let_go();
        assert_eq!([bench.turn(), bench.turn()], [false, true]);
        assert!(fs::read_to_string(bench.log()).unwrap().ends_with(" stdout P last\n"));
    }

    #[test]
    fn lines_that_cannot_be_kept_are_counted_and_told_as_soon_as_that_is_possible() {
        let mut bench = Bench::new();
        // What cannot be opened cannot be written to.
        fs::create_dir(bench.log()).unwrap();
        assert!(!bench.say("one\ntwo\n") && !bench.say("three"));
        assert!(!bench.turn(), "nobody is kept waiting");
        fs::remove_dir(bench.log()).unwrap();
        bench.say("four\n");
        let log = fs::read_to_string(bench.log()).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines[0].contains("kiln: 3 lines of output (13 bytes) could not be kept here: "), "{log}");
        assert!(lines.len() == 2 && lines[1].ends_with(" stdout F four"), "{log}");
    }

    /// What the tests below run again as a process of its own, to be killed: a keeper that does nothing else.
    const KEEPER: &str = "KILN_TEST_KEEPER_IN";

    fn keep_until_killed(dir: &Path, most: u64) {
        let (output, id) =
            (OutputDir::with_files_of(most, &dir.join("output")), "app-web-1-1".parse().unwrap());
        let mut transit = Transit::open(dir).unwrap();
        transit.finish(&output).unwrap();
        let stdin = rustix::io::dup(std::io::stdin()).unwrap();
        let mut pipe = OutputPipe::adopt(OutputStream::Stdout, stdin);
        // Somebody counts on it that it has begun.
        fs::write(dir.join("begun"), "").unwrap();
        while !pipe.turn(&id, &output, &mut transit) {}
    }

    /// What was written while one keeper after the other was killed, what is kept of it, and how much is said to be gone.
    /// `test` is the one that asks, which in another process is such a keeper.
    fn killed_again_and_again(test: &str, most: u64) -> Option<(Vec<u8>, Vec<u8>, u64)> {
        if let Some(dir) = std::env::var_os(KEEPER) {
            keep_until_killed(dir.as_ref(), most);
            return None;
        }
        let kills = if std::env::var_os("KILN_LONG").is_some() { 2500 } else { 125 };
        let (dir, stop) = (tempfile::tempdir().unwrap(), std::sync::atomic::AtomicBool::new(false));
        fs::create_dir(dir.path().join("output")).unwrap();
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let this = format!("embedded::capture::pipe::tests::{test}");
        let start = || {
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.args([&this, "--exact", "--nocapture"]).env(KEEPER, dir.path());
            again.stdin(reader.try_clone().unwrap()).stdout(std::process::Stdio::null()).spawn().unwrap()
        };
        let written = std::thread::scope(|scope| {
            let writing = scope.spawn(|| write_numbers(writer, &stop));
            for n in 0..kills {
                let _ = fs::remove_file(dir.path().join("begun"));
                let mut keeper = start();
                while !dir.path().join("begun").exists() {
                    assert!(keeper.try_wait().unwrap().is_none(), "it ended by itself");
                }
                let begun = std::time::Instant::now();
                while begun.elapsed() < std::time::Duration::from_micros(n * 7919 % 1500) {}
                keeper.kill().unwrap();
                keeper.wait().unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let mut last = start();
            let written = writing.join().unwrap();
            assert!(last.wait().unwrap().success(), "the writer is gone, so it has an end");
            written
        });
        let files = ["app-web-1-1.log.1", "app-web-1-1.log"]
            .map(|name| fs::read(dir.path().join("output").join(name)).unwrap_or_default());
        let kept = files
            .each_ref()
            .map(|text| {
                text.split(|b| *b == b'\n')
                    .filter_map(kiln_model::OutputLine::parse)
                    .flat_map(|l| {
                        let end: &[u8] = if l.is_partial { b"" } else { b"\n" };
                        if l.text.starts_with(b"kiln: ") { Vec::new() } else { [l.text, end].concat() }
                    })
                    .collect::<Vec<u8>>()
            })
            .concat();
        fs::remove_file(Transit::path(dir.path()).unwrap()).unwrap();
        let gone = files.iter().map(|text| Note::gone(text)).max().unwrap_or(0);
        Some((written, kept, gone))
    }

    #[test]
    fn killed_at_any_moment_it_keeps_every_byte_once() {
        let this = "killed_at_any_moment_it_keeps_every_byte_once";
        let Some((written, kept, gone)) = killed_again_and_again(this, u64::MAX) else { return };
        assert!(gone == 0 && kept.len() > 100_000, "{} bytes, {gone} gone", kept.len());
        let wrong = kept.iter().zip(&written).position(|(a, b)| a != b);
        assert!(kept == written, "{} of {} bytes, wrong at {wrong:?}", kept.len(), written.len());
    }

    /// Files are set aside meanwhile.
    #[test]
    fn killed_at_any_moment_it_keeps_the_end_of_what_is_too_much() {
        let this = "killed_at_any_moment_it_keeps_the_end_of_what_is_too_much";
        let Some((written, kept, gone)) = killed_again_and_again(this, 200_000) else { return };
        assert!(gone > 0 && kept.len() > 50_000, "{} bytes, {gone} gone", kept.len());
        assert!(written.ends_with(&kept), "{} of {} bytes", kept.len(), written.len());
    }

    /// Lines of all kinds of lengths, in pieces that are no lines.
    fn write_numbers(writer: OwnedFd, stop: &std::sync::atomic::AtomicBool) -> Vec<u8> {
        let mut written = Vec::new();
        for n in 0_u64.. {
            if stop.load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
            let text = format!("{n}:{}\n", "x".repeat((n * n % 97) as usize));
            for piece in text.as_bytes().chunks(1 + (n % 53) as usize) {
                written.extend(piece);
                let mut left = piece;
                while !left.is_empty() {
                    left = &left[rustix::io::write(&writer, left).unwrap()..];
                }
            }
        }
        written
    }
}
