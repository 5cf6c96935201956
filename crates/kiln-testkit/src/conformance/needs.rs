//! What instances need, as whoever has no privilege gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use kiln_engine::{Broker, EngineError};
use kiln_model::{Exit, Inside, InstanceId, InstanceState, StoreAddress};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::net::sockopt::socket_acceptconn;

use super::executing::{begin, end};
use super::watch::run_one;
use super::{Case, Command, Harness, Program};

pub(super) const CASES: &[Case] = &[
    ("what an instance needs listens inside it, in order, and is the same when asked again", in_order),
    ("what is said to a need inside arrives at its listener", heard),
    ("a store is reached where the order says, and by its name only", store),
    ("a store that goes by a name is wherever it was said to be last", named_store),
    ("what is not needed does not listen", none_without_needs),
    ("nobody gets anything of an instance that does not run", nobody_there),
    ("sockets from the broker are those of the engine", sockets),
];

fn need(name: &str, last: u8, ports: &[u16], store: Option<StoreAddress>) -> Inside {
    let (address, ports) = (Ipv4Addr::new(127, 77, 0, last), ports.iter().copied().collect::<BTreeSet<_>>());
    Inside { name: name.parse().expect("a name"), address, ports, store }
}

fn run_with(harness: &dyn Harness, id: &str, needs: Vec<Inside>) -> InstanceId {
    let mut order = harness.order(id, Program::Runs);
    order.needs = needs;
    let status =
        harness.engine().create(std::slice::from_ref(&order)).expect("an engine that answers").remove(0);
    assert!(matches!(status.state, InstanceState::Running { .. }), "{status:?}");
    order.id
}

fn names(broker: &dyn Broker, id: &InstanceId) -> Vec<String> {
    broker.listeners(id).unwrap().iter().map(|(name, _)| name.to_string()).collect()
}

fn in_order(harness: &dyn Harness) {
    let id = run_with(harness, "a", vec![need("api", 1, &[8080, 80], None), need("db", 2, &[5432], None)]);
    let broker = harness.broker();
    for (_, listener) in broker.listeners(&id).unwrap() {
        assert!(socket_acceptconn(&listener).unwrap(), "it listens");
        assert!(fcntl_getfl(&listener).unwrap().contains(OFlags::NONBLOCK));
    }
    let addresses = || {
        let listeners = broker.listeners(&id).unwrap().into_iter();
        listeners.map(|(_, l)| TcpListener::from(l).local_addr().unwrap()).collect::<Vec<_>>()
    };
    let first = addresses();
    assert_eq!(addresses(), first);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "each has its own place");
    assert_eq!(names(&*broker, &id), ["api", "api", "db"]);
    assert_eq!(names(&*harness.broker(), &id), ["api", "api", "db"], "another one is told the same");
}

fn accept(listener: OwnedFd) -> TcpStream {
    let listener = TcpListener::from(listener);
    listener.set_nonblocking(false).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

fn heard(harness: &dyn Harness) {
    let id = run_with(harness, "a", vec![need("api", 1, &[80, 8080], None), need("db", 2, &[5432], None)]);
    let said = [(1, "api", 8080, "hello"), (2, "db", 5432, "select"), (0, "api", 80, "again")];
    for (n, need, port, text) in said {
        let (mut command, _) = begin(harness, &id, Command::Tells { need, port, text });
        let (_, listener) = harness.broker().listeners(&id).unwrap().remove(n);
        let mut heard = String::new();
        accept(listener).read_to_string(&mut heard).unwrap();
        assert_eq!(heard, format!("{text}\n"));
        assert_eq!(end(&mut *command), Exit::Code { code: 0 });
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn store(harness: &dyn Harness) {
    let (outside, address) = listener();
    let db = need("db", 1, &[5432], Some(StoreAddress::At(address)));
    let id = run_with(harness, "a", vec![db, need("api", 2, &[80], None)]);
    let broker = harness.broker();
    let connection = TcpStream::from(broker.store(&id, &"db".parse().unwrap()).unwrap());
    let (mut accepted, _) = outside.accept().unwrap();
    accepted.write_all(b"data").unwrap();
    connection.set_nonblocking(false).unwrap();
    let mut data = [0; 4];
    (&connection).read_exact(&mut data).unwrap();
    assert_eq!(&data, b"data");
    for name in ["api", "other"] {
        let refused = broker.store(&id, &name.parse().unwrap());
        assert!(matches!(&refused, Err(EngineError::Unreachable { .. })), "{name}: {refused:?}");
    }
}

fn named_store(harness: &dyn Harness) {
    let db = need("db", 1, &[5432], Some("db.example.com:5432".parse().unwrap()));
    let id = run_with(harness, "a", vec![db]);
    let broker = harness.broker();
    let refused = broker.store(&id, &"db".parse().unwrap());
    assert!(matches!(&refused, Err(EngineError::Unreachable { .. })), "nobody has said where: {refused:?}");
    let of_host = |host: &str, address| BTreeMap::from([(host.parse().unwrap(), address)]);
    for _ in 0..2 {
        let (outside, address) = listener();
        harness.engine().locate(&of_host("db.example.com:5432", address)).unwrap();
        let connection = broker.store(&id, &"db".parse().unwrap()).unwrap();
        outside.accept().unwrap();
        drop(connection);
    }
    harness.engine().locate(&of_host("another.example.com:5432", listener().1)).unwrap();
    assert!(broker.store(&id, &"db".parse().unwrap()).is_err(), "it is nowhere now");
}

fn none_without_needs(harness: &dyn Harness) {
    let id = run_with(harness, "a", vec![]);
    assert_eq!(names(&*harness.broker(), &id), [""; 0]);
}

fn nobody_there(harness: &dyn Harness) {
    let (outside, address) = listener();
    let id = run_with(harness, "a", vec![need("db", 1, &[5432], Some(StoreAddress::At(address)))]);
    harness.engine().kill(std::slice::from_ref(&id)).unwrap();
    let broker = harness.broker();
    for id in [id, "nobody".parse().unwrap()] {
        let refusals = [
            broker.sockets(&id, 1).map(drop),
            broker.listeners(&id).map(drop),
            broker.store(&id, &"db".parse().unwrap()).map(drop),
        ];
        for refused in refusals {
            assert!(
                matches!(&refused, Err(EngineError::NoSuchInstance(which)) if *which == id),
                "{refused:?}"
            );
        }
    }
    outside.set_nonblocking(true).unwrap();
    assert!(outside.accept().is_err(), "and the store was not bothered");
}

fn sockets(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::Runs);
    for count in [0, 1, 200] {
        assert_eq!(harness.broker().sockets(&id, count).unwrap().len(), count as usize);
    }
    assert_eq!(harness.engine().changes(Duration::ZERO).unwrap().len(), 1, "nothing has changed");
}
