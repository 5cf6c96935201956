//! How a process ended, whoever's child it was.
//!
//! Instances are children of the keeper that made them. One that was adopted by another keeper is not, and for such
//! `wait` has no answer. The kernel has two others, and between them there is no moment without:
//!
//! - as long as nobody has waited for it, `/proc/PID/stat` tells its status to root (field 52);
//! - from then on every pidfd that was open before tells it (`PIDFD_GET_INFO`, since Linux 6.15).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use kiln_model::Exit;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::Host;

/// How the process behind `pidfd` ended; none if it has not. If it is a child of this process, it is reaped.
pub(super) fn of(host: &Host, pidfd: BorrowedFd<'_>, pid: u32) -> Option<Exit> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match waitid(WaitId::PidFd(pidfd), options) {
        Ok(None) | Err(Errno::INTR) => None,
        Ok(Some(status)) => Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code { code },
            (_, Some(signal)) => Exit::Signal { signal },
            _ => Exit::Unknown,
        }),
        Err(Errno::CHILD) if is_running(pidfd) => None,
        Err(_) => Some(of_somebody_elses(host, pidfd, pid).map_or(Exit::Unknown, of_status)),
    }
}

/// It may be waited for between the questions, and then its number be given to another process: the pidfd has the
/// first word and the last.
fn of_somebody_elses(host: &Host, pidfd: BorrowedFd<'_>, pid: u32) -> Option<i32> {
    of_waited(pidfd).or_else(|| {
        let zombie = of_zombie(host, pid);
        of_waited(pidfd).or(zombie)
    })
}

fn is_running(pidfd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
}

/// Of a process that has ended and that nobody has waited for.
fn of_zombie(host: &Host, pid: u32) -> Option<i32> {
    let file = host.open_proc(pid, "stat", OFlags::RDONLY).ok()?;
    let mut text = [0; 2048];
    let length = rustix::io::read(&file, &mut text).ok()?;
    status_in_stat(&String::from_utf8_lossy(&text[..length]))
}

/// The name of the program, in parentheses, may contain anything.
fn status_in_stat(stat: &str) -> Option<i32> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    let has_ended = matches!(*fields.first()?, "Z" | "X");
    has_ended.then(|| fields.get(49)?.parse().ok())?
}

/// What `PIDFD_GET_INFO` fills in, as far as we need it; the kernel takes the size from the request.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    status: i32,
}

const INFO_EXIT: u64 = 1 << 3;

/// Of a process somebody has waited for.
fn of_waited(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const REQUEST: libc::c_ulong = 3 << 30 | (size_of::<PidfdInfo>() as libc::c_ulong) << 16 | 0xff << 8 | 11;
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the kernel writes as many bytes as the request says, which is the size of `info`.
    let answer = unsafe { libc::ioctl(pidfd.as_raw_fd(), REQUEST, &raw mut info) };
    (answer == 0 && info.mask & INFO_EXIT != 0).then_some(info.status)
}

/// As `wait` has it: the code in the second byte, or the signal in the first.
fn of_status(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code { code: status >> 8 & 0xff },
        signal => Exit::Signal { signal },
    }
}

/// A pidfd of a process by its number.
pub(super) fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use super::*;

    /// The child of another process ends as the script says once it is told to; nobody waits for it before that other
    /// process ends itself.
    fn end_of_a_grandchild(script: &str) -> [Option<Exit>; 3] {
        let host = Host::learn().unwrap();
        let double = format!("exec 3<&0; sh -c 'read go <&3; {script}' & echo $!; exec sleep 1000");
        let mut shell = Command::new("sh");
        let mut parent =
            shell.args(["-c", &double]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let pid = said.trim().parse().unwrap();
        let pidfd = open(pid).unwrap();
        let running = of(&host, pidfd.as_fd(), pid);
        parent.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let wait_while = |holds: &dyn Fn() -> bool| {
            while holds() {
                std::thread::yield_now();
            }
        };
        wait_while(&|| is_running(pidfd.as_fd()));
        let zombie = of(&host, pidfd.as_fd(), pid);
        parent.kill().unwrap();
        parent.wait().unwrap();
        // Whoever inherits it waits for it sooner or later; until then it stays as it is.
        let told = of(&host, pidfd.as_fd(), pid);
        [running, zombie, told]
    }

    #[test]
    fn the_end_of_somebody_elses_child_is_told_truthfully() {
        let code = Some(Exit::Code { code: 42 });
        assert_eq!(end_of_a_grandchild("exit 42"), [None, code.clone(), code]);
        let signal = Some(Exit::Signal { signal: 9 });
        assert_eq!(end_of_a_grandchild("kill -9 $$"), [None, signal.clone(), signal]);
    }

    #[test]
    fn the_end_is_known_after_somebody_has_waited() {
        let host = Host::learn().unwrap();
        let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pidfd = open(child.id()).unwrap();
        assert!(child.wait().is_ok());
        assert_eq!(of(&host, pidfd.as_fd(), child.id()), Some(Exit::Code { code: 7 }));
    }

    #[test]
    fn a_status_is_read_as_wait_would_tell_it() {
        assert_eq!(of_status(42 << 8), Exit::Code { code: 42 });
        assert_eq!(of_status(9), Exit::Signal { signal: 9 });
        assert_eq!(of_status(0x80 | 11), Exit::Signal { signal: 11 });
        let numbers: Vec<String> = (4..52).map(|n| n.to_string()).collect();
        let stat = |state: &str| format!("7 (a ) Z b) {state} {} 10752\n", numbers.join(" "));
        assert_eq!(status_in_stat(&stat("S")), None);
        assert_eq!(status_in_stat(&stat("Z")), Some(10_752));
        assert_eq!(status_in_stat("7 (x) Z"), None);
    }
}
