//! One host per state directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};

use rustix::fs::{FlockOperation, flock};

use crate::error::on;
use crate::{Result, Store, StoreError};

/// Held by the process that runs a host on a state directory, until it is dropped or the process is gone.
#[derive(Debug)]
pub struct HostLock {
    _file: File,
}

impl HostLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`StoreError::Locked`] with the holder's process id if somebody has it; otherwise what the system refused.
    pub fn take(store: &Store) -> Result<Self> {
        let path = store.run_dir().join("lock");
        // Never renamed and never removed: the lock is on the inode, and a second file would be a second lock.
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(on("open the lock", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked { root: store.root().to_owned(), pid: holder(&mut file) });
            }
            Err(e) => return Err(on("lock", &path)(e.into())),
        }
        // For people and error messages only; the kernel knows who holds it.
        file.set_len(0).map_err(on("write", &path))?;
        writeln!(file, "{}", std::process::id()).map_err(on("write", &path))?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
