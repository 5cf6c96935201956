//! Which instance a request goes to.

use std::collections::BTreeMap;

use crate::harness::{Edge, route};
use crate::instance::Instance;

fn ask(edge: &Edge, host: &str, path: &str) -> (u16, String) {
    let mut client = edge.connect();
    let answer = client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).read();
    (answer.status(), answer.text().to_owned())
}

#[test]
fn the_most_specific_route_takes_a_request() {
    let names = ["any", "api", "exact", "wild"];
    let instances = names.map(Instance::saying);
    let edge = Edge::start();
    let fleets: Vec<_> = (1..).zip(&instances).map(|(n, i)| edge.fleet(n, &[i])).collect();
    let to = |n: usize| [(&fleets[n].id, 1)];
    let routes = vec![
        route(None, "/", &to(0)),
        route(None, "/api", &to(1)),
        route(Some("www.example.com"), "/", &to(2)),
        route(Some("*.example.com"), "/", &to(3)),
    ];
    edge.set(routes, fleets.clone());
    for (host, path, expected) in [
        ("elsewhere.com", "/", "any"),
        ("elsewhere.com", "/api/x?y=/z", "api"),
        ("elsewhere.com", "/apis", "any"),
        ("WWW.example.com:8080", "/api", "exact"),
        ("a.example.com", "/api", "wild"),
    ] {
        assert_eq!(ask(&edge, host, path), (200, expected.to_owned()), "{host}{path}");
    }
}

#[test]
fn what_nothing_takes_is_said_plainly() {
    let edge = Edge::start();
    let (empty, unwell) = (edge.fleet(1, &[]), edge.fleet(2, &[]));
    let routes = vec![
        route(Some("a.com"), "/", &[]),
        route(Some("b.com"), "/", &[(&empty.id, 0)]),
        route(Some("c.com"), "/", &[(&unwell.id, 1)]),
    ];
    edge.set(routes, vec![empty, unwell]);
    assert_eq!(ask(&edge, "nobody.com", "/").0, 404);
    for host in ["a.com", "b.com"] {
        let (status, words) = ask(&edge, host, "/");
        assert_eq!(status, 503);
        assert!(words.contains("no release"), "{words}");
    }
    let answer = edge.connect().send("GET / HTTP/1.1\r\nHost: c.com\r\n\r\n").read();
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("healthy"), "{}", answer.text());
    let counts = edge.client.counts().unwrap();
    assert_eq!(counts.fleets.iter().map(|f| f.failed).collect::<Vec<_>>(), [0, 1]);
    let stats = edge.client.stats().unwrap();
    assert_eq!((stats.requests, stats.failed, stats.in_flight), (4, 3, 0));
}

#[test]
fn weights_are_kept() {
    let (blue, green) = (Instance::saying("blue"), Instance::saying("green"));
    // One thread: each keeps the shares of its own requests exactly.
    let edge = Edge::with(kiln_edge::Limits::default(), 1);
    let fleets = vec![edge.fleet(1, &[&blue]), edge.fleet(2, &[&green])];
    edge.set(vec![route(None, "/", &[(&fleets[0].id, 19), (&fleets[1].id, 1)])], fleets.clone());
    let mut got = BTreeMap::<String, u32>::new();
    let mut client = edge.connect();
    for _ in 0..200 {
        *got.entry(client.get("/").text().to_owned()).or_default() += 1;
    }
    assert_eq!(got, BTreeMap::from([("blue".into(), 190), ("green".into(), 10)]));
}

#[test]
fn a_target_without_healthy_instances_leaves_its_share_to_the_others() {
    let blue = Instance::saying("blue");
    let edge = Edge::start();
    let fleets = vec![edge.fleet(1, &[&blue]), edge.fleet(2, &[])];
    edge.set(vec![route(None, "/", &[(&fleets[0].id, 1), (&fleets[1].id, 9)])], fleets.clone());
    let mut client = edge.connect();
    assert!((0..20).all(|_| client.get("/").text() == "blue"));
}

#[test]
fn every_instance_of_a_fleet_gets_its_part() {
    let instances = ["a", "b", "c"].map(Instance::saying);
    let edge = Edge::serving(&instances.each_ref());
    let mut got = BTreeMap::<String, u32>::new();
    let mut client = edge.connect();
    for _ in 0..300 {
        *got.entry(client.get("/").text().to_owned()).or_default() += 1;
    }
    assert!(got.len() == 3 && got.values().all(|n| *n > 50), "{got:?}");
}

#[test]
fn the_instance_with_less_to_do_is_preferred() {
    let (release, hold) = std::sync::mpsc::channel::<()>();
    let hold = std::sync::Mutex::new(hold);
    let busy = Instance::new(move |request, connection| {
        if request.start.contains("/slow") {
            let _ = hold.lock().unwrap().recv();
        }
        connection.send(crate::instance::ok("busy"));
        true
    });
    let idle = Instance::saying("idle");
    let edge = Edge::with(kiln_edge::Limits::default(), 1);
    edge.serve(&[&busy]);
    let mut slow = edge.connect();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    // The request is in flight there before the other instance comes.
    while busy.seen().is_empty() {
        std::thread::yield_now();
    }
    edge.serve(&[&busy, &idle]);
    let mut client = edge.connect();
    assert!((0..20).all(|_| client.get("/").text() == "idle"));
    release.send(()).unwrap();
    assert_eq!(slow.read().text(), "busy");
}
