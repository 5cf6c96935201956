//! Sockets into the networks of instances.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use common::Bench;
use kiln_engine::embedded::{Embedded, broker};
use kiln_engine::{Broker, Engine, EngineError};
use kiln_model::{InstanceId, InstanceOrder};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Answers every connection to port 80 of its own loopback with its name.
fn named_server(bench: &Bench, id: &str) -> InstanceOrder {
    let order = bench.image.shell(id, "while true; do hostname | nc -l -p 80; done");
    bench.run(&order);
    order
}

/// What a server says that is connected to through this socket; it may not listen yet.
fn hear(mut make: impl FnMut() -> OwnedFd) -> String {
    let port_80: SocketAddr = "127.0.0.1:80".parse().unwrap();
    loop {
        let socket = make();
        fcntl_setfl(&socket, fcntl_getfl(&socket).unwrap() - OFlags::NONBLOCK).unwrap();
        if rustix::net::connect(&socket, &port_80).is_ok() {
            let mut said = String::new();
            TcpStream::from(socket).read_to_string(&mut said).unwrap();
            return said;
        }
    }
}

#[test]
fn a_socket_leads_to_the_instance_it_was_made_for() {
    let bench = Bench::new();
    for id in ["first", "second"] {
        let order = named_server(&bench, id);
        let said = hear(|| bench.engine.sockets(&order.id, 1).unwrap().remove(0));
        assert_eq!(said, format!("{id}\n"));
    }
}

#[test]
fn the_broker_gives_sockets_to_several_threads_at_once() {
    let bench = Bench::new();
    let order = named_server(&bench, "a");
    let broker = broker::Client::connect(&broker::socket_path(&bench.run_dir())).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(broker.sockets(&order.id, 130).unwrap().len(), 130));
        }
    });
    assert_eq!(hear(|| broker.sockets(&order.id, 1).unwrap().remove(0)), "a\n");
    let nobody: InstanceId = "nobody".parse().unwrap();
    assert!(matches!(broker.sockets(&nobody, 1), Err(EngineError::NoSuchInstance(_))));
}

/// Does something as another user, on a thread of its own: users belong to threads.
fn as_user<T: Send>(uid: u32, what: impl FnOnce() -> T + Send) -> T {
    let become_and_do = || {
        // SAFETY: numbers; the raw call changes this thread only, which ends right after.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        assert_eq!(changed, 0);
        what()
    };
    std::thread::scope(|scope| scope.spawn(become_and_do).join().unwrap())
}

#[test]
fn the_broker_admits_the_edge_and_nobody_else() {
    let bench = Bench::for_edge(Some(12_345));
    std::fs::set_permissions(bench.dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let order = bench.image.order("a", &["/bin/sleep", "1000"]);
    bench.run(&order);
    let path = broker::socket_path(&bench.run_dir());
    let sockets = || broker::Client::connect(&path)?.sockets(&order.id, 3);
    assert_eq!(as_user(12_345, sockets).unwrap().len(), 3);
    assert!(matches!(as_user(54_321, sockets), Err(EngineError::Unreachable { .. })));
    assert!(as_user(12_345, || Embedded::connect(&bench.run_dir())).is_err());
}

#[test]
fn the_broker_does_nothing_but_give_sockets() {
    let bench = Bench::new();
    let mut stream = UnixStream::connect(broker::socket_path(&bench.run_dir())).unwrap();
    for request in [r#"{"number":1,"call":"list"}"#, r#"{"number":2,"call":"shutdown"}"#] {
        stream.write_all(&(request.len() as u32).to_le_bytes()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = [0; 4];
        stream.read_exact(&mut head).unwrap();
        let mut reply = vec![0; u32::from_le_bytes(head) as usize];
        stream.read_exact(&mut reply).unwrap();
        let reply = String::from_utf8(reply).unwrap();
        assert!(reply.contains(r#""refused":"only sockets are to be had here""#), "{reply}");
    }
    assert_eq!(bench.engine.list().unwrap(), []);
}

#[test]
fn what_is_no_request_ends_that_connection_and_nothing_else() {
    let bench = Bench::new();
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x02\0\0\0{]", b"\x1a\0\0\0{\"number\":1,\"call\":\"other\"}"]
    {
        let mut stream = UnixStream::connect(bench.run_dir().join("keeper.sock")).unwrap();
        stream.write_all(garbage).unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    }
    assert_eq!(bench.engine.list().unwrap(), []);
}

#[test]
fn a_call_that_waits_keeps_no_other_waiting() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bench.engine.changes(common::PATIENCE).unwrap());
        for _ in 0..10 {
            assert_eq!(bench.engine.list().unwrap(), []);
        }
        assert!(!waiting.is_finished());
        bench.run(&bench.image.order("a", &["/bin/sleep", "1000"]));
        assert_eq!(waiting.join().unwrap().len(), 1);
    });
}
