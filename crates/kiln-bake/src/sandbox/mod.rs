//! Running the programs of a tree inside it, away from everything else.
//!
//! A process of its own is pid 1 of new pid, mount, network, UTS and IPC namespaces. It makes the tree its root,
//! enters the user namespace last (so that root inside owns none of the other namespaces) and runs the steps one
//! after another. The network is a loopback device, unless the host's own is asked for. The clock stands still on x86-64, and
//! is the host's elsewhere. It ends when its parent does, whatever the reason, because it watches a pipe that the parent
//! holds; and with pid 1 the kernel ends every process inside.
//!
//! | module | does |
//! |---|---|
//! | `clock` | the time that programs inside see |
//! | `given` | files that are there for one program |
//! | `forbidden` | the system calls that programs inside have no business with |
//! | `init` | what pid 1 does: raw system calls only, for it begins as a copy of one thread of this process |
//! | `workplace` | the private mounts that a tree with a writable layer is put together in |

#[cfg(target_arch = "x86_64")]
mod clock;
#[cfg(not(target_arch = "x86_64"))]
#[path = "running_clock.rs"]
mod clock;
mod forbidden;
mod given;
mod init;
mod workplace;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;

use kiln_mount::UserNamespace;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::Timespec;

pub(crate) use given::Given;
pub use workplace::WorkplaceError;
pub(crate) use workplace::{HOST_IDS, Workplace, in_private_mounts};

/// How often it is asked whether the work is still wanted.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// One program to run.
pub(crate) struct Step {
    /// The program's absolute path, and its arguments.
    pub(crate) argv: Vec<CString>,
    /// Its whole environment, each `NAME=value`.
    pub(crate) env: Vec<CString>,
    /// What is there while it runs, and only then.
    pub(crate) given: Option<Given>,
}

impl Step {
    /// A step from text.
    pub(crate) fn new<K, V>(argv: &[&str], env: impl IntoIterator<Item = (K, V)>) -> io::Result<Self>
    where
        K: std::fmt::Display,
        V: std::fmt::Display,
    {
        let argv = argv.iter().map(|a| CString::new(*a)).collect::<Result<_, _>>()?;
        let env = env.into_iter().map(|(k, v)| CString::new(format!("{k}={v}"))).collect::<Result<_, _>>()?;
        Ok(Self { argv, env, given: None })
    }

    /// The same, while whose program runs `given` is there.
    pub(crate) fn with(self, given: Given) -> Self {
        Self { given: Some(given), ..self }
    }

    /// What its environment says of `name`.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let value =
            |text: &CString| text.to_str().ok()?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        self.env.iter().find_map(value)
    }

    pub(crate) fn program(&self) -> String {
        self.argv[0].to_string_lossy().into_owned()
    }
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every step ended with code 0.
    Done,
    /// This step did not, and those after it were not run.
    Failed { step: usize, how: String },
    /// It was called off.
    Cancelled,
}

/// What programs can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Themselves.
    Own,
    /// Whatever the host can.
    Host,
}

/// What is to be run, and in what surroundings.
pub(crate) struct Job<'a> {
    pub(crate) steps: &'a [Step],
    pub(crate) network: Network,
    /// The time it is, all the while.
    pub(crate) now: i64,
}

