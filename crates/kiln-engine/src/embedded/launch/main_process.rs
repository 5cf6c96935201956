//! The first process of an instance, as its parent holds it.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use kiln_model::Exit;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, ipproto, listen, socket_with};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

use super::template::Template;
use super::{Host, ending};

/// A child of this process or of a keeper before it, and the init of its own process namespace: when it ends, all its
/// processes have.
#[derive(Clone)]
pub(crate) struct MainProcess {
    pidfd: Rc<OwnedFd>,
    pid: u32,
    /// Kept as long as it runs, for those that come after it. One that was adopted has none.
    template: Option<Rc<Template>>,
}

impl MainProcess {
    pub(super) fn new(pidfd: OwnedFd, pid: u32, template: Rc<Template>) -> Self {
        Self { pidfd: Rc::new(pidfd), pid, template: Some(template) }
    }

    /// The process another keeper has made, by a descriptor that was inherited.
    pub(crate) fn adopt(pidfd: OwnedFd, pid: u32) -> Self {
        Self { pidfd: Rc::new(pidfd), pid, template: None }
    }

    /// A descriptor of the process of this number, which may be another one than is meant.
    pub(crate) fn open(pid: u32) -> io::Result<OwnedFd> {
        ending::open(pid)
    }

    pub(super) fn template(&self) -> Option<&Template> {
        self.template.as_deref()
    }

    /// A process beside it.
    pub(super) fn beside(&self, pidfd: OwnedFd, pid: u32) -> Self {
        Self { pidfd: Rc::new(pidfd), pid, template: self.template.clone() }
    }

    /// The user on the host that is root inside.
    pub(super) fn id_base(&self, host: &Host) -> io::Result<u32> {
        let file = host.open_proc(self.pid, "uid_map", OFlags::RDONLY)?;
        let mut text = [0; 256];
        let length = rustix::io::read(&file, &mut text)?;
        let text = String::from_utf8_lossy(&text[..length]);
        let base = text.split_whitespace().nth(1).and_then(|base| base.parse().ok());
        base.ok_or_else(|| io::Error::other("it has no map of users"))
    }

    /// Does something whose children are born into its process namespace. The calling process has one thread only.
    pub(super) fn with_its_processes<T>(
        &self,
        host: &Host,
        something: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        move_into_thread_name_spaces(self.pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID)?;
        let done = something();
        // If there were no way back, the next instance would be born inside of this one.
        move_into_link_name_space(host.processes.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .expect("a process can return to the process namespace it lives in");
        done
    }

    /// Ends it and everything that shares its process group: a command has one of its own.
    pub(crate) fn kill_group(&self) {
        const PROCESS_GROUP: libc::c_uint = 4; // PIDFD_SIGNAL_PROCESS_GROUP
        let (pidfd, nothing) = (self.pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: numbers, and a null pointer, for which the kernel fills in the usual.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, libc::SIGKILL, nothing, PROCESS_GROUP) };
        // It may not have its own group yet.
        self.kill();
    }

