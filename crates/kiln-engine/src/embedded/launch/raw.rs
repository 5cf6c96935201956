//! System calls without the C library.
//!
//! The child shares its parent's memory until it executes its program, thread-local storage included. libc's
//! wrappers store `errno` there, so the two would overwrite each other's; these wrappers touch nothing but
//! registers.

use std::ffi::{CStr, c_int, c_long, c_ulong};

/// An error number of the kernel.
pub(super) type Errno = i32;

/// The arguments of one call; what a call does not take is zero.
type Arguments = [usize; 6];

/// # Safety
/// As the system call itself: pointers among the arguments point to what it expects.
#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: c_long, a: Arguments) -> isize {
    let answer;
    // SAFETY: the calling convention of the kernel; it may change all memory the arguments point to.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number as isize => answer,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    answer
}

/// # Safety
/// As the system call itself: pointers among the arguments point to what it expects.
#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: c_long, a: Arguments) -> isize {
    let answer;
    // SAFETY: the calling convention of the kernel; it may change all memory the arguments point to.
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") a[0] as isize => answer,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5], options(nostack));
    }
    answer
}

/// # Safety
/// As the system call itself.
unsafe fn checked<const N: usize>(number: c_long, given: [usize; N]) -> Result<usize, Errno> {
    let mut arguments = [0; 6];
    arguments[..N].copy_from_slice(&given);
    // SAFETY: promised by the caller.
    let answer = unsafe { syscall(number, arguments) };
    if (-4095..0).contains(&answer) { Err(answer.unsigned_abs() as Errno) } else { Ok(answer as usize) }
}

fn at(text: &CStr) -> usize {
    text.as_ptr() as usize
}

/// `mount(2)`; an empty `data` is none.
pub(super) fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: c_ulong,
    data: &CStr,
) -> Result<(), Errno> {
    let arguments = [at(source), at(target), at(kind), flags as usize, at(data)];
    // SAFETY: all pointers are NUL-terminated and only read.
    unsafe { checked(libc::SYS_mount, arguments) }.map(drop)
}

/// A call that takes descriptors, flags and numbers only: nothing in memory.
///
/// # Safety
/// `number` is such a call, and closing or replacing descriptors by it takes nothing away from an owner in this
/// process that still uses it.
pub(super) unsafe fn plain<const N: usize>(
    number: c_long,
    arguments: [c_ulong; N],
) -> Result<c_ulong, Errno> {
    // SAFETY: promised by the caller.
    unsafe { checked(number, arguments.map(|a| a as usize)) }.map(|answer| answer as c_ulong)
}

/// Opens a filesystem context, creates its superblock, and mounts it, detached.
pub(super) fn mount_detached(kind: &CStr) -> Result<c_int, Errno> {
    const CREATE: usize = 6; // FSCONFIG_CMD_CREATE
    // SAFETY: the name is NUL-terminated and only read; the rest are numbers.
    unsafe {
        let context = checked(libc::SYS_fsopen, [at(kind), 1])?;
        checked(libc::SYS_fsconfig, [context, CREATE, 0, 0, 0])?;
        let attributes =
            (libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC) as usize;
        let mount = checked(libc::SYS_fsmount, [context, 1, attributes])?;
        checked(libc::SYS_close, [context])?;
        Ok(mount as c_int)
    }
}

/// Makes a detached mount read-only and attaches it at `target`.
pub(super) fn attach_read_only(mount: c_int, target: &CStr) -> Result<(), Errno> {
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let empty = at(c"");
    let (fd, this_dir) = (mount as usize, libc::AT_FDCWD as isize as usize);
    // SAFETY: the texts are NUL-terminated, `attributes` is read for exactly its size.
    unsafe {
        let size = size_of_val(&attributes);
        let set = &raw const attributes as usize;
        checked(libc::SYS_mount_setattr, [fd, empty, libc::AT_EMPTY_PATH as usize, set, size])?;
        const FROM_EMPTY_PATH: usize = 4; // MOVE_MOUNT_F_EMPTY_PATH
        checked(libc::SYS_move_mount, [fd, empty, this_dir, at(target), FROM_EMPTY_PATH])?;
        checked(libc::SYS_close, [fd]).map(drop)
    }
}

