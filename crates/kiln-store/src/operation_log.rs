//! The operation log: who did what, and how it ended. Append-only.
//!
//! ```text
//! {"seq":1,"prev":"0000…","entry":{…}}\n
//! {"seq":2,"prev":"<sha256 of line 1 without its newline>","entry":{…}}\n
//! ```
//! An append is complete when its newline is on disk. A crash can leave a last line without a newline, or with pages
//! of NUL that never were written; nobody was told that such an entry exists, so opening cuts it off. Everything else
//! that does not add up is damage, and an error that names the line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_model::Sha256;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::chain::{BEGINNING, End, Line, follow};
use crate::error::{if_present, on};
use crate::medium::{Disk, Medium};
use crate::temp::sync_dir;
use crate::{HostLock, Result, Store, StoreError};

/// What the log is called in its directory.
pub(crate) const FILE: &str = "operations.jsonl";

/// The log, open for appending.
#[derive(Debug)]
pub struct OperationLog {
    path: PathBuf,
    medium: Arc<dyn Medium>,
    end: End,
    tail: Tail,
    /// To where the disk's space is the log's, as far as the file system can give it.
    held_back: u64,
}

/// How much of the disk is held back behind the last entry: for some hundred that keep running what runs.
const RESERVE: u64 = 64 << 10;

/// What may be used of it before more is asked for: a block, as without a reserve.
const SLACK: u64 = 4 << 10;

/// The log as it was at one moment. It is read from the disk, which takes long for a long log: nobody who appends
/// meanwhile has to wait, for what is there is never written again.
#[derive(Debug, Clone)]
pub struct LogReader {
    path: PathBuf,
    medium: Arc<dyn Medium>,
    end: End,
}

/// What is behind the last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// Nothing.
    Clean,
    /// Perhaps an entry of which it was said that it is not there.
    Torn,
}

impl OperationLog {
    /// Opens the log, and makes it if there is none. It belongs to the holder of the host lock: two writers would
    /// each continue the chain from the same line.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not what was appended; otherwise what the system refused.
    pub fn open(store: &Store, held: &HostLock) -> Result<Self> {
        Self::open_and_read::<IgnoredAny>(store, held, &mut |_| {})
    }

    /// The same, handing out every entry on the way: a log that has grown for years is read once at the start of a host.
    ///
    /// # Errors
    /// As [`OperationLog::open`].
    pub fn open_and_read<T: DeserializeOwned + Send>(
        store: &Store,
        _held: &HostLock,
        each: &mut dyn FnMut(T),
    ) -> Result<Self> {
        let dir = store.dir("log");
        let path = dir.join(FILE);
        let disk = Disk::open(&path).map_err(on("open the operation log", &path))?;
        sync_dir(&dir)?;
        Self::over(&path, Arc::new(disk), each)
    }

    /// The log that is on `medium`, which nobody else writes to, and each of its entries; `path` is what it is called, for
    /// messages.
    ///
    /// # Errors
    /// As [`OperationLog::open`].
    pub fn over<T: DeserializeOwned + Send>(
        path: &Path,
        medium: Arc<dyn Medium>,
        each: &mut dyn FnMut(T),
    ) -> Result<Self> {
        let mut log = Self { path: path.to_owned(), medium, end: BEGINNING, tail: Tail::Clean, held_back: 0 };
        let bytes = log.medium.read().map_err(on("read", path))?;
        let whole = without_torn_line(&bytes);
        log.end = follow::<T>(&log.path, whole, &mut |_, entry| each(entry))?;
        if whole.len() != bytes.len() {
            log.cut()?;
        }
        Ok(log)
    }

    /// Appends an entry; returns its number, counted from 1, when it is safely on disk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if somebody else has written to it; otherwise what the system refused. The entry is not in
    /// the log then.
    pub fn append(&mut self, entry: &impl Serialize) -> Result<u64> {
        self.is_as_it_was_left()?;
        self.hold_back()?;
        self.put(entry)
    }

    /// The same for what keeps running what runs: there is room for it on a disk that is full, too.
    ///
    /// # Errors
    /// As [`OperationLog::append`].
    pub fn append_in_need(&mut self, entry: &impl Serialize) -> Result<u64> {
        self.is_as_it_was_left()?;
        // If there is no more, what is held back must do.
        let _ = self.hold_back();
        self.put(entry)
    }

    fn put(&mut self, entry: &impl Serialize) -> Result<u64> {
        let line = Line { seq: self.end.seq + 1, prev: self.end.hash, entry };
        let mut bytes = serde_json::to_vec(&line)
            .map_err(|source| StoreError::Encode { path: self.path.clone(), source })?;
        let hash = Sha256::of(&bytes);
        bytes.push(b'\n');
        if let Err(e) = self.write_at_end(&bytes) {
            // What is left of it would count as an entry if its newline got to disk after all. If it cannot be cut off
            // now, that is tried again: by `mend`, by the next append.
            self.tail = Tail::Torn;
            let _ = self.mend();
            return Err(e);
        }
        self.end = End { seq: line.seq, hash, length: self.end.length + bytes.len() as u64 };
        Ok(self.end.seq)
    }

