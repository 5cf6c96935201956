//! What pid 1 of a sandbox does.
//!
//! It starts as a copy of one thread of a process that has others: whatever they held locked stays locked here for
//! ever. So nothing below allocates, and every call is a plain system call. All memory it needs was made ready by
//! the parent, in [`Plan`].

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::io;
use std::ptr::null;

use seccompiler::sock_filter;

use super::{Given, Network, Outcome, Step};

/// Everything pid 1 needs.
pub(super) struct Plan<'a> {
    pub(super) root: &'a CStr,
    pub(super) proc: &'a CStr,
    pub(super) users: c_int,
    pub(super) stdin: c_int,
    pub(super) output: c_int,
    pub(super) status: c_int,
    pub(super) lifeline: c_int,
    pub(super) parents_end: c_int,
    /// A byte from here says that the clock is kept; the parent's end of it is closed here.
    pub(super) gate: c_int,
    pub(super) gate_keepers_end: c_int,
    pub(super) network: Network,
    pub(super) programs: &'a [Program<'a>],
    pub(super) filters: &'a [Vec<sock_filter>],
}

/// A step in the form that `execve` takes.
pub(super) struct Program<'a> {
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    given: Option<&'a Given>,
}

impl<'a> Program<'a> {
    /// Borrows from `step`, which outlives the child's start.
    pub(super) fn new(step: &'a Step) -> Self {
        let list = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).chain([null()]).collect();
        Self { argv: list(&step.argv), env: list(&step.env), given: step.given.as_ref() }
    }
}

/// What pid 1 tells at its end: twelve bytes through a pipe.
pub(super) struct Report {
    stage: Stage,
    index: i32,
    value: i32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum Stage {
    /// All steps succeeded.
    Done,
    /// The sandbox could not be made: the index is that of [`SETUP`], the value an error number.
    Setup,
    /// What the step is given could not be laid out or taken away; the value is an error number.
    Given,
    /// The step could not be started; the value is an error number.
    Start,
    /// The step did not succeed; the value is its wait status.
    Step,
}

/// What is done before the first step, in order.
const SETUP: [&str; 9] = [
    "wait for the clock",
    "take the standard streams",
    "mount /proc",
    "bring up the loopback device",
    "set the host name",
    "enter the tree",
    "leave the tree to the programs",
    "enter the user namespace",
    "give up privileges",
];

impl Report {
    fn to_bytes(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&(self.stage as i32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.index.to_le_bytes());
        bytes[8..].copy_from_slice(&self.value.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; 12]) -> Self {
        let word = |i: usize| i32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let stages = [Stage::Done, Stage::Setup, Stage::Given, Stage::Start, Stage::Step];
        let stage = stages.into_iter().find(|s| *s as i32 == word(0)).unwrap_or(Stage::Step);
        Self { stage, index: word(4), value: word(8) }
    }

