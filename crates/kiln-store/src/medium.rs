//! What the operation log is written on.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

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
    /// What the system refused, or that the file has its name no longer: what is written to it then nobody finds.
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

    /// Takes the disk's space for `bytes` that will be written from `offset` on, without making it longer. Not every file
    /// system can: then nothing is taken.
    ///
    /// # Errors
    /// If there is no space; otherwise what the system refused.
    fn hold_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let _ = (offset, bytes);
        Ok(())
    }

    /// Makes it so long, and makes that safe; what was held back behind it may be free again.
    ///
    /// # Errors
    /// What the system refused; it may be so long now, or after the next crash.
    fn cut(&self, length: u64) -> io::Result<()>;
}

const NEXT: &str = "put back the file that was there; or a copy of it, and start the host again";

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
        let (open, named) = (self.file.metadata()?, std::fs::metadata(&self.path));
        let is_named = |named: Metadata| (named.dev(), named.ino()) == (open.dev(), open.ino());
        match named.map(is_named) {
            Ok(true) => Ok(open.len()),
            Ok(false) => Err(io::Error::other(format!("somebody has put another file in its place; {NEXT}"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(io::Error::other(format!("somebody has moved or removed it; {NEXT}")))
            }
            Err(e) => Err(e),
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn hold_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            done => done.map_err(io::Error::from),
        }
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.sync_all()
    }
}
