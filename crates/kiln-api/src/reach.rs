//! Unix sockets whose path is longer than the kernel takes.
//!
//! An address holds 107 bytes of path, and a project may lie deeper than that. A directory that is open has a short
//! name of its own below `/proc/self/fd`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The longest path a socket address holds.
const LONGEST: usize = 107;

/// A path by which a socket can be bound or connected to; good as long as this value lives.
pub(crate) struct Reach {
    path: PathBuf,
    _directory: Option<File>,
}

impl Reach {
    /// A short enough path to `socket`.
    pub(crate) fn to(socket: &Path) -> io::Result<Self> {
        if socket.as_os_str().len() <= LONGEST {
            return Ok(Self { path: socket.to_owned(), _directory: None });
        }
        let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let directory = File::open(parent)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