    /// Cuts off what an append that failed may have left: until that is done, whoever opens the log would find an entry of
    /// which it was said that it is not there.
    ///
    /// # Errors
    /// What the system refused.
    pub fn mend(&mut self) -> Result<()> {
        if self.tail == Tail::Torn {
            self.cut()?;
            self.tail = Tail::Clean;
        }
        Ok(())
    }

    /// The log as it is now, to be read without it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if there is more than was appended; otherwise what the system refused.
    pub fn reader(&self) -> Result<LogReader> {
        let length = self.medium.length().map_err(on("read", &self.path))?;
        if self.tail == Tail::Clean && length != self.end.length {
            return Err(written_by_another(&self.path));
        }
        Ok(LogReader { path: self.path.clone(), medium: self.medium.clone(), end: self.end })
    }

    /// As [`LogReader::verify`], for a log that nobody needs to have opened, and of which nothing is changed.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn inspect(store: &Store) -> Result<(u64, Sha256)> {
        let path = store.dir("log").join(FILE);
        let bytes = std::fs::read(&path).map_err(on("read", &path))?;
        let end = follow::<IgnoredAny>(&path, &bytes, &mut |_, _| {})?;
        Ok((end.seq, end.hash))
    }

    /// Hands out the entries of the log as far as it is one, oldest first, while nobody needs to have opened it; nothing if
    /// there is none. Nothing of it is changed.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn look<T: DeserializeOwned + Send>(store: &Store, each: &mut dyn FnMut(T)) -> Result<()> {
        let path = store.dir("log").join(FILE);
        let Some(bytes) = if_present(std::fs::read(&path)).map_err(on("read", &path))? else { return Ok(()) };
        follow(&path, without_torn_line(&bytes), &mut |_, entry| each(entry)).map(drop)
    }

    /// What somebody else has done to it is kept, to be looked at: nothing is cut off, nothing goes on behind it.
    fn is_as_it_was_left(&mut self) -> Result<()> {
        self.mend()?;
        let length = self.medium.length().map_err(on("append to the operation log", &self.path))?;
        if length == self.end.length { Ok(()) } else { Err(written_by_another(&self.path)) }
    }

    /// Holds back what was used of the reserve.
    fn hold_back(&mut self) -> Result<()> {
        let to = self.end.length + RESERVE;
        if to > self.held_back + SLACK {
            let failed = on("hold back room behind the operation log", &self.path);
            self.medium.hold_back(self.end.length, RESERVE).map_err(failed)?;
            self.held_back = to;
        }
        Ok(())
    }

    fn write_at_end(&self, bytes: &[u8]) -> Result<()> {
        let failed = || on("append to the operation log", &self.path);
        self.medium.write(bytes, self.end.length).map_err(failed())?;
        self.medium.sync().map_err(failed())
    }

    fn cut(&mut self) -> Result<()> {
        self.held_back = 0;
        self.medium.cut(self.end.length).map_err(on("cut off the torn end of", &self.path))
    }
}

impl LogReader {
    /// Hands out all entries with their numbers, in order. Nothing of a log of years is held in memory but its bytes.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the line at fault; otherwise what the system refused. Entries before that line may have
    /// been handed out.
    pub fn read<T: DeserializeOwned + Send>(&self, each: &mut dyn FnMut(u64, T)) -> Result<()> {
        let bytes = self.medium.read().map_err(on("read", &self.path))?;
        let length = usize::try_from(self.end.length).unwrap_or(usize::MAX);
        let known = bytes.get(..length).ok_or_else(|| written_by_another(&self.path))?;
        let end = follow(&self.path, known, each)?;
        if end.hash == self.end.hash { Ok(()) } else { Err(written_by_another(&self.path)) }
    }

    /// Reads all of it, and follows the chain: how many entries there are, and the hash of the last.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn verify(&self) -> Result<(u64, Sha256)> {
        self.read::<IgnoredAny>(&mut |_, _| {})?;
        Ok((self.end.seq, self.end.hash))
    }
}

fn written_by_another(path: &Path) -> StoreError {
    StoreError::damaged(path, "somebody else has written to it")
}

/// The lines that an append may have reported as done.
pub(crate) fn without_torn_line(bytes: &[u8]) -> &[u8] {
    let start_of_last = |b: &[u8]| b.iter().rposition(|c| *c == b'\n').map_or(0, |n| n + 1);
    let Some(ended) = bytes.strip_suffix(b"\n") else { return &bytes[..start_of_last(bytes)] };
    let start = start_of_last(ended);
    // JSON has no NUL bytes: these pages never got to disk.
    if ended[start..].contains(&0) { &bytes[..start] } else { bytes }
}