/// Binds a file of a detached mount over the file `target`.
pub(super) fn attach_file(mount: c_int, name: &CStr, target: &CStr) -> Result<(), Errno> {
    const CLONE: usize = 1; // OPEN_TREE_CLONE
    const FROM_EMPTY_PATH: usize = 4; // MOVE_MOUNT_F_EMPTY_PATH
    let this_dir = libc::AT_FDCWD as isize as usize;
    // SAFETY: the texts are NUL-terminated and only read; the rest are numbers.
    unsafe {
        let flags = CLONE | libc::O_CLOEXEC as usize;
        let file = checked(libc::SYS_open_tree, [mount as usize, at(name), flags])?;
        let moved = checked(libc::SYS_move_mount, [file, at(c""), this_dir, at(target), FROM_EMPTY_PATH]);
        checked(libc::SYS_close, [file])?;
        moved.map(drop)
    }
}

/// Writes `text` to the file `path` below the directory `dir`.
pub(super) fn write_file(dir: c_int, path: &CStr, text: &[u8]) -> Result<(), Errno> {
    let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as usize;
    // SAFETY: the path is NUL-terminated; `text` is read for its length.
    unsafe {
        let fd = checked(libc::SYS_openat, [dir as usize, at(path), flags, 0])?;
        let written = checked(libc::SYS_write, [fd, text.as_ptr() as usize, text.len()]);
        checked(libc::SYS_close, [fd])?;
        written.map(drop)
    }
}

/// `mkdir(2)`.
pub(super) fn make_dir(path: &CStr, mode: usize) -> Result<(), Errno> {
    make_dir_at(libc::AT_FDCWD, path, mode)
}

/// `mkdirat(2)`.
pub(super) fn make_dir_at(dir: c_int, path: &CStr, mode: usize) -> Result<(), Errno> {
    // SAFETY: the path is NUL-terminated and only read.
    unsafe { checked(libc::SYS_mkdirat, [dir as isize as usize, at(path), mode]) }.map(drop)
}

/// `chown(2)` of a directory that was just made.
pub(super) fn change_owner(path: &CStr, (uid, gid): (u32, u32)) -> Result<(), Errno> {
    let (this_dir, no_follow) = (libc::AT_FDCWD as isize as usize, libc::AT_SYMLINK_NOFOLLOW as usize);
    // SAFETY: the path is NUL-terminated and only read.
    unsafe { checked(libc::SYS_fchownat, [this_dir, at(path), uid as usize, gid as usize, no_follow]) }
        .map(drop)
}

/// What time it is by a clock that does not jump, in nanoseconds.
pub(super) fn nanoseconds() -> u64 {
    let mut now = [0u64; 2];
    // SAFETY: the kernel writes one `timespec`, two words.
    let asked = unsafe {
        checked(libc::SYS_clock_gettime, [libc::CLOCK_MONOTONIC as usize, now.as_mut_ptr() as usize])
    };
    if asked.is_ok() { now[0] * 1_000_000_000 + now[1] } else { 0 }
}

/// Makes the file `path`, which is not there yet, with this content, mode and owner.
pub(super) fn new_file(
    path: &CStr,
    content: &[u8],
    mode: usize,
    (uid, gid): (u32, u32),
) -> Result<(), Errno> {
    let flags = (libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC) as usize;
    let this_dir = libc::AT_FDCWD as isize as usize;
    // SAFETY: the path is NUL-terminated; `content` is read for its length.
    unsafe {
        let fd = checked(libc::SYS_openat, [this_dir, at(path), flags, mode])?;
        let written = checked(libc::SYS_write, [fd, content.as_ptr() as usize, content.len()]);
        let owned = checked(libc::SYS_fchown, [fd, uid as usize, gid as usize]);
        checked(libc::SYS_close, [fd])?;
        owned?;
        // A tmpfs takes all of it or has no room.
        if written? == content.len() { Ok(()) } else { Err(libc::ENOSPC) }
    }
}

/// `write(2)`.
pub(super) fn write(fd: c_int, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: `bytes` is read for its length.
    unsafe { checked(libc::SYS_write, [fd as usize, bytes.as_ptr() as usize, bytes.len()]) }
}

/// Reads at most one byte; 0 at the end.
pub(super) fn read_byte(fd: c_int) -> Result<usize, Errno> {
    let mut byte = 0u8;
    // SAFETY: one byte is written to where there is room for one.
    unsafe { checked(libc::SYS_read, [fd as usize, &raw mut byte as usize, 1]) }
}

/// Brings up the loopback interface of the network namespace.
pub(super) fn loopback_up() -> Result<(), Errno> {
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as usize;
    // SAFETY: the kernel reads `request`, which is what SIOCSIFFLAGS takes.
    unsafe {
        let socket = checked(libc::SYS_socket, [libc::AF_INET as usize, kind, 0])?;
        let set =
            checked(libc::SYS_ioctl, [socket, libc::SIOCSIFFLAGS as usize, &raw const request as usize]);
        checked(libc::SYS_close, [socket])?;
        set.map(drop)
    }
}

