//! Files being written.
//!
//! Each process has a directory of its own under `tmp/` and holds a lock on it. Whoever opens the store, or sweeps it, removes
//! the directories nobody holds: they are what a crash left. So a living process never loses a file, whatever its age,
//! and no clock or process number is trusted.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread::{self, JoinHandle};

use rustix::fs::{FlockOperation, flock};

use crate::boundary::changed;
use crate::error::on;
use crate::{Result, Store};

/// So much of a large file is given to the disk at once.
const FLUSHED: usize = 4 << 20;

/// The directory of this process, which is made when there is something to write.
#[derive(Debug)]
pub(crate) struct TempDir {
    all: PathBuf,
    claim: OnceLock<Claim>,
}

impl TempDir {
    /// For this process inside `all`, which is made if it is not there; removes the directories of processes that are gone.
    pub(crate) fn new(all: &Path) -> Result<Self> {
        ensure_dir(all)?;
        remove_abandoned(all)?;
        Ok(Self { all: all.to_owned(), claim: OnceLock::new() })
    }

    /// A new file in it, open for writing.
    pub(crate) fn file(&self) -> Result<TempFile> {
        match self.claim.get() {
            Some(claim) => claim.file(),
            // Of two that are made at once one is removed again.
            None => {
                let claim = Claim::make(&self.all)?;
                self.claim.get_or_init(|| claim).file()
            }
        }
    }
}

/// A directory that is locked.
#[derive(Debug)]
struct Claim {
    path: PathBuf,
    owner: u32,
    next: AtomicU64,
    _lock: File,
}

impl Claim {
    /// Makes a directory for this process inside `all`.
    fn make(all: &Path) -> Result<Self> {
        for n in 0.. {
            let path = all.join(format!("{}-{n}", std::process::id()));
            match fs::create_dir(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(on("create the directory", &path))?,
            }
            // Between its making and its locking somebody may have taken it for abandoned; then the next one.
            if let Some(lock) = lock(&path)
                && still_at(&lock, &path)
            {
                return Ok(Self { path, owner: std::process::id(), next: AtomicU64::new(0), _lock: lock });
            }
        }
        unreachable!("numbers do not end")
    }

    fn file(&self) -> Result<TempFile> {
        let path = self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(&path);
        let temp = TempFile { file: file.map_err(on("create", &path))?, path: TempPath(path) };
        // Not left to the process's umask.
        temp.file
            .set_permissions(Permissions::from_mode(0o644))
            .map_err(on("set the mode of", temp.path()))?;
        Ok(temp)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A forked child has a copy of this value, and not the right to end it. If the directory stays, the next to
        // open the store removes it.
        if self.owner == std::process::id() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn lock(dir: &Path) -> Option<File> {
    let dir = File::open(dir).ok()?;
    flock(&dir, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(dir)
}

fn still_at(lock: &File, path: &Path) -> bool {
    let inode = |meta: io::Result<fs::Metadata>| meta.map(|m| (m.dev(), m.ino())).ok();
    inode(fs::metadata(path)).is_some_and(|there| inode(lock.metadata()) == Some(there))
}

/// Removes the directories of processes that are gone from `all`.
pub(crate) fn remove_abandoned(all: &Path) -> Result<()> {
    for entry in fs::read_dir(all).map_err(on("read the directory", all))? {
        let path = entry.map_err(on("read the directory", all))?.path();
        // The lock is held until all is removed: nobody can claim it in between.
        if let Some(_lock) = lock(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

impl Store {
    /// Removes what processes that are gone were writing, as opening a store does, and what this one was: nothing can be
    /// written any more. For a process that ends, whichever of its threads are still at something.
    ///
    /// # Errors
    /// What the system refused.
    pub fn write_no_more(&self) -> Result<()> {
        if let Some(claim) = self.temp().claim.get() {
            // What cannot be removed is found by whoever opens the store next.
            let _ = fs::remove_dir_all(&claim.path);
        }
        remove_abandoned(&self.root().join("tmp"))
    }

    /// A file with these bytes for as long as the value lives, on the disk that objects are on. Nothing of it is flushed: it
    /// is for who makes it.
    ///
    /// # Errors
    /// What the system refused.
    pub fn scratch(&self, bytes: &[u8]) -> Result<Scratch> {
        let mut file = self.temp().file()?;
        file.write(bytes)?;
        Ok(Scratch(file.close()))
    }
}

/// A file that is gone when it is dropped.
#[derive(Debug)]
pub struct Scratch(TempPath);

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A closed file that is removed when dropped, unless it was renamed to its place.
#[derive(Debug)]
pub(crate) struct TempPath(PathBuf);

impl TempPath {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Gives the file its name. Its content must have been flushed to disk.
    pub(crate) fn rename(mut self, to: &Path) -> Result<()> {
        let rename = || fs::rename(&self.0, to).map_err(on("rename a new file to", to));
        changed("name", || to.to_owned(), rename)?;
        self.0.clear();
        Ok(())
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// A file being written.
pub(crate) struct TempFile {
    file: File,
    path: TempPath,
}

impl TempFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path.0
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(on("write", &self.path.0))
    }

    /// As many zeroes, without a place on the disk for them.
    pub(crate) fn skip(&mut self, zeroes: u64) -> Result<()> {
        let mut skip = || {
            let end = self.file.seek(SeekFrom::Current(zeroes as i64))?;
            self.file.set_len(end)
        };
        skip().map_err(on("write", &self.path.0))
    }

    pub(crate) fn flush(&self) -> Result<()> {
        self.file.sync_all().map_err(on("flush", &self.path.0))
    }

    /// Closes it without flushing it to disk.
    pub(crate) fn close(self) -> TempPath {
        self.path
    }

    /// Writes `bytes`, and has the disk take them meanwhile: a thread of its own flushes piece by piece what is there. All
    /// of them are on the disk when it ends.
    pub(crate) fn write_flushing(&mut self, bytes: &[u8]) -> Result<JoinHandle<Result<()>>> {
        let file = self.file.try_clone().map_err(on("open", &self.path.0))?;
        let name = self.path.0.clone();
        let (written, news) = mpsc::channel();
        let flushing = thread::spawn(move || {
            let flush = || file.sync_data().map_err(on("flush", &name));
            while news.recv().is_ok() {
                // What has come since the last time is flushed with it.
                news.try_iter().for_each(drop);
                flush()?;
            }
            flush()
        });
        for piece in bytes.chunks(FLUSHED) {
            self.write(piece)?;
            // A thread that is gone has failed, and says so when it is asked.
            let _ = written.send(());
        }
        Ok(flushing)
    }

    /// Flushes it, gives it its name, and flushes the directory it is in then.
    pub(crate) fn persist(self, to: &Path) -> Result<()> {
        self.flush()?;
        self.path.rename(to)?;
        sync_dir(to.parent().unwrap_or(to))
    }
}

/// Flushes the names in a directory.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(on("flush the directory", dir))
}

/// Makes `dir` inside a directory that exists, unless it is there, and flushes its name.
pub(crate) fn ensure_dir(dir: &Path) -> Result<()> {
    if made_dir(dir)? { sync_dir(dir.parent().unwrap_or(dir)) } else { Ok(()) }
}

/// The same, for who flushes its name together with others; whether it was made.
pub(crate) fn made_dir(dir: &Path) -> Result<bool> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        made => made.map_err(on("create the directory", dir))?,
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755)).map_err(on("set the mode of", dir))?;
    Ok(true)
}
