//! The disk a file lies on, as the controller of reading has it.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{major, minor, stat};

/// A whole disk: partitions have no limits of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Disk {
    /// That of a file or directory.
    ///
    /// # Errors
    /// If it lies on none: a network, memory, or a file system that spreads over several.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let device = stat(path)?.st_dev;
        let at = format!("/sys/dev/block/{}:{}", major(device), minor(device));
        let no_disk = || {
            let what = format!("{} lies on no disk the kernel can limit reading from", path.display());
            io::Error::new(io::ErrorKind::Unsupported, what)
        };
        let block = fs::canonicalize(at).map_err(|_| no_disk())?;
        // The directory of a partition is below that of its disk.
        let whole = if block.join("partition").exists() { block.join("..") } else { block };
        let numbers = fs::read_to_string(whole.join("dev"))?;
        Self::parse(numbers.trim()).ok_or_else(no_disk)
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_no_disk_and_the_disk_of_this_directory_is_whole() {
        let error = Disk::of(Path::new("/proc")).unwrap_err();
        assert!(error.to_string().contains("/proc lies on no disk"), "{error}");
        if let Ok(disk) = Disk::of(Path::new(".")) {
            assert!(!Path::new(&format!("/sys/dev/block/{disk}/partition")).exists());
        }
        assert_eq!(Disk::parse("8:16"), Some(Disk { major: 8, minor: 16 }));
        assert_eq!(Disk::parse("8"), None);
    }
}
