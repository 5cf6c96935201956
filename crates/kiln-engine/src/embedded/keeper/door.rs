//! Who may speak with a keeper.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Gid, Mode, Uid, chmod, chown, unlink};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

/// What those who come in by a door may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    /// Everything.
    Control,
    /// Sockets into the networks of instances.
    Broker,
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Door {
    listener: OwnedFd,
    /// Its directory and its name, to take it away again from any mount namespace.
    place: (OwnedFd, String),
    pub(super) rights: Rights,
    /// Who else than root may come in.
    uid: Option<u32>,
}

/// How many may wait at the door.
const BACKLOG: i32 = 128;

impl Door {
    /// Opens a door at `path`; what was there before is a door of a keeper that is gone.
    pub(super) fn open(path: &Path, rights: Rights, uid: Option<u32>) -> io::Result<Self> {
        match unlink(path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&listener, &SocketAddrUnix::new(path)?)?;
        // Nobody can connect before `listen`, so nobody comes in before the permissions are set.
        chmod(path, Mode::from_raw_mode(0o600))?;
        if let Some(uid) = uid {
            chown(path, Some(Uid::from_raw(uid)), None::<Gid>)?;
        }
        listen(&listener, BACKLOG)?;
        Ok(Self { listener, place: place(path)?, rights, uid })
    }

    /// A door a keeper before this one has opened; who waits there is admitted next.
    pub(super) fn inherit(
        listener: OwnedFd,
        path: &Path,
        rights: Rights,
        uid: Option<u32>,
    ) -> io::Result<Self> {
        Ok(Self { listener, place: place(path)?, rights, uid })
    }

    /// What becomes readable when somebody knocks.
    pub(super) fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// The next who knocks and may come in; others are turned away.
    pub(super) fn admit(&self) -> io::Result<Option<OwnedFd>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match accept_with(&self.listener, flags) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let peer = socket_peercred(&socket)?.uid;
        let may = peer.is_root() || self.uid == Some(peer.as_raw());
        Ok(may.then_some(socket))
    }

    /// Takes the door away.
    pub(super) fn remove(&self) {
        // If it is gone already, all the better.
        let _ = rustix::fs::unlinkat(&self.place.0, &self.place.1, rustix::fs::AtFlags::empty());
    }
}

fn place(path: &Path) -> io::Result<(OwnedFd, String)> {
    use rustix::fs::OFlags;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((rustix::fs::openat(CWD, dir, flags, Mode::empty())?, name))
}
