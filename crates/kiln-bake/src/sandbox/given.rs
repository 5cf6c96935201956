//! A directory that is there while a program runs, and gone before the next one does.
//!
//! Made ready by the parent; pid 1 lays it out and clears it by plain system calls, as it does everything (`init`).

use std::ffi::{CString, c_int};
use std::io;

use super::init::checked;

/// A directory of root's with files in it. Its paths begin at the root of the tree, which is where pid 1 is: its own root is
/// another.
pub(crate) struct Given {
    dir: CString,
    files: Vec<File>,
}

struct File {
    path: CString,
    mode: u32,
    bytes: Vec<u8>,
}

impl Given {
    /// The directory `dir`, whose parent is there, with files by name, mode and content.
    pub(crate) fn new<'f>(
        dir: &str,
        files: impl IntoIterator<Item = (&'f str, u16, &'f [u8])>,
    ) -> io::Result<Self> {
        let dir = dir.trim_start_matches('/');
        let file = |(name, mode, bytes): (&str, u16, &[u8])| {
            let path = CString::new(format!("{dir}/{name}"))?;
            Ok(File { path, mode: mode.into(), bytes: bytes.to_vec() })
        };
        let files = files.into_iter().map(file).collect::<io::Result<_>>()?;
        Ok(Self { dir: CString::new(dir)?, files })
    }

    /// Lays it out; else the error number of what was refused.
    pub(super) fn lay(&self) -> Result<(), i32> {
        // SAFETY: the path is there for as long as the call lasts.
        checked(unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, self.dir.as_ptr(), 0o755) })?;
        self.files.iter().try_for_each(File::lay)
    }

    /// Takes it away. What the program has put beside its files is in the way of that.
    pub(super) fn clear(&self) -> Result<(), i32> {
        for file in &self.files {
            // SAFETY: the path is there for as long as the call lasts. What the program has taken away itself is gone.
            unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, file.path.as_ptr(), 0) };
        }
        // SAFETY: as above.
        checked(unsafe {
            libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, self.dir.as_ptr(), libc::AT_REMOVEDIR)
        })
        .map(drop)
    }
}

impl File {
    fn lay(&self) -> Result<(), i32> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        // SAFETY: path and bytes are there for as long as the calls last, the descriptor is this function's own. The
        // umask does not count for a mode that is set afterwards.
        unsafe {
            let file =
                checked(libc::syscall(libc::SYS_openat, libc::AT_FDCWD, self.path.as_ptr(), flags, 0o600))?
                    as c_int;
            let mut rest = self.bytes.as_slice();
            while !rest.is_empty() {
                let written = checked(libc::syscall(libc::SYS_write, file, rest.as_ptr(), rest.len()))?;
                rest = rest.get(written as usize..).unwrap_or_default();
            }
            checked(libc::syscall(libc::SYS_fchmod, file, self.mode))?;
            checked(libc::syscall(libc::SYS_close, file)).map(drop)
        }
    }
}
