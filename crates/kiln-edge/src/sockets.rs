//! The sockets an edge is born with, and how they get from the process that makes them to the one that uses them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::str::FromStr;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::{EdgeError, bind, local};

/// Names the descriptors that were handed over: the control socket, then the listeners.
const VARIABLE: &str = "KILN_EDGE_SOCKETS";

/// What is spoken to those who come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    /// HTTP/1.1, or HTTP/2 if the client begins with it.
    Http,
    /// The same over TLS.
    Https,
    /// HTTP/1.1, for whoever wants the figures.
    Metrics,
    /// Whatever it is: bytes, for the route with this port.
    Tcp(u16),
    /// What comes from inside an instance for something it needs; the number says which. Each edge has its own.
    Inside(u64),
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http => f.write_str("http"),
            Self::Https => f.write_str("https"),
            Self::Metrics => f.write_str("metrics"),
            Self::Tcp(port) => write!(f, "tcp-{port}"),
            Self::Inside(number) => write!(f, "inside-{number}"),
        }
    }
}

impl FromStr for Door {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match (text, text.strip_prefix("tcp-")) {
            ("http", _) => Ok(Self::Http),
            ("https", _) => Ok(Self::Https),
            ("metrics", _) => Ok(Self::Metrics),
            (_, Some(port)) => port.parse().map(Self::Tcp).map_err(|_| ()),
            _ => Err(()),
        }
    }
}

/// A listening socket and what is spoken there.
#[derive(Debug)]
pub struct Listener {
    /// What is spoken.
    pub door: Door,
    /// The socket.
    pub socket: OwnedFd,
}

impl Listener {
    /// Listening sockets for a door, one for each thread.
    ///
    /// # Errors
    /// [`EdgeError::AddressInUse`] if anybody listens on `address`.
    pub fn bind(door: Door, address: SocketAddr, threads: usize) -> Result<Vec<Self>, EdgeError> {
        let sockets = bind(address, threads.max(1)).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => EdgeError::AddressInUse { address, source },
            _ => EdgeError::Listen { address, source },
        })?;
        Ok(sockets.into_iter().map(|socket| Self { door, socket }).collect())
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// If there are no more descriptors to be had.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { door: self.door, socket: self.socket.try_clone()? })
    }
}

/// What an edge listens on. As long as one process holds them, clients find an open port, even while no edge runs.
#[derive(Debug)]
pub struct Sockets {
    /// Where it is told what to do.
    pub control: OwnedFd,
    /// Where clients connect: for each door, one for each thread.
    pub listeners: Vec<Listener>,
}

impl Sockets {
    /// Makes them: `threads` listeners for HTTP on `address`, and the control socket at `control`, which only this user may
    /// open.
    ///
    /// # Errors
    /// [`EdgeError::AddressInUse`] if anybody listens on `address`, [`EdgeError::AlreadyRunning`] if an edge answers
    /// on `control`.
    pub fn bind(address: SocketAddr, threads: usize, control: &Path) -> Result<Self, EdgeError> {
        let listeners = Listener::bind(Door::Http, address, threads)?;
        Ok(Self { control: bind_control(control)?, listeners })
    }

    /// Those that [`spawn`] handed to this process.
    ///
    /// # Errors
    /// [`EdgeError::NoSockets`] if none were.
    pub fn inherited() -> Result<Self, EdgeError> {
        let named = std::env::var(VARIABLE).map_err(|_| EdgeError::NoSockets)?;
        let mut parts = named.split(',');
        let control = parts.next().and_then(|n| n.parse().ok()).ok_or(EdgeError::NoSockets)?;
        let control = adopt(control)?;
        let listener = |part: &str| {
            let (door, number) = part.split_once(':').ok_or(EdgeError::NoSockets)?;
            let door = door.parse().map_err(|()| EdgeError::NoSockets)?;
            Ok(Listener { door, socket: adopt(number.parse().map_err(|_| EdgeError::NoSockets)?)? })
        };
        Ok(Self { control, listeners: parts.map(listener).collect::<Result<_, _>>()? })
    }

    /// Where clients find a door; none if there is no such door.
    pub fn address(&self, door: Door) -> Option<SocketAddr> {
        let listener = self.listeners.iter().find(|l| l.door == door)?;
        local(&listener.socket).ok()
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

/// Makes a control socket at `path`, which only this user may open.
///
/// # Errors
/// [`EdgeError::AlreadyRunning`] if an edge answers there.
pub fn bind_control(path: &Path) -> Result<OwnedFd, EdgeError> {
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
    let mut numbers = vec![sockets.control.as_raw_fd()];
    let mut named = vec![sockets.control.as_raw_fd().to_string()];
    for Listener { door, socket } in &sockets.listeners {
        numbers.push(socket.as_raw_fd());
        named.push(format!("{door}:{}", socket.as_raw_fd()));
    }
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