/// Runs a job in the tree at `root`; what its steps print goes to `output`, piece by piece.
pub(crate) fn run(
    root: &Path,
    users: &UserNamespace,
    job: &Job<'_>,
    output: &mut dyn FnMut(&[u8]),
    cancelled: &dyn Fn() -> bool,
) -> io::Result<Outcome> {
    let (output_read, output_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (status_read, status_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (lifeline_read, lifeline_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (gate_read, gate_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let nothing = File::open("/dev/null")?;
    let root = CString::new(root.as_os_str().as_bytes())?;
    let proc = CString::new([root.as_bytes(), b"/proc"].concat())?;
    let programs: Vec<init::Program<'_>> = job.steps.iter().map(init::Program::new).collect();
    let filters = [forbidden::filter()?, clock::filter()?];
    let plan = init::Plan {
        filters: &filters,
        root: &root,
        proc: &proc,
        users: users.as_fd().as_raw_fd(),
        stdin: nothing.as_raw_fd(),
        output: output_write.as_raw_fd(),
        status: status_write.as_raw_fd(),
        lifeline: lifeline_read.as_raw_fd(),
        parents_end: lifeline_write.as_raw_fd(),
        gate: gate_read.as_raw_fd(),
        gate_keepers_end: gate_write.as_raw_fd(),
        network: job.network,
        programs: &programs,
    };
    let child = Child::spawn(&plan)?;
    drop((output_write, status_write, lifeline_read, gate_read));
    let (pid, now) = (child.pid, job.now);
    let wanted = thread::scope(|scope| {
        // Its own end of the gate: if it fails, the sandbox's first read does.
        let keeper = scope.spawn(move || clock::keep(pid, gate_write.as_raw_fd(), now));
        let wanted = listen(output_read, &child, output, cancelled);
        drop(child);
        let kept = keeper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        kept.map_err(|e| io::Error::new(e.kind(), format!("could not keep the clock of the sandbox: {e}")))?;
        wanted
    })?;
    if !wanted {
        return Ok(Outcome::Cancelled);
    }
    let mut words = [0; 12];
    match File::from(status_read).read_exact(&mut words) {
        Ok(()) => init::Report::from_bytes(words).outcome(),
        Err(_) => Ok(Outcome::Failed { step: 0, how: "was killed from outside".into() }),
    }
}

/// Hands output on until there can be no more; whether the work was wanted to its end.
fn listen(
    output_read: OwnedFd,
    child: &Child,
    output: &mut dyn FnMut(&[u8]),
    cancelled: &dyn Fn() -> bool,
) -> io::Result<bool> {
    let mut reader = File::from(output_read);
    let mut buffer = [0; 16 << 10];
    loop {
        if cancelled() {
            child.kill();
            return Ok(false);
        }
        let mut waiting = [PollFd::new(&reader, PollFlags::IN)];
        if matches!(poll(&mut waiting, Some(&PATIENCE)), Ok(0) | Err(rustix::io::Errno::INTR)) {
            continue;
        }
        // Its end is the end of every process inside: each of them holds the pipe.
        match reader.read(&mut buffer)? {
            0 => return Ok(true),
            n => output(&buffer[..n]),
        }
    }
}

/// Pid 1 of the sandbox; killed and reaped when dropped.
struct Child {
    pid: libc::pid_t,
    pidfd: OwnedFd,
}

impl Child {
    fn spawn(plan: &init::Plan<'_>) -> io::Result<Self> {
        let mut pidfd: libc::c_int = -1;
        // SAFETY: all zeroes is a valid value of this plain struct, and means "nothing special".
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        let network = if plan.network == Network::Own { libc::CLONE_NEWNET } else { 0 };
        let namespaces =
            libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | network;
        arguments.flags = (namespaces | libc::CLONE_PIDFD) as u64;
        arguments.pidfd = &raw mut pidfd as u64;
        // SAFETY: without CLONE_VM the child has its own copy of memory and stack, like after fork. Other threads may
        // hold locks in that copy; the child takes none and never returns (see `init`).
        let pid =
            unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => init::main(plan),
            // SAFETY: the kernel has just stored a new descriptor there, which nobody else owns.
            pid => Ok(Self { pid: pid as libc::pid_t, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        }
    }

    fn kill(&self) {
        // SAFETY: a system call with plain numbers; the descriptor is ours, so no other process can be meant.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), libc::SIGKILL, 0, 0) };
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        // SAFETY: waitid may be given a null pointer for what it would tell. `__WALL`, because the child has no exit
        // signal.
        unsafe {
            while libc::waitid(
                libc::P_PIDFD,
                self.pidfd.as_fd().as_raw_fd() as libc::id_t,
                std::ptr::null_mut(),
                libc::WEXITED | libc::__WALL,
            ) == -1
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}
