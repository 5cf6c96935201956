//! The kept lines of one instance, from the last to the first.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::{MAX_LINE, read_from};

/// Where in its files it is.
pub(super) struct Backwards {
    paths: Vec<PathBuf>,
    /// Those that have not been begun, the newest last: which, and how long they were.
    files: Vec<(u64, u64)>,
    /// The file that is being read, and where in it `held` begins.
    number: u64,
    offset: u64,
    /// What has been read and not been told: nothing, or whole lines but for the beginning of the first.
    held: Vec<u8>,
    /// Whether what stands behind the last whole line has been left out.
    is_trimmed: bool,
    size: usize,
}

impl Backwards {
    /// To be read in pieces of `size`.
    pub(super) fn of(paths: Vec<PathBuf>, size: usize) -> io::Result<Self> {
        let mut files = Vec::new();
        for path in &paths {
            match std::fs::metadata(path) {
                Ok(meta) => files.push((meta.ino(), meta.len())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self { paths, files, number: 0, offset: 0, held: Vec::new(), is_trimmed: false, size })
    }

    /// How far who goes on from here has read: all of each file but a line that is still being written.
    pub(super) fn ends(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let mut ends = self.files.clone();
        if let Some((number, end)) = ends.last_mut() {
            while !self.is_trimmed && self.more()? && self.number == *number {
                *end = self.offset + self.held.len() as u64;
            }
        }
        Ok(ends)
    }

    /// The line before the one that was given last, without its end.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some((_, held)) = self.held.split_last() {
                let start = held.iter().rposition(|b| *b == b'\n').map(|at| at + 1);
                if let Some(start) = start.or((self.offset == 0).then_some(0)) {
                    let line = held[start..].to_vec();
                    self.held.truncate(start);
                    return Ok(Some(line));
                }
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    /// Reads what stands before what is held; whether there was more.
    fn more(&mut self) -> io::Result<bool> {
        while self.offset == 0 {
            self.held.clear();
            let Some((number, length)) = self.files.pop() else { return Ok(false) };
            (self.number, self.offset, self.is_trimmed) = (number, length, false);
        }
        if self.held.len() > MAX_LINE {
            // No keeper has written that.
            self.held.clear();
            self.is_trimmed = false;
        }
        let most = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let wanted = self.size.max(2 * self.held.len()).min(most);
        let from = self.offset - wanted as u64;
        let mut piece = Vec::with_capacity(wanted + self.held.len());
        read_from(&self.paths, self.number, (from, wanted), &mut piece)?;
        if piece.len() < wanted {
            // It is gone, and what was before in it as well.
            self.offset = 0;
            return Ok(true);
        }
        piece.append(&mut self.held);
        (self.held, self.offset) = (piece, from);
        if !self.is_trimmed {
            let end = self.held.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            self.held.truncate(end);
            self.is_trimmed = end > 0;
        }
        Ok(true)
    }
}
