//! Clients that go away, dawdle, or try to be understood in two ways.

use std::time::Duration;

use kiln_edge::Limits;

use crate::harness::Edge;
use crate::instance::{Instance, ok};

/// What the edge answers to these bytes, and what came through to the instance.
fn send(bytes: &str) -> (Option<u16>, Vec<String>) {
    let instance = Instance::saying("ok");
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send(bytes);
    let status = client.try_read().map(|answer| answer.status());
    client.half_close();
    while client.try_read().is_some() {}
    edge.drained();
    (status, instance.seen().into_iter().map(|m| m.start).collect())
}

#[test]
fn malformed_requests_are_refused_and_go_nowhere() {
    for bytes in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
        "\u{1}\u{2}\u{3}\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let (status, seen) = send(bytes);
        assert_eq!(status, Some(400), "{bytes:?}");
        assert_eq!(seen, Vec::<String>::new(), "{bytes:?}");
    }
}

#[test]
fn connect_is_refused() {
    let (status, seen) = send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    assert_eq!((status, seen.len()), (Some(501), 0));
}

/// RFC 9112, 6.3: who says a length in two ways is not to be understood in either.
#[test]
fn a_request_smuggled_behind_two_lengths_never_arrives() {
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nContent-Length: 4",
    ] {
        let instance = Instance::saying("ok");
        let edge = Edge::serving(&[&instance]);
        let mut client = edge.connect();
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(format!("POST /first HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n0\r\n\r\n{smuggled}"));
        assert_eq!(client.read().status(), 400);
        assert!(client.is_at_end(), "{framing}: the connection ends");
        assert!(instance.seen().is_empty(), "{framing}");
    }
}

#[test]
fn a_body_with_broken_chunks_is_not_passed_on_as_whole() {
    for chunks in
        ["zz\r\nhi\r\n0\r\n\r\n", "2\r\nhi0\r\n\r\n", "fffffffffffffffff\r\nx", "2;\nhi\r\n0\r\n\r\n"]
    {
        let (_, seen) =
            send(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
        assert_eq!(seen, Vec::<String>::new(), "{chunks:?}");
    }
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70 * 1024));
    assert_eq!(send(&long), (Some(431), vec![]));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    assert_eq!(send(&many), (Some(431), vec![]));
}

#[test]
fn a_client_that_leaves_takes_its_request_out_of_flight() {
    let instance = Instance::raw(|connection| {
        connection.read_head();
        // Answers never; ends when the edge gives the connection up.
        while connection.line().is_some() {}
    });
    let edge = Edge::serving(&[&instance]);
    for reset in [false, true] {
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        while edge.count().in_flight == 0 {
            std::thread::yield_now();
        }
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        let count = edge.drained();
        assert_eq!((count.served, count.failed), (0, 0));
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_an_answer_is_no_failure() {
    let instance = Instance::new(|_, connection| {
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        while connection.line().is_some() {}
        false
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_head().unwrap();
    client.chunk().unwrap();
    drop(client);
    let count = edge.drained();
    assert_eq!((count.served, count.failed), (1, 0));
}

fn hasty() -> Limits {
    let short = Duration::from_millis(60);
    let long = Duration::from_secs(600);
    Limits { header_read: short, keep_alive: long, response_head: short, ..Limits::default() }
}

#[test]
fn a_head_that_does_not_come_to_an_end_is_given_up() {
    let edge = Edge::with(hasty(), 1);
    edge.serve(&[&Instance::saying("ok")]);
    let mut resting = edge.connect();
    let mut slow = edge.connect();
    slow.send("GET / HTTP/1.1\r\nHost:");
    assert!(slow.is_at_end());
    // A connection that has not begun a request is only resting.
    assert_eq!(resting.get("/").text(), "ok");
}

#[test]
fn a_connection_that_rests_too_long_is_closed() {
    let limits = Limits { keep_alive: Duration::from_millis(60), ..Limits::default() };
    let edge = Edge::with(limits, 1);
    edge.serve(&[&Instance::saying("ok")]);
    let mut client = edge.connect();
    assert_eq!(client.get("/").text(), "ok");
    assert!(client.is_at_end());
    assert!(edge.connect().is_at_end());
}

#[test]
fn a_body_that_stops_coming_is_the_clients_fault() {
    let instance = Instance::new(|_, connection| {
        connection.send(ok("whole"));
        true
    });
    let edge = Edge::with(hasty(), 1);
    edge.serve(&[&instance]);
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.read().status(), 408);
    assert_eq!(edge.drained().failed, 0);
    assert_eq!(instance.seen().len(), 0);
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_given_up() {
    let instance = Instance::endless();
    let limits = Limits { client_stall: Duration::from_millis(60), ..Limits::default() };
    let edge = Edge::with(limits, 1);
    edge.serve(&[&instance]);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_head().unwrap();
    edge.drained();
}

#[test]
fn more_connections_than_allowed_wait_their_turn() {
    let edge = Edge::with(Limits { connections: 2, ..Limits::default() }, 1);
    edge.serve(&[&Instance::saying("ok")]);
    let (mut a, mut b, mut c) = (edge.connect(), edge.connect(), edge.connect());
    assert_eq!(a.get("/").text(), "ok");
    assert_eq!(b.get("/").text(), "ok");
    c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(edge.client.stats().unwrap().connections, 2);
    drop(a);
    assert_eq!(c.read().text(), "ok");
}

#[test]
fn requests_sent_before_the_last_answer_are_answered_in_order() {
    let instance = Instance::new(|request, connection| {
        connection.send(ok(request.start.split(' ').nth(1).unwrap()));
        true
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    let requests: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests);
    assert!((0..20).all(|n| client.read().text() == format!("/{n}")));
}