/// `sethostname(2)`.
pub(super) fn set_hostname(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the name is read for its length.
    unsafe { checked(libc::SYS_sethostname, [at(name), name.count_bytes()]) }.map(drop)
}

/// `setgroups(2)`, of this process alone.
pub(super) fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the list is read for its length.
    unsafe { checked(libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize]) }.map(drop)
}

/// `chdir(2)`.
pub(super) fn change_dir(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the path is NUL-terminated and only read.
    unsafe { checked(libc::SYS_chdir, [at(path)]) }.map(drop)
}

/// `prctl(2)` with numbers only.
pub(super) fn prctl(option: c_int, value: usize) -> Result<(), Errno> {
    // SAFETY: the options used here take numbers.
    unsafe { checked(libc::SYS_prctl, [option as usize, value, 0, 0, 0]) }.map(drop)
}

/// Makes these the effective, permitted and inheritable capabilities, a bit for each. All have numbers below 32.
pub(super) fn set_capabilities(these: u32) -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let sets = [these, these, these, 0, 0, 0];
    // SAFETY: version 3 reads a header of two words and two times three sets.
    unsafe { checked(libc::SYS_capset, [header.as_ptr() as usize, sets.as_ptr() as usize]) }.map(drop)
}

/// Has a capability survive the execution of programs, whoever the user is.
pub(super) fn keep_capability(number: u32) -> Result<(), Errno> {
    let (option, raise) = (libc::PR_CAP_AMBIENT as usize, libc::PR_CAP_AMBIENT_RAISE as usize);
    // SAFETY: this option takes numbers.
    unsafe { checked(libc::SYS_prctl, [option, raise, number as usize, 0, 0]) }.map(drop)
}

/// Lays a system call filter over this process, for good.
pub(super) fn set_filter(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    const SET_MODE_FILTER: usize = 1;
    // SAFETY: the kernel reads `len` instructions.
    unsafe { checked(libc::SYS_seccomp, [SET_MODE_FILTER, 0, &raw const program as usize]) }.map(drop)
}

/// Gives `signal` its default action.
pub(super) fn default_action(signal: c_int) -> Result<(), Errno> {
    /// The kernel's own `struct sigaction`: handler, flags, restorer, mask.
    const DEFAULT: [usize; 4] = [0; 4];
    const SIGNAL_SET_BYTES: usize = 8;
    // SAFETY: the kernel reads one `sigaction` and writes nothing.
    unsafe {
        checked(libc::SYS_rt_sigaction, [signal as usize, DEFAULT.as_ptr() as usize, 0, SIGNAL_SET_BYTES])
    }
    .map(drop)
}

/// Blocks no signal.
pub(super) fn unblock_signals() -> Result<(), Errno> {
    let none = 0u64;
    // SAFETY: the kernel reads one set of 8 bytes.
    unsafe { checked(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, &raw const none as usize, 0, 8]) }
        .map(drop)
}

/// Limits what this process may use.
pub(super) fn set_limit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = [soft, hard];
    // SAFETY: the kernel reads one `rlimit64`, two words, and writes none.
    unsafe { checked(libc::SYS_prlimit64, [0, resource as usize, limit.as_ptr() as usize, 0]) }.map(drop)
}

/// `execve(2)`: returns only if it fails.
///
/// # Safety
/// Both lists end with a null pointer and point to NUL-terminated texts.
pub(super) unsafe fn execute(
    program: &CStr,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
) -> Errno {
    // SAFETY: promised by the caller.
    match unsafe { checked(libc::SYS_execve, [at(program), argv as usize, envp as usize]) } {
        Err(errno) => errno,
        Ok(_) => 0,
    }
}

/// Ends this process.
pub(super) fn exit() -> ! {
    loop {
        // SAFETY: takes a number; without threads it ends exactly this process.
        let _ = unsafe { checked(libc::SYS_exit_group, [127]) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_kernels_error_number_and_leaves_errno_alone() {
        // SAFETY: errno belongs to this thread.
        unsafe { *libc::__errno_location() = 77 };
        assert_eq!(change_dir(c"/does/not/exist"), Err(libc::ENOENT));
        assert_eq!(write(-1, b"x"), Err(libc::EBADF));
        // SAFETY: as above.
        assert_eq!(unsafe { *libc::__errno_location() }, 77);
    }

    #[test]
    fn six_arguments_arrive() {
        // SAFETY: mapping fresh anonymous memory disturbs nothing.
        let answer = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            checked(libc::SYS_mmap, [0, 4096, libc::PROT_NONE as usize, flags as usize, usize::MAX, 0])
        };
        assert!(answer.is_ok());
    }
}
