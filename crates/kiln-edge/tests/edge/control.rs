//! What control says to the edge.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use kiln_edge::{EdgeClient, EdgeError, Sockets};
use kiln_model::RouteTable;
use serde_json::{Value, json};

use crate::harness::{Edge, route};
use crate::instance::Instance;

#[test]
fn a_table_that_is_not_newer_is_refused() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    for version in [0, 1] {
        let error = edge.client.set_table(&RouteTable { version, ..Default::default() }).unwrap_err();
        assert!(matches!(error, EdgeError::StaleTable { offered, in_force: 1 } if offered == version));
    }
    assert_eq!(edge.connect().get("/").text(), "hi");
}

#[test]
fn a_table_that_contradicts_itself_is_refused() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let fleet = edge.fleet(1, &[]);
    let table = RouteTable { version: 9, fleets: vec![fleet.clone(), fleet], ..Default::default() };
    let error = edge.client.set_table(&table).unwrap_err();
    assert!(error.to_string().contains("hello/web@1 twice"), "{error}");
    assert_eq!(edge.client.counts().unwrap().version, 1);
}

#[test]
fn counts_of_a_fleet_survive_tables() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let mut client = edge.connect();
    client.get("/");
    edge.serve(&[&Instance::saying("ho")]);
    client.get("/");
    assert_eq!(edge.drained().served, 2);
}

#[test]
fn nobody_is_accepted_before_there_is_a_table() {
    let edge = Edge::start();
    let mut early = edge.connect();
    early.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let fleet = edge.fleet(1, &[&Instance::saying("hi")]);
    edge.set(vec![route(None, "/", &[(&fleet.id, 1)])], vec![fleet]);
    assert_eq!(early.read().text(), "hi");
}

#[test]
fn several_may_talk_to_it_at_once() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let client = &edge.client;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).for_each(|_| assert_eq!(client.counts().unwrap().version, 1)));
        }
    });
}

/// One message, as both sides write them.
fn say(stream: &mut UnixStream, message: &Value) {
    let text = message.to_string();
    stream.write_all(&(text.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
}

fn hear(stream: &mut UnixStream) -> Value {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut text = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// An edge that is leaving may be older than the control plane that tells it of a table.
#[test]
fn an_edge_that_knows_only_whole_tables_is_told_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("older.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let older = std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let request = hear(&mut stream);
            // What it does not know it hangs up on.
            if request["ask"] == "set_table" {
                let version = request["table"]["version"].clone();
                say(&mut stream, &json!({"reply": "counts", "counts": {"version": version, "fleets": []}}));
                return request;
            }
        }
    });
    let routes = vec![route(Some("a.com"), "/", &[]), route(None, "/", &[])];
    let table = RouteTable { version: 5, routes, ..RouteTable::default() };
    assert_eq!(EdgeClient::at(&path).set_table(&table).unwrap().version, 5);
    assert_eq!(older.join().unwrap()["table"], serde_json::to_value(&table).unwrap());
}

/// And a control plane may be older than the edge it finds.
#[test]
fn a_whole_table_is_understood_and_handed_over_as_it_was_told() {
    let edge = Edge::start();
    let fleet = edge.fleet(1, &[&Instance::saying("hi")]);
    let routes = vec![route(Some("a.com"), "/x", &[(&fleet.id, 1)]), route(None, "/", &[(&fleet.id, 1)])];
    let table = RouteTable { version: 3, routes, fleets: vec![fleet], ..RouteTable::default() };
    let mut stream = UnixStream::connect(edge.client.path()).unwrap();
    say(&mut stream, &json!({"ask": "set_table", "table": table}));
    assert_eq!(hear(&mut stream)["counts"]["version"], 3);
    assert_eq!(edge.connect().get("/").text(), "hi");
    assert_eq!(edge.client.hand_over().unwrap().table, Some(table));
}

#[test]
fn no_edge_is_said_to_be_no_edge() {
    let error = EdgeClient::connect("/nowhere/edge.sock").unwrap_err();
    assert!(error.to_string().contains("no edge answers on /nowhere/edge.sock"), "{error}");
}

fn bind(address: SocketAddr, dir: &Path) -> Result<Sockets, EdgeError> {
    Sockets::bind(address, 2, &dir.join("edge.sock"))
}

#[test]
fn a_port_in_use_is_an_error_even_if_its_holder_would_share() {
    let dir = tempfile::tempdir().unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = bind(plain.local_addr().unwrap(), dir.path()).unwrap_err();
    assert!(matches!(error, EdgeError::AddressInUse { .. }), "{error}");

    let ours = bind("127.0.0.1:0".parse().unwrap(), dir.path()).unwrap();
    let address = ours.address(kiln_edge::Door::Http).unwrap();
    assert_eq!(kiln_edge::local(&ours.listeners[1].socket).unwrap(), address);
    let other = tempfile::tempdir().unwrap();
    let error = bind(address, other.path()).unwrap_err();
    assert!(matches!(error, EdgeError::AddressInUse { .. }), "{error}");
    assert_eq!(kiln_edge::bind(address, 1).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);

    drop(ours);
    bind(address, other.path()).expect("free again");
}

#[test]
fn the_control_socket_of_a_dead_edge_is_replaced_and_that_of_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let living = bind(any, dir.path()).unwrap();
    assert!(matches!(bind(any, dir.path()).unwrap_err(), EdgeError::AlreadyRunning { .. }));
    drop(living);
    bind(any, dir.path()).unwrap();
}