    pub(super) fn outcome(self) -> io::Result<Outcome> {
        let step = usize::try_from(self.index).unwrap_or(0);
        let system = || io::Error::from_raw_os_error(self.value);
        match self.stage {
            Stage::Done => Ok(Outcome::Done),
            Stage::Setup => {
                let what = SETUP.get(step).copied().unwrap_or("set up the sandbox");
                Err(io::Error::new(system().kind(), format!("could not {what}: {}", system())))
            }
            Stage::Given => Ok(Outcome::Failed {
                step,
                how: format!("left no place for what such programs are given: {}", system()),
            }),
            Stage::Start => Ok(Outcome::Failed { step, how: format!("could not be started: {}", system()) }),
            Stage::Step if libc::WIFSIGNALED(self.value) => Ok(Outcome::Failed {
                step,
                how: format!("was ended by signal {}", libc::WTERMSIG(self.value)),
            }),
            Stage::Step => Ok(Outcome::Failed {
                step,
                how: format!("exited with code {}", libc::WEXITSTATUS(self.value)),
            }),
        }
    }
}

/// Never returns.
pub(super) fn main(plan: &Plan<'_>) -> ! {
    for (index, setup) in
        [gate, streams, proc, loopback, hostname, root, aside, users, privileges].into_iter().enumerate()
    {
        if let Err(value) = setup(plan) {
            end(plan, &Report { stage: Stage::Setup, index: index as i32, value });
        }
    }
    for (index, program) in plan.programs.iter().enumerate() {
        if let Err((stage, value)) = step(plan, program) {
            end(plan, &Report { stage, index: index as i32, value });
        }
    }
    end(plan, &Report { stage: Stage::Done, index: 0, value: 0 })
}

fn end(plan: &Plan<'_>, report: &Report) -> ! {
    let bytes = report.to_bytes();
    // SAFETY: the bytes are there for as long as the call lasts; exit_group does not return.
    unsafe {
        libc::syscall(libc::SYS_write, plan.status, bytes.as_ptr(), bytes.len());
        libc::syscall(libc::SYS_exit_group, 0);
    }
    unreachable!("exit_group does not return")
}

/// Runs a program with what it is given; else where that ended, and the value that belongs to it.
fn step(plan: &Plan<'_>, program: &Program<'_>) -> Result<(), (Stage, i32)> {
    let given = |value| (Stage::Given, value);
    program.given.map_or(Ok(()), Given::lay).map_err(given)?;
    match run(plan, program) {
        Ok(0) => program.given.map_or(Ok(()), Given::clear).map_err(given),
        Ok(value) => Err((Stage::Step, value)),
        Err(value) => Err((Stage::Start, value)),
    }
}

/// The error number of a call that returned -1.
pub(super) fn checked(result: c_long) -> Result<c_long, i32> {
    // SAFETY: errno of this thread, whose storage was copied with it.
    if result == -1 { Err(unsafe { *libc::__errno_location() }) } else { Ok(result) }
}

/// The descriptors are closed by `streams` and the first exec.
fn gate(plan: &Plan<'_>) -> Result<(), i32> {
    let mut byte = 0_u8;
    // SAFETY: plain numbers, and a byte that is there for as long as the call lasts.
    unsafe {
        libc::syscall(libc::SYS_close, plan.gate_keepers_end);
        match checked(libc::syscall(libc::SYS_read, plan.gate, &raw mut byte, 1))? {
            1 => Ok(()),
            _ => Err(libc::EPIPE),
        }
    }
}

fn streams(plan: &Plan<'_>) -> Result<(), i32> {
    // SAFETY: plain numbers. What is open beyond the streams is closed by the first exec; the parent's end of the
    // lifeline at once, or the parent's end would never be noticed.
    unsafe {
        libc::syscall(libc::SYS_close, plan.parents_end);
        libc::syscall(libc::SYS_setsid);
        for (from, to) in [(plan.stdin, 0), (plan.output, 1), (plan.output, 2)] {
            checked(libc::syscall(libc::SYS_dup3, from, to, 0))?;
        }
        checked(libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)).map(drop)
    }
}

fn proc(plan: &Plan<'_>) -> Result<(), i32> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let kind = c"proc".as_ptr();
    // SAFETY: the strings are there for as long as the call lasts.
    let mounted =
        unsafe { libc::syscall(libc::SYS_mount, kind, plan.proc.as_ptr(), kind, flags, null::<u8>()) };
    checked(mounted).map(drop)
}

/// The host's own has one that is up.
fn loopback(plan: &Plan<'_>) -> Result<(), i32> {
    if plan.network == Network::Host {
        return Ok(());
    }
    // SAFETY: all zeroes is a valid value of this plain struct; the kernel reads its name and flags.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let socket = checked(libc::syscall(
            libc::SYS_socket,
            libc::AF_INET,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            0,
        ))?;
        let up = checked(libc::syscall(libc::SYS_ioctl, socket, libc::SIOCSIFFLAGS, &raw const request));
        libc::syscall(libc::SYS_close, socket);
        up.map(drop)
    }
}

fn hostname(_: &Plan<'_>) -> Result<(), i32> {
    let name = c"localhost";
    // SAFETY: the name is there for as long as the call lasts.
    checked(unsafe { libc::syscall(libc::SYS_sethostname, name.as_ptr(), name.count_bytes()) }).map(drop)
}

/// The old root is stacked under the new one and taken away: nothing of the host can be named any more.
fn root(plan: &Plan<'_>) -> Result<(), i32> {
    let here = c".".as_ptr();
    // SAFETY: the strings are there for as long as the calls last.
    unsafe {
        checked(libc::syscall(libc::SYS_chdir, plan.root.as_ptr()))?;
        checked(libc::syscall(libc::SYS_pivot_root, here, here))?;
        checked(libc::syscall(libc::SYS_umount2, here, libc::MNT_DETACH))?;
        checked(libc::syscall(libc::SYS_chdir, c"/".as_ptr())).map(drop)
    }
}

