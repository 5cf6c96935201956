//! The switch: nobody is dropped, and what is in flight is known.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kiln_model::EdgeFleet;

use crate::harness::{Edge, fleet_id, route};
use crate::instance::{Instance, ok};

/// An instance that answers `/slow` when told to.
fn slow(words: &'static str) -> (Instance, Sender<()>, Receiver<()>) {
    let (release, hold) = channel::<()>();
    let (began, begun) = channel::<()>();
    let hold = Mutex::new(hold);
    let instance = Instance::new(move |request, connection| {
        if request.start.contains("/slow") {
            let _ = began.send(());
            let _ = hold.lock().unwrap().recv();
        }
        connection.send(ok(words));
        true
    });
    (instance, release, begun)
}

fn switch(edge: &Edge, to: usize, fleets: &[EdgeFleet]) -> kiln_model::EdgeCounts {
    edge.set(vec![route(None, "/", &[(&fleets[to].id, 1)])], fleets.to_vec())
}

#[test]
fn a_fleet_is_drained_when_its_last_request_has_ended() {
    let (blue, release, begun) = slow("blue");
    let green = Instance::saying("green");
    let edge = Edge::start();
    let fleets = [edge.fleet(1, &[&blue]), edge.fleet(2, &[&green])];
    switch(&edge, 0, &fleets);
    let mut kept = edge.connect();
    assert_eq!(kept.get("/").text(), "blue");
    let mut client = edge.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    begun.recv().unwrap();

    let counts = switch(&edge, 1, &fleets);
    assert_eq!((counts.version, counts.fleets[0].in_flight), (2, 1));
    // The kept connection goes to the new fleet with its next request.
    assert_eq!(kept.get("/").text(), "green");
    let counts = edge.client.wait_drained(&[fleet_id(1)], Duration::from_millis(30)).unwrap();
    assert_eq!(counts.fleets[0].in_flight, 1, "the timeout does not make it zero");

    let waiting = edge.client.clone();
    let waiter = thread::spawn(move || {
        let counts = waiting.wait_drained(&[fleet_id(1)], Duration::from_secs(60)).unwrap();
        (counts, Instant::now())
    });
    let released = Instant::now();
    release.send(()).unwrap();
    assert_eq!(client.read().text(), "blue");
    let (counts, at) = waiter.join().unwrap();
    assert_eq!(counts.fleets[0].in_flight, 0);
    assert!(at - released < Duration::from_secs(5), "{:?}", at - released);
}

#[test]
fn waiting_for_what_is_drained_or_unknown_returns_at_once() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let begun = Instant::now();
    edge.client.wait_drained(&[fleet_id(1), fleet_id(77)], Duration::from_secs(60)).unwrap();
    edge.client.wait_drained(&[], Duration::from_secs(60)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_is_in_flight_when_its_fleet_leaves_the_table_is_cut() {
    let (blue, _release, begun) = slow("blue");
    let green = Instance::saying("green");
    let edge = Edge::start();
    let fleets = [edge.fleet(1, &[&blue]), edge.fleet(2, &[&green])];
    switch(&edge, 0, &fleets);
    let mut client = edge.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    begun.recv().unwrap();
    switch(&edge, 1, &fleets);
    let counts = edge.set(vec![route(None, "/", &[(&fleets[1].id, 1)])], vec![fleets[1].clone()]);
    assert_eq!(counts.fleets.len(), 1);
    assert_eq!(
        (counts.gone[0].fleet.clone(), counts.gone[0].in_flight, counts.gone[0].cut),
        (fleet_id(1), 0, 1)
    );
    let answer = client.read();
    assert_eq!(answer.status(), 502);
    assert!(answer.text().contains("retired"), "{}", answer.text());
    assert_eq!(edge.connect().get("/").text(), "green");
}

#[test]
fn connections_to_an_instance_that_left_the_table_are_closed() {
    let (closed, is_closed) = channel::<()>();
    let closed = Mutex::new(closed);
    let blue = Instance::raw(move |connection| {
        while connection.try_read().is_some() {
            connection.send(ok("blue"));
        }
        closed.lock().unwrap().send(()).unwrap();
    });
    let edge = Edge::serving(&[&blue]);
    assert_eq!(edge.connect().get("/").text(), "blue");
    edge.serve(&[]);
    is_closed.recv_timeout(Duration::from_secs(10)).expect("the edge closes it");
}

#[test]
fn fifty_switches_under_load_without_a_failure() {
    let (blue, green) = (Instance::saying("blue"), Instance::saying("green"));
    let edge = Arc::new(Edge::start());
    let fleets = [edge.fleet(1, &[&blue, &blue]), edge.fleet(2, &[&green, &green])];
    switch(&edge, 0, &fleets);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load: Vec<_> = (0..8)
        .map(|n| {
            let (edge, stop) = (edge.clone(), stop.clone());
            thread::spawn(move || {
                let (mut client, mut requests) = (edge.connect(), 0u64);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    if n % 2 == 0 {
                        client = edge.connect();
                    }
                    let answer = match n % 4 {
                        3 => client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").read(),
                        _ => client.get("/"),
                    };
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    requests += 1;
                }
                requests
            })
        })
        .collect();
    let mut probe = edge.connect();
    for n in 1..=50 {
        let (to, from) = (n % 2, (n + 1) % 2);
        switch(&edge, to, &fleets);
        assert_eq!(probe.get("/").text(), ["blue", "green"][to], "after the acknowledgement");
        let counts = edge.client.wait_drained(&[fleets[from].id.clone()], Duration::from_secs(10)).unwrap();
        assert_eq!(counts.fleets[from].in_flight, 0);
        // Out of use for good: nothing more is served there until it is a target again.
        let served = counts.fleets[from].served;
        assert_eq!(probe.get("/").text(), ["blue", "green"][to]);
        assert_eq!(edge.client.counts().unwrap().fleets[from].served, served);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let requests: u64 = load.into_iter().map(|t| t.join().unwrap()).sum();
    let counts = edge.client.wait_drained(&[fleet_id(1), fleet_id(2)], Duration::from_secs(10)).unwrap();
    assert_eq!(counts.fleets.iter().map(|f| f.failed).sum::<u64>(), 0);
    assert_eq!(counts.fleets.iter().map(|f| f.served).sum::<u64>(), requests + 100);
}

#[test]
fn shutting_down_lets_requests_end_and_asks_clients_to_leave() {
    let (instance, release, begun) = slow("done");
    let edge = Edge::serving(&[&instance]);
    let mut kept = edge.connect();
    kept.get("/");
    let mut client = edge.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    begun.recv().unwrap();
    let asked = edge.client.clone();
    let shutdown = thread::spawn(move || asked.shutdown(Duration::from_secs(60)).unwrap());
    // Draining has begun when an answer says so. Until then a connection that is kept is answered each time; one that
    // is made in the very moment the socket is closed would be refused by the kernel.
    while kept.get("/").header("connection") != Some("close") {}
    release.send(()).unwrap();
    let answer = client.read();
    assert_eq!((answer.text(), answer.header("connection")), ("done", Some("close")));
    let stats = shutdown.join().unwrap();
    assert_eq!((stats.in_flight, stats.failed), (0, 0));
    let address = edge.address;
    edge.join().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn shutting_down_ends_within_its_grace() {
    let (instance, _release, begun) = slow("never");
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    begun.recv().unwrap();
    assert_eq!(edge.client.shutdown(Duration::from_millis(50)).unwrap().in_flight, 1);
    edge.join().unwrap();
    // What is not done by then is told so.
    assert_eq!(client.read().status(), 502);
    assert!(client.is_at_end());
}
