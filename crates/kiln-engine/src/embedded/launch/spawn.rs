//! The birth of a child that shares its parent's memory and, at first, its descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::script::Script;
use super::stack::Stack;

/// What a child gets of its own at birth. Not a user namespace: the others must belong to the host's, so that even
/// full capabilities inside cannot mount or reconfigure anything. Not a control group namespace either: the child
/// makes that once it is in all its groups. Not a network: that takes as long as everything else together, and the child
/// makes it while its parent does something else.
const NAMESPACES: libc::c_int =
    libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;

/// `CLONE_INTO_CGROUP`, which does not fit the type libc gives it.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child and its number on the host.
pub(super) struct Child {
    pub(super) pidfd: OwnedFd,
    pub(super) pid: u32,
}

/// Starts a child inside `cgroup` (of the v2 tree) that carries out `script` on `stack`.
///
/// # Safety
/// `script` and `stack` stay alive and unchanged, at the same place, until the child has executed its program or
/// ended; so does what its streams name, until it has a table of its own. The calling process has one thread only.
pub(super) unsafe fn spawn(script: &Script, stack: &Stack, cgroup: BorrowedFd<'_>) -> io::Result<Child> {
    let mut pidfd: libc::c_int = -1;
    let (stack, stack_size) = stack.for_clone();
    // SAFETY: all zeroes is a valid value of this plain struct, and means "nothing special".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // A child that joins an instance enters those of the instance.
    let namespaces = if script.beside.is_some() { 0 } else { NAMESPACES };
    let files = if script.streams.parents_end.is_some() { 0 } else { libc::CLONE_FILES };
    // Where memory is wanting, the kernel kills all who share that of the one it picks. A command begins in a group that may
    // be full, so it has a copy; an instance begins in one of its own, with room for what it takes with it.
    let memory = if script.beside.is_some() { 0 } else { libc::CLONE_VM };
    arguments.flags = (memory | libc::CLONE_PIDFD | files | namespaces) as u64 | INTO_CGROUP;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    (arguments.stack, arguments.stack_size) = (stack, stack_size);
    arguments.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: the arguments are complete, and the caller keeps script and stack alive.
    match unsafe { clone3(&raw const arguments, script) } {
        pid @ 1.. => {
            // SAFETY: the kernel has just stored a new descriptor there, which nobody else owns.
            Ok(Child { pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, pid: pid as u32 })
        }
        error => Err(io::Error::from_raw_os_error((-error) as i32)),
    }
}

/// Returns in the parent only; the child calls `perform` on its own stack, which never returns.
///
/// # Safety
/// As [`spawn`].
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(arguments: *const libc::clone_args, script: *const Script) -> isize {
    let answer: isize;
    // SAFETY: in the parent this is a plain system call. The child starts behind it with a stack pointer at the top
    // of its own (aligned) stack and all other registers as they were; it never comes back from the call.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => answer,
            in("rdi") arguments, in("rsi") size_of::<libc::clone_args>(),
            in("r12") script, in("r13") super::child::perform as extern "C" fn(&Script) -> !,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    answer
}

/// Returns in the parent only; the child calls `perform` on its own stack, which never returns.
///
/// # Safety
/// As [`spawn`].
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(arguments: *const libc::clone_args, script: *const Script) -> isize {
    let answer: isize;
    // SAFETY: in the parent this is a plain system call. The child starts behind it with a stack pointer at the top
    // of its own (aligned) stack and all other registers as they were; it never comes back from the call.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x12",
            "blr x13",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") arguments as isize => answer, in("x1") size_of::<libc::clone_args>(),
            in("x12") script, in("x13") super::child::perform as extern "C" fn(&Script) -> !,
        );
    }
    answer
}
