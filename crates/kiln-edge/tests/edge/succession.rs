//! One edge after another: nobody is refused, cut or answered by nobody.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use kiln_edge::{Door, EdgeClient, Limits, Listener};
use kiln_model::{RouteTable, TcpRoute};

use crate::harness::{Edge, fleet_id, route};
use crate::instance::{Instance, ok};
use crate::wire::Client;

#[test]
fn ten_successions_under_load_without_a_failure() {
    let (blue, green) = (Instance::saying("blue"), Instance::saying("green"));
    let mut edge = Edge::start();
    let fleets = [edge.fleet(1, &[&blue, &blue]), edge.fleet(2, &[&green])];
    edge.set(vec![route(None, "/", &[(&fleets[0].id, 3), (&fleets[1].id, 1)])], fleets.to_vec());
    let (stop, address) = (Arc::new(AtomicBool::new(false)), edge.address);
    let load: Vec<_> = (0..8)
        .map(|n| {
            let stop = stop.clone();
            thread::spawn(move || {
                let connect = || Client::new(std::net::TcpStream::connect(address).unwrap());
                let (mut client, mut requests, mut invited) = (connect(), 0u64, 0u64);
                while !stop.load(Relaxed) {
                    let answer = match n % 4 {
                        3 => client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").read(),
                        _ => client.get("/"),
                    };
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    requests += 1;
                    let is_over = answer.header("connection") == Some("close");
                    invited += u64::from(is_over);
                    if is_over || n % 2 == 0 {
                        client = connect();
                    }
                }
                (requests, invited)
            })
        })
        .collect();
    let mut old = Vec::new();
    for _ in 0..10 {
        let served = edge.client.stats().unwrap().requests;
        while edge.client.stats().unwrap().requests < served + 50 {
            thread::yield_now();
        }
        old.push(edge.succeed());
    }
    stop.store(true, Relaxed);
    let all: Vec<(u64, u64)> = load.into_iter().map(|t| t.join().unwrap()).collect();
    assert!(all.iter().map(|(requests, _)| requests).sum::<u64>() > 500);
    assert!(
        all.iter().map(|(_, invited)| invited).sum::<u64>() > 0,
        "kept connections are asked to come again"
    );
    // With their last connection they end by themselves.
    old.into_iter().for_each(|edge| edge.join().unwrap().unwrap());
    assert_eq!(edge.client.stats().unwrap().failed, 0);
}

#[test]
fn an_old_edge_sees_its_streams_to_their_end() {
    let (next, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let instance = Instance::new(move |request, connection| {
        if request.start.contains("/slow") {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
            wait.lock().unwrap().recv().unwrap();
            connection.send("world");
        } else {
            connection.send(ok("quick"));
        }
        true
    });
    let mut edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_head().unwrap();
    let before: EdgeClient = edge.client.clone();
    let old = edge.succeed();
    assert_eq!(edge.connect().get("/").text(), "quick");
    // Both are asked what is in flight.
    assert_eq!(before.counts().unwrap().fleets[0].in_flight, 1);
    assert_eq!(edge.count().in_flight, 0);
    next.send(()).unwrap();
    assert_eq!(client.read_body(&head).unwrap(), b"helloworld");
    drop(client);
    old.join().unwrap().unwrap();
}

/// A free port of this host, for a moment at least.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn echo() -> Instance {
    Instance::raw(|connection| {
        while let Some(line) = connection.line() {
            connection.send(format!("{line}!\n"));
        }
    })
}

#[test]
fn doors_are_opened_and_closed_while_it_serves() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let fleet = edge.fleet(2, &[&echo()]);
    let port = free();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let listeners = Listener::bind(Door::Tcp(port), address, 2).unwrap();
    edge.client.listen(&listeners).unwrap();
    drop(listeners);
    let web = edge.fleet(1, &[&Instance::saying("hi")]);
    let targets = route(None, "/", &[(&fleet.id, 1)]).targets;
    let tcp = vec![TcpRoute { port, service: "db".parse().unwrap(), targets, hold: None }];
    let routes = vec![route(None, "/", &[(&web.id, 1)])];
    let fleets = vec![web.clone(), fleet.clone()];
    let table = RouteTable { routes: routes.clone(), fleets, tcp, ..RouteTable::default() };
    edge.set_table(table);
    let mut client = Client::new(std::net::TcpStream::connect(address).unwrap());
    for word in ["one", "two"] {
        assert_eq!(client.send(format!("{word}\n")).line(), Some(format!("{word}!")));
    }
    assert_eq!(edge.client.counts().unwrap().fleets[1].in_flight, 1);
    // A succession takes the door along.
    let inheritance = edge.client.hand_over().unwrap();
    assert!(inheritance.listeners.iter().any(|l| l.door == Door::Tcp(port)));
    drop(inheritance);
    // With its fleet the connection ends, in order.
    let counts = edge.set_table(RouteTable { routes, fleets: vec![web], ..RouteTable::default() });
    assert_eq!((counts.gone[0].fleet.clone(), counts.gone[0].cut), (fleet_id(2), 1));
    assert_eq!(client.line(), None);
    edge.client.deafen(&[Door::Tcp(port)]).unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
    assert_eq!(edge.connect().get("/").text(), "hi");
}

#[test]
fn an_edge_that_is_told_to_leave_ends_at_its_grace() {
    let hanging = Instance::raw(|connection| while connection.line().is_some() {});
    let edge = Edge::with(Limits::default(), 1);
    edge.serve(&[&hanging]);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    while edge.count().in_flight == 0 {
        thread::yield_now();
    }
    edge.client.leave(Duration::from_millis(50)).unwrap();
    edge.join().unwrap();
    assert_eq!(client.read().status(), 502);
}