/// Programs are to see that no init of theirs runs here: they look whether pid 1 has another root than they have
/// (`ischroot`), and if it has, restart neither it nor services. So it takes a directory that every tree has for its own. Its
/// working directory stays the root of the tree, which its programs begin with.
fn aside(_: &Plan<'_>) -> Result<(), i32> {
    // SAFETY: the string is there for as long as the call lasts.
    checked(unsafe { libc::syscall(libc::SYS_chroot, c"proc".as_ptr()) }).map(drop)
}

/// Last of the namespaces, so that those made before belong to the host's root and not to root in here. The ids are
/// set by plain system calls: the library's functions would ask threads that do not exist here to do the same.
fn users(plan: &Plan<'_>) -> Result<(), i32> {
    // SAFETY: plain numbers, and an empty list of groups.
    unsafe {
        checked(libc::syscall(libc::SYS_setns, plan.users, libc::CLONE_NEWUSER))?;
        checked(libc::syscall(libc::SYS_setgroups, 0, null::<u32>()))?;
        checked(libc::syscall(libc::SYS_setresgid, 0, 0, 0))?;
        checked(libc::syscall(libc::SYS_setresuid, 0, 0, 0)).map(drop)
    }
}

/// Also puts signals and the umask as programs expect to find them.
fn privileges(plan: &Plan<'_>) -> Result<(), i32> {
    let none: u64 = 0;
    // SAFETY: `none` is a signal set as the kernel has it (8 bytes). SIGPIPE, which Rust ignores, is set to its
    // default through the library's plain wrapper. The kernel reads the filters, which the parent made and which were
    // copied with this process.
    unsafe {
        checked(libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::syscall(libc::SYS_umask, 0o022);
        checked(libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            null::<u64>(),
            8,
        ))?;
        for filter in plan.filters.iter().filter(|f| !f.is_empty()) {
            let filter = libc::sock_fprog {
                len: filter.len() as libc::c_ushort,
                filter: filter.as_ptr().cast_mut().cast(),
            };
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            checked(libc::syscall(libc::SYS_seccomp, mode, 0, &raw const filter))?;
        }
    }
    Ok(())
}

/// Runs one program to its end; its wait status, or the error number that kept it from starting.
fn run(plan: &Plan<'_>, program: &Program<'_>) -> Result<i32, i32> {
    // SAFETY: like fork, and the child only executes the program or ends. Pointers in `program` are into memory that
    // was copied with this process, each list ends with a null pointer.
    let pid = unsafe { checked(libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0))? };
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            libc::syscall(libc::SYS_setsid);
            if libc::syscall(libc::SYS_chroot, c".".as_ptr()) == 0 {
                libc::syscall(libc::SYS_execve, program.argv[0], program.argv.as_ptr(), program.env.as_ptr());
            }
            let message = c"the program could not be executed\n";
            libc::syscall(libc::SYS_write, 2, message.as_ptr(), message.count_bytes());
            libc::syscall(libc::SYS_exit_group, 127);
        }
    }
    wait(plan, pid)
}

fn wait(plan: &Plan<'_>, pid: c_long) -> Result<i32, i32> {
    // SAFETY: plain numbers; the array is there for as long as the call lasts.
    unsafe {
        let pidfd = checked(libc::syscall(libc::SYS_pidfd_open, pid, 0))? as c_int;
        loop {
            let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let mut watched = [watch(pidfd), watch(plan.lifeline)];
            libc::syscall(
                libc::SYS_ppoll,
                watched.as_mut_ptr(),
                watched.len(),
                null::<u8>(),
                null::<u8>(),
                0,
            );
            if watched[1].revents != 0 {
                // The parent is gone. With us ends everything inside.
                libc::syscall(libc::SYS_exit_group, 1);
            }
            if watched[0].revents != 0 {
                break;
            }
        }
        libc::syscall(libc::SYS_close, pidfd);
        reap(pid)
    }
}

/// Collects the program, and whatever it left behind that has ended. The program is waited for: who keeps the clock is
/// told of its end first, and only then are we.
fn reap(pid: c_long) -> Result<i32, i32> {
    let mut status: c_int = 0;
    // SAFETY: the numbers outlive the calls.
    unsafe {
        checked(libc::syscall(libc::SYS_wait4, pid, &raw mut status, 0, null::<u8>()))?;
        let mut other: c_int = 0;
        while libc::syscall(libc::SYS_wait4, -1, &raw mut other, libc::WNOHANG, null::<u8>()) > 0 {}
    }
    Ok(status)
}
