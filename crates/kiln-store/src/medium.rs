//! What the operation log is written on.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One file, as far as the log needs one. In tests a disk takes its place that fails when it is told to.
pub trait Medium: fmt::Debug + Send + Sync {
    /// All of it.
    ///
    /// # Errors
    /// What the system refused.
    fn read(&self) -> io::Result<Vec<u8>>;

    /// How long it is.
    ///
    /// # Errors
    /// What the system refused.
    fn length(&self) -> io::Result<u64>;

    /// Writes all of `bytes` there; they are safe when [`Medium::sync`] has returned.
    ///
    /// # Errors
    /// What the system refused; some of it may be written.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes safe what was written.
    ///
    /// # Errors
    /// What the system refused; what was written may be safe or not.
    fn sync(&self) -> io::Result<()>;

    /// Makes it so long, and makes that safe.
    ///
    /// # Errors
    /// What the system refused; it may be so long now, or after the next crash.
    fn cut(&self, length: u64) -> io::Result<()>;
}

/// A real file.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    file: File,
}

impl Disk {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }
}

impl Medium for Disk {
    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(&self.path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.sync_all()
    }
}
