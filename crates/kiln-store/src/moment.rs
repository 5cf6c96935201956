//! When a file was written, as its file system has it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// A moment by the clock of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    seconds: i64,
    nanoseconds: i64,
}

impl Moment {
    pub(crate) fn new(seconds: i64, nanoseconds: i64) -> Self {
        Self { seconds, nanoseconds }
    }

    pub(crate) fn written(file: &Metadata) -> Self {
        Self::new(file.mtime(), file.mtime_nsec())
    }
}
