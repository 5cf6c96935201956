//! Listening sockets, made before anyone gives up the right to make them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// Connections the kernel completes for each listener before they are accepted.
const BACKLOG: i32 = 4096;

/// `n` listening sockets on `addr`, among which the kernel shares new connections; with port 0, all on the same free
/// port. Accepted connections inherit TCP_NODELAY and keep-alive probes, which find clients that vanished.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] if anybody listens there, be it one who would share.
pub fn bind(addr: SocketAddr, n: usize) -> io::Result<Vec<OwnedFd>> {
    // The first binds without SO_REUSEPORT, so that it cannot join somebody else's group, and only then opens its
    // own group to the others.
    let first = socket(addr)?;
    rustix::net::bind(&first, &addr)?;
    sockopt::set_socket_reuseport(&first, true)?;
    let actual = local(&first)?;
    let mut sockets = vec![first];
    while sockets.len() < n {
        let next = socket(addr)?;
        sockopt::set_socket_reuseport(&next, true)?;
        rustix::net::bind(&next, &actual)?;
        sockets.push(next);
    }
    for socket in &sockets {
        rustix::net::listen(socket, BACKLOG)?;
    }
    Ok(sockets)
}

fn socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // A port in TIME_WAIT is free; one with a listener still is not.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, std::time::Duration::from_secs(60))?;
    Ok(socket)
}

/// Where a socket of [`bind`] listens: the port, if 0 was asked for.
///
/// # Errors
/// If `socket` is not one of these.
pub fn local(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(address).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}
