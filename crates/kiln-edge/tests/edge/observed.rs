//! What the edge tells of what it does, and what it does when there is too much of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use kiln_edge::{Door, Limits, Listener};

use crate::harness::{Edge, route};
use crate::instance::{Instance, ok};
use crate::wire::Client;

/// The figures by name and labels.
fn figures(text: &str) -> HashMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(pair).collect()
}

#[test]
fn what_was_asked_is_told_by_route_service_and_status() {
    let instance = Instance::new(|request, connection| {
        let bad = request.start.contains("bad");
        connection.send(if bad { "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".into() } else { ok("four") });
        true
    });
    let edge = Edge::start();
    let fleet = edge.fleet(1, &[&instance]);
    let targets = [(&fleet.id, 1)];
    edge.set(vec![route(None, "/", &targets), route(Some("a.com"), "/x", &targets)], vec![fleet.clone()]);
    let mut client = edge.connect();
    (0..3).for_each(|_| drop(client.get("/good")));
    client.get("/bad");
    client.send("GET /x/y HTTP/1.1\r\nHost: a.com\r\n\r\n").read();
    edge.connect().send("GET / HTTP/1.1\r\n\r\n").read();
    edge.drained();
    let figures = figures(&edge.client.metrics().unwrap());
    let labels = |route: &str| {
        format!("app=\"hello\",service=\"web\",release=\"\",generation=\"1\",route=\"{route}\"")
    };
    for (route, status, count) in
        [("*/", "2xx", 3.0), ("*/", "5xx", 1.0), ("a.com/x", "2xx", 1.0), ("a.com/x", "5xx", 0.0)]
    {
        let name = format!("kiln_requests_total{{{},status=\"{status}\"}}", labels(route));
        assert_eq!(figures.get(&name), Some(&count), "{name}");
    }
    assert_eq!(figures[&format!("kiln_response_bytes_total{{{}}}", labels("*/"))], 12.0);
    assert_eq!(figures[&format!("kiln_request_duration_seconds_count{{{}}}", labels("*/"))], 4.0);
    let infinite = format!("kiln_request_duration_seconds_bucket{{{},le=\"+Inf\"}}", labels("*/"));
    assert_eq!(figures[&infinite], 4.0);
    assert_eq!(figures["kiln_edge_refused_requests_total{cause=\"malformed\"}"], 1.0);
    assert_eq!(figures["kiln_edge_requests_total"], 6.0);
    // With its fleet a series goes.
    edge.set(vec![], vec![]);
    assert!(!edge.client.metrics().unwrap().contains("service="));
}

/// Who cannot be understood is answered by hyper, and counted all the same.
#[test]
fn requests_that_cannot_be_read_are_counted() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    for (request, status) in [
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(1 << 20)), 431),
    ] {
        let mut client = edge.connect();
        assert_eq!(client.send(&request).read().status(), status, "{}", &request[..20]);
        assert!(client.is_at_end());
    }
    for figure in [
        "kiln_edge_refused_requests_total{cause=\"malformed\"} 3",
        "kiln_edge_refused_requests_total{cause=\"too_many_fields\"} 2",
        "kiln_edge_requests_total 5",
    ] {
        edge.tells(figure);
    }
}

/// A client of HTTP/2 that begins requests to give them up, frame by frame.
#[test]
fn who_only_begins_and_gives_up_is_counted() {
    let instance = Instance::raw(|connection| while connection.line().is_some() {});
    let limits = Limits { wasted_requests: 10, header_read: Duration::from_millis(40), ..Limits::default() };
    let edge = Edge::with(limits, 1);
    edge.serve(&[&instance]);
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = &(payload.len() as u32).to_be_bytes()[1..];
        [length, &[kind, flags][..], &stream.to_be_bytes()[..], payload].concat()
    };
    let mut client = edge.connect();
    client.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat());
    for stream in (1..).step_by(2).take(11) {
        // GET http://a/, and that is all.
        client.send(frame(1, 5, stream, &[0x82, 0x84, 0x86, 0x41, 1, b'a']));
        edge.tells("kiln_edge_in_flight_requests 1");
        client.send(frame(3, 0, stream, &8u32.to_be_bytes()));
        edge.tells("kiln_edge_in_flight_requests 0");
    }
    edge.tells("kiln_edge_refused_connections_total{cause=\"wasteful\"} 1");
    edge.tells("kiln_edge_connections 0");
}