    /// Its number on the host; its own again only when this value has reaped it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// What becomes readable when it has ended.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Ends it and all processes of its namespace.
    pub(crate) fn kill(&self) {
        // It cannot fail but for one that has ended.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Asks it to end.
    ///
    /// The kernel drops signals to the init of a process namespace that have no handler there, which anywhere else
    /// would end a process. So the default action is carried out here: a program that does nothing about its stop
    /// signal does not use up its grace period.
    pub(crate) fn ask_to_end(&self, host: &Host, number: i32) {
        let signals = SignalSets::of(host, self.pid);
        let is_dropped = signals.is_ok_and(|sets| sets.have_default_action(number));
        if is_dropped || self.send(number).is_err() {
            self.kill();
        }
    }

    /// By number, because real-time signals have no names.
    fn send(&self, number: i32) -> io::Result<()> {
        let (pidfd, nothing) = (self.pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: numbers, and a null pointer, for which the kernel fills in the usual.
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, number, nothing, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How it ended; none if it has not.
    pub(crate) fn reap(&self, host: &Host) -> Option<Exit> {
        ending::of(host, self.pidfd.as_fd(), self.pid)
    }

    /// Its mount namespace. Asked of the kernel and not of /proc, which would keep a directory of each process for it.
    pub(crate) fn mounts(&self) -> io::Result<OwnedFd> {
        const GET_MOUNT_NAMESPACE: libc::c_ulong = 0xff << 8 | 3; // PIDFD_GET_MNT_NAMESPACE, since Linux 6.11
        const NOTHING: libc::c_ulong = 0;
        // SAFETY: the request takes no argument, and insists on a zero in its place.
        match unsafe { libc::ioctl(self.pidfd.as_raw_fd(), GET_MOUNT_NAMESPACE, NOTHING) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the kernel has just made it, and nobody else owns it.
            namespace => Ok(unsafe { OwnedFd::from_raw_fd(namespace) }),
        }
    }

    /// Makes unconnected sockets in its network namespace. The calling process has one thread only.
    pub(crate) fn sockets(&self, host: &Host, count: u32) -> io::Result<Vec<OwnedFd>> {
        self.in_its_network(host, || (0..count).map(|_| tcp_socket(AddressFamily::INET)).collect())
    }

    /// Makes sockets that listen in its network namespace. The calling process has one thread only.
    pub(crate) fn listeners(&self, host: &Host, addresses: &[SocketAddrV4]) -> io::Result<Vec<OwnedFd>> {
        self.in_its_network(host, || addresses.iter().map(listener).collect())
    }

    fn in_its_network<T>(&self, host: &Host, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        move_into_thread_name_spaces(self.pidfd.as_fd(), ThreadNameSpaceType::NETWORK)?;
        let made = make();
        // If there were no way back, everything after would happen in the wrong network.
        move_into_link_name_space(host.network.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("a process can return to a network namespace it holds open");
        made
    }
}

fn tcp_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?)
}

fn listener(address: &SocketAddrV4) -> io::Result<OwnedFd> {
    const BACKLOG: i32 = 1024;
    let socket = tcp_socket(AddressFamily::INET)?;
    // Where it is made anew, connections that were accepted here before may go on.
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Begins a connection to a place outside, in the host's network. Whoever gets it waits for its end.
pub(crate) fn begin_connection(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = tcp_socket(family)?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(e.into()),
    }
}

/// What a process does about signals, a bit for each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct SignalSets {
    blocked: u64,
    ignored: u64,
    caught: u64,
}

impl SignalSets {
    fn of(host: &Host, pid: u32) -> io::Result<Self> {
        let file = host.open_proc(pid, "status", OFlags::RDONLY)?;
        // The kernel writes about 1500 bytes there.
        let mut text = [0; 4096];
        let length = rustix::io::read(&file, &mut text)?;
        Ok(Self::parse(&String::from_utf8_lossy(&text[..length])))
    }

    fn parse(status: &str) -> Self {
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            // What cannot be read is taken for handled: the worst is a grace period waited for.
            line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok()).unwrap_or(u64::MAX)
        };
        Self { blocked: set("SigBlk:"), ignored: set("SigIgn:"), caught: set("SigCgt:") }
    }

    fn have_default_action(self, signal: i32) -> bool {
        let bit = u32::try_from(signal - 1).ok().and_then(|n| 1u64.checked_shl(n)).unwrap_or(0);
        (self.blocked | self.ignored | self.caught) & bit == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_handled_in_any_way_is_not_dropped() {
        let status =
            "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000004000\n";
        let sets = SignalSets::parse(status);
        assert_eq!([1, 13, 15].map(|s| sets.have_default_action(s)), [false; 3]);
        assert!(sets.have_default_action(2));
        assert!(!SignalSets::parse("").have_default_action(15));
    }
}
