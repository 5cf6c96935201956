//! How the edge reaches into an instance.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use kiln_model::{InstanceId, NeedName};

/// Gives out sockets that live inside an instance's network. The edge itself may not make any: it asks whoever holds
/// the instance's namespace. Called from one thread that does nothing else, so it may block.
pub trait Dial: Send + Sync + 'static {
    /// `count` unconnected, non-blocking TCP sockets inside the network of `instance`.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if the instance does not run. In everything else it has no part:
    /// [`io::ErrorKind::NotConnected`] if whoever makes the sockets is away: there will be another one, and instances live
    /// on meanwhile. The system's own error (EMFILE, ENFILE) if they cannot be taken because this process may have no more
    /// descriptors. Any other if they cannot be made.
    fn sockets(&self, instance: &InstanceId, count: u32) -> io::Result<Vec<OwnedFd>>;

    /// What listens inside `instance` for what its service needs: non-blocking listeners, each with the name of what
    /// it is for.
    ///
    /// # Errors
    /// As for [`Dial::sockets`].
    fn listeners(&self, instance: &InstanceId) -> io::Result<Vec<(NeedName, OwnedFd)>> {
        let _ = instance;
        Ok(Vec::new())
    }

    /// A connection to a store that `instance` needs, begun and non-blocking. It leads where the release says: the
    /// edge has no say in it.
    ///
    /// # Errors
    /// If it needs no such store, or as for [`Dial::sockets`].
    fn store(&self, instance: &InstanceId, need: &NeedName) -> io::Result<OwnedFd> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{instance} needs no store {need}")))
    }

    /// What to connect such a socket to, so that `port` of `instance` answers.
    fn address(&self, instance: &InstanceId, port: u16) -> SocketAddr {
        let _ = instance;
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }
}
