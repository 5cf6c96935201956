//! The memory a child runs on until it executes its program.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

/// A stack with a guard page below it: a child that overran it would die instead of writing into its parent.
#[derive(Debug)]
pub(crate) struct Stack {
    lowest: NonNull<c_void>,
}

impl Stack {
    /// A child needs a few hundred bytes per call; nothing recurses.
    const BYTES: usize = 64 << 10;
    const GUARD: usize = 64 << 10;

    /// Maps a stack.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: fresh memory of the kernel's choosing disturbs nothing.
        let lowest = unsafe {
            libc::mmap(std::ptr::null_mut(), Self::GUARD + Self::BYTES, libc::PROT_NONE, flags, -1, 0)
        };
        if lowest == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { lowest: NonNull::new(lowest).ok_or(io::ErrorKind::OutOfMemory)? };
        // SAFETY: the part above the guard was mapped above.
        match unsafe { libc::mprotect(stack.base(), Self::BYTES, libc::PROT_READ | libc::PROT_WRITE) } {
            0 => Ok(stack),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn base(&self) -> *mut c_void {
        // SAFETY: within the mapping.
        unsafe { self.lowest.as_ptr().byte_add(Self::GUARD) }
    }

    /// The lowest usable address and the size, as `clone3` takes them.
    pub(super) fn for_clone(&self) -> (u64, u64) {
        (self.base() as u64, Self::BYTES as u64)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; whoever owns a stack drops it only when nothing runs on it.
        unsafe { libc::munmap(self.lowest.as_ptr(), Self::GUARD + Self::BYTES) };
    }
}
