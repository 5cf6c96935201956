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
    ("an instance that runs can be looked into", root),
    ("connections are counted in instances that run", connections),
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

fn connections(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::Runs);
    assert_eq!(harness.engine().connections(&id, 8080).unwrap(), 0);
    harness.engine().kill(std::slice::from_ref(&id)).unwrap();
    let refused = harness.engine().connections(&id, 8080);
    assert!(matches!(&refused, Err(EngineError::NoSuchInstance(which)) if *which == id), "{refused:?}");
}

fn root(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::Runs);
    let root = harness.engine().root(&id).unwrap();
    let mode = rustix::fs::fstat(&root).unwrap().st_mode;
    assert!(rustix::fs::FileType::from_raw_mode(mode).is_dir());
    harness.engine().kill(std::slice::from_ref(&id)).unwrap();
    assert!(matches!(harness.engine().root(&id), Err(EngineError::NoSuchInstance(which)) if which == id));
}
