//! The way of ordinary requests, beside the way of all others: what an instance is sent and what a client gets must not
//! show which of them was taken. Only the way without a library leaves the names of fields as they were written, which
//! is how these tests know that it was.

use crate::harness::Edge;
use crate::instance::Instance;
use crate::wire::{Client, Message};

/// Whatever else it is, it is not ordinary: it and what follows on its connection are carried by hyper.
const FOREIGN: &str = "GET /foreign HTTP/1.1\r\nHost: a\r\nTE: x\r\n\r\n";
const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What is the same on both ways: names in lower case, in order, and without values that are drawn or told by the clock.
fn meaning(message: &Message) -> (String, Vec<(String, String)>, Vec<u8>) {
    let mut fields: Vec<(String, String)> = message
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .map(|(name, value)| match (&*name, value.len()) {
            ("date", _) | ("x-request-id", 32) => (name, "any".to_owned()),
            ("traceparent", _) if !value.contains("4bf92f") => (name, "any".to_owned()),
            _ => (name, value),
        })
        .collect();
    fields.sort();
    (message.start.clone(), fields, message.body.clone())
}

/// What an instance that answers `answer` is sent of `request`, and what the client gets, on the way of ordinary
/// requests or the other.
fn carried(request: &str, answer: &[u8], is_ordinary: bool) -> (Message, Message) {
    let bytes = answer.to_vec();
    let instance = Instance::new(move |request, connection| {
        let is_foreign = request.start.starts_with("GET /foreign");
        connection.send(if is_foreign { PLAIN.as_bytes() } else { &bytes });
        // One that ends with its connection needs that end.
        is_foreign || !bytes.starts_with(b"HTTP/1.1 200 Until")
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    if !is_ordinary {
        assert_eq!(client.send(FOREIGN).read().status(), 200);
    }
    client.send(request);
    let got = if request.starts_with("HEAD") { client.read_head().unwrap() } else { client.read() };
    let count = edge.drained();
    assert_eq!((count.served, count.failed), (1 + u64::from(!is_ordinary), 0), "{request:?}");
    let seen = instance.seen().pop().unwrap();
    let is_as_written = seen.headers.iter().any(|(name, _)| name == "X-Written");
    assert_eq!(is_as_written, is_ordinary, "{request:?} went the other way: {seen:?}");
    (seen, got)
}

fn requests() -> Vec<String> {
    let head = |start: &str, fields: &str| {
        format!("{start} HTTP/1.1\r\nHost: a.com:80\r\nX-Written: So\r\n{fields}\r\n")
    };
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\ntracestate: a=b\r\n";
    vec![
        head("GET /p/q?r=s&t=%20", ""),
        head("HEAD /", ""),
        head("DELETE /x", "Connection: keep-alive\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n"),
        head("GET //two?a?b", "X-Request-Id: mine\r\nCookie: a=b\r\nCookie: c=d\r\nX-Empty:\r\n"),
        head("GET /", trace),
        head("POST /", "Content-Length: 5\r\nContent-Type: text/plain\r\n") + "hello",
        head("GET /", "Content-Length: 5\r\n") + "hello",
        head("PUT /", "Content-Length: 0\r\n"),
        head("BREW /pot", "Content-Length: 1\r\nAccept: \u{e4}\r\n") + "x",
    ]
}

/// Answers of all shapes.
pub fn answers() -> Vec<Vec<u8>> {
    let large = "0123456789abcdef".repeat(20_000);
    let chunked =
        |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n{body}");
    let mut all: Vec<String> = vec![
        PLAIN.into(),
        "HTTP/1.1 404 Gone Fishing\r\nServer: x\r\nContent-Length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nConnection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: x\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\
         Content-Length: 1\r\n\r\nx"
            .into(),
        "HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx".into(),
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\nContent-Length: 4\r\n\r\nfour".into(),
        "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n".into(),
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".into(),
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{large}", large.len()),
        format!("HTTP/1.1 200 Until the End\r\nX-A: b\r\n\r\n{large}"),
        chunked("0\r\n\r\n"),
        chunked("0\r\n\r\n").replace("X-A: b", "Content-Length: 50"),
        chunked("5\r\nhello\r\n0\r\n\r\n").replace("X-A: b", "Content-Length: 2"),
        chunked("5;ext=\"x\"\r\nhello\r\n001\r\n!\r\n0\r\nX-Trailer: y\r\n\r\n"),
    ];
    all.push(chunked(&format!("{:x}\r\n{large}\r\n3\r\nend\r\n0\r\n\r\n", large.len())));
    all.into_iter().map(String::into_bytes).collect()
}

#[test]
fn an_instance_is_sent_the_same_on_both_ways() {
    for request in requests() {
        let [(ordinary, _), (other, _)] = [true, false].map(|way| carried(&request, PLAIN.as_bytes(), way));
        assert_eq!(meaning(&ordinary), meaning(&other), "{request:?}");
    }
}

#[test]
fn a_client_gets_the_same_on_both_ways() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Written: So\r\n\r\n";
    for answer in answers() {
        let [(_, ordinary), (_, other)] = [true, false].map(|way| carried(request, &answer, way));
        let head = String::from_utf8_lossy(&answer[..answer.len().min(120)]).into_owned();
        let (ordinary, other) = (meaning(&ordinary), meaning(&other));
        assert_eq!((&ordinary.0, &ordinary.1), (&other.0, &other.1), "{head:?}");
        assert!(ordinary.2 == other.2, "the bodies differ: {head:?}");
    }
}

#[test]
fn the_pieces_a_request_comes_in_do_not_matter() {
    let instance = Instance::saying("ok");
    let edge = Edge::serving(&[&instance]);
    for request in [requests().swap_remove(0), requests().swap_remove(5)] {
        for at in 1..request.len() {
            let mut client = edge.connect();
            client.send(&request[..at]).send(&request[at..]);
            assert_eq!(client.read().text(), "ok", "{at}");
        }
        let seen = instance.seen();
        let bodies: Vec<_> = seen.iter().map(|r| (&r.start, &r.body)).collect();
        assert!(bodies[bodies.len() - (request.len() - 1)..].windows(2).all(|two| two[0] == two[1]));
    }
}

#[test]
fn the_pieces_an_answer_comes_in_do_not_matter() {
    for answer in [answers().swap_remove(0), answers().swap_remove(7), answers().swap_remove(13)] {
        let whole = carried("GET / HTTP/1.1\r\nHost: a\r\nX-Written: So\r\n\r\n", &answer, true).1.body;
        let bytes = answer.clone();
        let instance = Instance::new(move |request, connection| {
            let at: usize = request.start.split(' ').nth(1).unwrap()[1..].parse().unwrap();
            connection.send(&bytes[..at]).send(&bytes[at..]);
            true
        });
        let edge = Edge::serving(&[&instance]);
        let mut client = edge.connect();
        for at in 1..answer.len() {
            assert_eq!(client.get(&format!("/{at}")).body, whole, "{at}");
        }
        assert_eq!(edge.drained().failed, 0);
    }
}

/// Ordinary ones, then one that is not, then ordinary ones again, all in one piece.
#[test]
fn what_waits_behind_a_request_is_answered_in_its_turn_whoever_carries_it() {
    let instance = Instance::new(|request, connection| {
        connection.send(crate::instance::ok(request.start.split(' ').nth(1).unwrap()));
        true
    });
    let edge = Edge::serving(&[&instance]);
    let one =
        |n: usize| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nX-Written: So\r\nContent-Length: 3\r\n\r\nGET");
    let mut client = edge.connect();
    client.send(format!("{}{}{FOREIGN}{}{}", one(1), one(2), one(3), one(4)));
    for path in ["/1", "/2", "/foreign", "/3", "/4"] {
        assert_eq!(client.read().text(), path);
    }
    let as_written = |request: &Message| request.headers.iter().any(|(name, _)| name == "X-Written");
    let ways: Vec<bool> = instance.seen().iter().map(as_written).collect();
    assert_eq!(ways, [true, true, false, false, false]);
    assert_eq!(edge.drained().served, 5);
}

#[test]
fn a_body_that_comes_after_its_head_is_waited_for() {
    let instance = Instance::saying("ok");
    let edge = Edge::serving(&[&instance]);
    let mut client: Client = edge.connect();
    assert_eq!(client.get("/").text(), "ok");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    while edge.count().in_flight == 0 {
        std::thread::yield_now();
    }
    assert_eq!(client.send("llo").read().text(), "ok");
    assert_eq!(instance.seen().pop().unwrap().body, b"hello");
}

#[test]
fn an_answer_with_broken_chunks_is_not_taken_for_whole() {
    for body in ["5\r\nhello\r\nzz", "5\r\nhello0\r\n\r\n", "5\nhello\n0\n\n"] {
        let instance = Instance::new(move |_, connection| {
            connection.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
            true
        });
        let edge = Edge::serving(&[&instance]);
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.read_head().unwrap();
        assert_eq!(client.read_body(&head), None, "{body:?}");
        assert!(client.is_at_end());
        assert_eq!(edge.drained().failed, 1, "{body:?}");
    }
}

/// The head was written and the body not: nobody has been told of the head yet.
#[test]
fn an_instance_that_dies_between_head_and_body_has_not_answered() {
    let promise = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let dying = Instance::raw(move |connection| {
        connection.try_read();
        connection.send(promise);
    });
    let good = Instance::saying("good");
    let edge = Edge::serving(&[&dying, &good]);
    let mut client = edge.connect();
    for _ in 0..50 {
        assert_eq!(client.get("/").text(), "good");
        // The same on the other way.
        let last = "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n";
        assert_eq!(edge.connect().send(last).read().text(), "good");
    }
    assert!(dying.connections() > 0);
    assert_eq!(edge.drained().failed, 0);
    // What may have been carried out is not asked again, and gets an answer all the same.
    let edge = Edge::serving(&[&dying]);
    let answer = edge.connect().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").read();
    assert_eq!(answer.status(), 502);
}

/// Before HTTP/1.1 there were no codings, and whoever stands in between may have taken it otherwise (RFC 9112, 6.1).
#[test]
fn an_answer_of_http_1_0_in_chunks_is_none_on_either_way() {
    for coded in ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 15"] {
        let instance = Instance::new(move |_, connection| {
            connection.send(format!("HTTP/1.0 200 OK\r\n{coded}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
            false
        });
        let edge = Edge::serving(&[&instance]);
        for connection in ["keep-alive", "close"] {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
            assert_eq!(edge.connect().send(request).read().status(), 502, "{coded} {connection}");
        }
        edge.tells("kiln_edge_refused_requests_total{cause=\"garbage\"} 2");
    }
}
