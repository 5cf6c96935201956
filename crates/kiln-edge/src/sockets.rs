//! The sockets an edge is born with, and how they get from the process that makes them to the one that uses them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::{EdgeError, bind};

/// Names the descriptors that were handed over: the control socket, then the listeners.
const VARIABLE: &str = "KILN_EDGE_SOCKETS";

/// What an edge listens on. As long as one process holds them, clients find an open port, even while no edge runs.
#[derive(Debug)]
pub struct Sockets {
    /// Where it is told what to do.
    pub control: OwnedFd,
    /// Where clients connect: one for each thread.
    pub listeners: Vec<OwnedFd>,
}

impl Sockets {
    /// Makes them: `threads` listeners on `address`, and the control socket at `control`, which only this user may
    /// open.
    ///
    /// # Errors
    /// [`EdgeError::AddressInUse`] if anybody listens on `address`, [`EdgeError::AlreadyRunning`] if an edge answers
    /// on `control`.
    pub fn bind(address: SocketAddr, threads: usize, control: &Path) -> Result<Self, EdgeError> {
        let listeners = bind(address, threads.max(1)).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => EdgeError::AddressInUse { address, source },
            _ => EdgeError::Listen { address, source },
        })?;
        Ok(Self { control: bind_control(control)?, listeners })
    }

    /// Those that [`spawn`] handed to this process.
    ///
    /// # Errors
    /// [`EdgeError::NoSockets`] if none were.
    pub fn inherited() -> Result<Self, EdgeError> {
        let named = std::env::var(VARIABLE).map_err(|_| EdgeError::NoSockets)?;
        let numbers = named.split(',').map(str::parse::<RawFd>).collect::<Result<Vec<_>, _>>();
        let mut sockets = numbers.map_err(|_| EdgeError::NoSockets)?.into_iter().map(adopt);
        let control = sockets.next().ok_or(EdgeError::NoSockets)??;
        Ok(Self { control, listeners: sockets.collect::<Result<_, _>>()? })
    }
}

fn adopt(number: RawFd) -> Result<OwnedFd, EdgeError> {
    // SAFETY: only asks whether the number is an open descriptor; nothing is closed or kept.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    if number <= 2 || fcntl_getfd(borrowed).is_err() {
        return Err(EdgeError::NoSockets);
    }
    // SAFETY: `spawn` left this descriptor open for us and told us its number; nothing else in this process has it.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    let setup = |source| EdgeError::Setup { attempted: "take over its sockets", source };
    fcntl_setfd(&owned, FdFlags::CLOEXEC).map_err(io::Error::from).map_err(setup)?;
    Ok(owned)
}

fn bind_control(path: &Path) -> Result<OwnedFd, EdgeError> {
    let failed = |source| EdgeError::ControlSocket { path: path.to_owned(), source };
    match UnixStream::connect(path) {
        Ok(_) => return Err(EdgeError::AlreadyRunning { path: path.to_owned() }),
        // The file of an edge that is no more.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener.into())
}

/// Starts `command`, which is to call [`Sockets::inherited`] and [`crate::run`], in a session of its own with
/// `sockets` handed over. It can be talked to at once: the control socket listens already.
///
/// # Errors
/// [`EdgeError::Spawn`].
pub fn spawn(mut command: Command, sockets: &Sockets) -> Result<Child, EdgeError> {
    let all = || std::iter::once(&sockets.control).chain(&sockets.listeners);
    let numbers: Vec<RawFd> = all().map(AsRawFd::as_raw_fd).collect();
    let named: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    command.env(VARIABLE, named.join(","));
    // SAFETY: between fork and exec only system calls that are safe there are made (setsid, fcntl), and nothing is
    // allocated. The descriptors are open in the child because `sockets` is borrowed until after the spawn.
    unsafe {
        command.pre_exec(move || {
            // A terminal's Ctrl-C is meant for control, which then says in what order things end.
            rustix::process::setsid()?;
            for number in &numbers {
                let fd = std::os::fd::BorrowedFd::borrow_raw(*number);
                fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(())
        });
    }
    command.spawn().map_err(|source| EdgeError::Spawn { source })
}
