//! How the edge reaches into an instance.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use kiln_model::InstanceId;

/// Gives out sockets that live inside an instance's network. The edge itself may not make any: it asks whoever holds
/// the instance's namespace. Called from one thread that does nothing else, so it may block.
pub trait Dial: Send + Sync + 'static {
    /// `count` unconnected, non-blocking TCP sockets inside the network of `instance`.
    ///
    /// # Errors
    /// If the instance does not run, or whoever makes the sockets cannot be reached.
    fn sockets(&self, instance: &InstanceId, count: u32) -> io::Result<Vec<OwnedFd>>;

    /// What to connect such a socket to, so that `port` of `instance` answers.
    fn address(&self, instance: &InstanceId, port: u16) -> SocketAddr {
        let _ = instance;
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }
}
