//! Where the access log goes: one file for all threads, exchanged for another one between two pieces of it.
//!
//! The edge may open no file. It begins with its stdout, and whoever started it hands it another file when that one has
//! become large.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// A file that whole lines are appended to.
#[derive(Debug)]
pub(crate) struct Sink(Mutex<File>);

impl Sink {
    /// What the process was started with.
    pub(crate) fn stdout() -> io::Result<Self> {
        Ok(Self(Mutex::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))))
    }

    /// Writes whole lines in one piece. A log on a full disk loses lines; requests go on.
    pub(crate) fn write(&self, lines: &[u8]) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(lines);
    }

    /// What is written from now on goes there; nothing is torn between the two.
    pub(crate) fn exchange(&self, file: OwnedFd) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = File::from(file);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    /// Several threads write while the file is exchanged again and again: every line is somewhere, once and whole.
    #[test]
    fn no_line_is_lost_or_torn() {
        const LINES: usize = 2_000;
        let mut files = vec![tempfile::tempfile().unwrap()];
        let sink = Sink(Mutex::new(files[0].try_clone().unwrap()));
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|thread| {
                    let sink = &sink;
                    scope.spawn(move || {
                        for n in 0..LINES {
                            sink.write(format!("{thread} {n} {}\n", "x".repeat(n % 50)).as_bytes());
                        }
                    })
                })
                .collect();
            while writers.iter().any(|writer| !writer.is_finished()) {
                let file = tempfile::tempfile().unwrap();
                sink.exchange(file.try_clone().unwrap().into());
                files.push(file);
            }
        });
        let mut seen = std::collections::HashSet::new();
        for file in &mut files {
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            for line in text.lines() {
                let words: Vec<&str> = line.splitn(3, ' ').collect();
                let n: usize = words[1].parse().unwrap();
                assert_eq!(words[2], "x".repeat(n % 50));
                assert!(seen.insert((words[0].to_owned(), n)), "{line} is there twice");
            }
        }
        assert_eq!(seen.len(), 4 * LINES);
    }
}
