//! Sockets in the networks of instances.

use kiln_engine::EngineError;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::net::sockopt::socket_type;
use rustix::net::{SocketType, getpeername};

use super::watch::run_one;
use super::{Case, Harness, Program};

pub(super) const CASES: &[Case] = &[
    ("as many unconnected sockets as asked for", as_many_as_asked_for),
    ("an instance that does not run has no sockets", none_without_an_instance),
];

fn as_many_as_asked_for(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::Runs);
    for count in [0, 1, 200] {
        let sockets = harness.engine().sockets(&id, count).unwrap();
        assert_eq!(sockets.len(), count as usize);
        for socket in &sockets {
            assert_eq!(socket_type(socket).unwrap(), SocketType::STREAM);
            assert!(fcntl_getfl(socket).unwrap().contains(OFlags::NONBLOCK));
            assert!(getpeername(socket).is_err(), "it is not connected");
        }
    }
}

fn none_without_an_instance(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::Runs);
    harness.engine().kill(std::slice::from_ref(&id)).unwrap();
    for id in [id, "nobody".parse().unwrap()] {
        let refused = harness.engine().sockets(&id, 1);
        assert!(matches!(&refused, Err(EngineError::NoSuchInstance(which)) if *which == id), "{refused:?}");
    }
}