#[test]
fn figures_have_a_door_of_their_own_if_asked() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listeners = Listener::bind(Door::Metrics, any, 1).unwrap();
    let address = kiln_edge::local(&listeners[0].socket).unwrap();
    edge.client.listen(&listeners).unwrap();
    let mut client = Client::new(std::net::TcpStream::connect(address).unwrap());
    let answer = client.get("/metrics");
    assert_eq!(answer.status(), 200);
    assert!(answer.text().contains("# TYPE kiln_edge_connections gauge"));
    assert!(figures(answer.text()).len() > 20);
    assert!(client.is_at_end());
    // Nobody is served what an app serves there.
    let mut client = Client::new(std::net::TcpStream::connect(address).unwrap());
    assert_eq!(client.get("/other").status(), 404);
}

#[test]
fn an_instance_that_fails_again_and_again_is_left_alone_for_a_while() {
    let (bad, good) = (Instance::raw(|connection| drop(connection.try_read())), Instance::saying("good"));
    let edge = Edge::with(Limits::default(), 1);
    edge.serve(&[&bad, &good]);
    let mut client = edge.connect();
    assert!((0..200).all(|_| client.get("/").text() == "good"));
    assert!(bad.connections() < 20, "{} requests went to an instance that answers none", bad.connections());
    let figures = figures(&edge.client.metrics().unwrap());
    assert!(figures["kiln_edge_ejections_total"] >= 1.0);
    assert!(figures["kiln_edge_retries_total"] >= 3.0);
}

#[test]
fn asking_again_has_an_end_when_everything_fails() {
    let bad = Instance::raw(|connection| drop(connection.try_read()));
    let edge = Edge::with(Limits::default(), 1);
    edge.serve(&[&bad, &bad, &bad]);
    let mut client = edge.connect();
    for _ in 0..600 {
        assert_eq!(client.get("/").status(), 502);
    }
    let figures = figures(&edge.client.metrics().unwrap());
    // A fifth of what was asked, and what may be saved up.
    assert!(figures["kiln_edge_retries_total"] <= 600.0 / 5.0 + 100.0, "{figures:?}");
}

#[test]
fn a_fleet_at_its_limit_makes_others_wait_and_then_refuses() {
    let (release, hold) = std::sync::mpsc::channel::<()>();
    let hold = std::sync::Mutex::new(hold);
    let instance = Instance::new(move |_, connection| {
        let _ = hold.lock().unwrap().recv();
        connection.send(ok("done"));
        true
    });
    let limits =
        Limits { fleet_requests: 1, queue: 1, queue_wait: Duration::from_secs(60), ..Limits::default() };
    let edge = Edge::with(limits, 1);
    edge.serve(&[&instance]);
    let (mut first, mut second) = (edge.connect(), edge.connect());
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    while edge.count().in_flight == 0 {
        std::thread::yield_now();
    }
    second.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    while edge.client.stats().unwrap().in_flight < 2 {
        std::thread::yield_now();
    }
    let mut third = edge.connect();
    let answer = third.get("/");
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));
    assert_eq!(edge.count().in_flight, 1);
    release.send(()).unwrap();
    assert_eq!(first.read().text(), "done");
    release.send(()).unwrap();
    assert_eq!(second.read().text(), "done");
}

#[test]
fn one_client_cannot_take_all_connections() {
    let edge = Edge::with(Limits { client_connections: 3, ..Limits::default() }, 2);
    edge.serve(&[&Instance::saying("hi")]);
    let mut kept: Vec<Client> = (0..3).map(|_| edge.connect()).collect();
    assert!(kept.iter_mut().all(|client| client.get("/").text() == "hi"));
    assert!(edge.connect().is_at_end());
    edge.tells("kiln_edge_refused_connections_total{cause=\"too_many\"} 1");
    drop(kept.pop());
    // As soon as one has gone, another is let in.
    let again = (0..10_000).find_map(|_| {
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.try_read()
    });
    assert_eq!(again.unwrap().text(), "hi");
}
