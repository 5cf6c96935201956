//! The files output is kept in.
//!
//! ```text
//!   <output dir>/<instance id>.log      what was written last, up to 16 MiB
//!   <output dir>/<instance id>.log.1    what was written before that, up to 16 MiB; absent as long as all fits
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_model::InstanceId;
use rustix::fs::{Mode, OFlags, fstat, open, openat, renameat};

/// The directory of output, held open.
#[derive(Debug)]
pub(crate) struct OutputDir {
    dir: OwnedFd,
    most: u64,
}

/// How much a file may hold before it is set aside.
const MOST: u64 = 16 << 20;

impl OutputDir {
    /// Opens the directory.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { dir: open(path, flags, Mode::empty())?, most: MOST })
    }

    /// Appends lines to an instance's file. It is opened for that only: an idle instance costs no descriptor.
    pub(super) fn append(&self, id: &InstanceId, lines: &[u8]) -> io::Result<()> {
        let name = format!("{id}.log");
        let mut file = self.open_file(&name)?;
        let size = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if size > 0 && size + lines.len() as u64 > self.most {
            renameat(&self.dir, &name, &self.dir, format!("{name}.1"))?;
            file = self.open_file(&name)?;
        }
        write_all(&file, lines)
    }

    fn open_file(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.dir, name, flags, Mode::from_raw_mode(0o640))?)
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_full_file_is_set_aside_and_the_one_before_it_goes() {
        let path = std::env::temp_dir().join(format!("kiln-output-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let output = OutputDir { most: 10, ..OutputDir::open(&path).unwrap() };
        let id = "app-web-1-1".parse().unwrap();
        for line in ["first\n", "2nd\n", "third\n", "4th\n", "fifth\n"] {
            output.append(&id, line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap();
        assert_eq!(
            (read("app-web-1-1.log").as_str(), read("app-web-1-1.log.1").as_str()),
            ("fifth\n", "third\n4th\n")
        );
        fs::remove_dir_all(&path).unwrap();
    }
}
