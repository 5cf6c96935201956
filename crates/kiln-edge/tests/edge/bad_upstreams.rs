//! Instances that refuse, hang, break off or talk nonsense: a defined answer each, and nothing left in flight.

use std::time::Duration;

use kiln_edge::Limits;

use crate::harness::Edge;
use crate::instance::{Instance, ok};
use crate::wire::Message;

/// What a client gets from an edge whose only instance treats each connection so, after its request was read.
fn get_from(treat: impl Fn(&mut crate::wire::Client) + Send + Sync + 'static) -> (Message, Edge) {
    let instance = Instance::raw(move |connection| {
        let _ = connection.try_read();
        treat(connection);
    });
    let edge = Edge::serving(&[&instance]);
    let answer = edge.connect().get("/");
    let count = edge.drained();
    assert_eq!((count.served, count.failed), (1, 1));
    (answer, edge)
}

/// What the edge counts the only request that went wrong as.
fn is_counted_as(edge: &Edge, cause: &str) {
    edge.tells(&format!("kiln_edge_refused_requests_total{{cause=\"{cause}\"}} 1"));
    edge.tells("kiln_edge_failed_requests_total 1");
    at_its_route(edge, "kiln_refused_requests_total", cause, 1);
}

/// What is counted by cause at the only route.
fn at_its_route(edge: &Edge, name: &str, cause: &str, count: u64) {
    let labels = "app=\"hello\",service=\"web\",release=\"\",generation=\"1\",route=\"*/\"";
    edge.tells(&format!("{name}{{{labels},cause=\"{cause}\"}} {count}"));
}

fn write(connection: &mut crate::wire::Client, bytes: &str) {
    connection.send(bytes);
}

fn short() -> Limits {
    let response_head = Duration::from_millis(80);
    Limits { response_head, connect: Duration::from_millis(80), ..Limits::default() }
}

#[test]
fn one_that_refuses() {
    let edge = Edge::serving(&[&Instance::refusing()]);
    let answer = edge.connect().get("/");
    assert_eq!(answer.status(), 502);
    assert!(answer.text().contains("could be connected to"), "{}", answer.text());
    let count = edge.drained();
    assert_eq!((count.served, count.failed), (1, 1));
    is_counted_as(&edge, "unreachable");
}

#[test]
fn one_that_refuses_beside_one_that_answers() {
    let (bad, good) = (Instance::refusing(), Instance::saying("good"));
    let edge = Edge::serving(&[&bad, &good]);
    let mut client = edge.connect();
    for _ in 0..50 {
        assert_eq!(client.get("/").text(), "good");
    }
    // What was not sent to anyone may be sent elsewhere, whatever it is.
    for _ in 0..50 {
        let answer = client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").read();
        assert_eq!(answer.text(), "good");
    }
    assert_eq!(edge.drained().failed, 0);
}

/// As when most of a fleet is killed at once. The dead have the fewest requests in flight, and are chosen first.
#[test]
fn one_that_answers_is_found_among_many_that_refuse() {
    let (bad, good) = ([(); 12].map(|()| Instance::refusing()), Instance::saying("good"));
    let all: Vec<&Instance> = bad.iter().chain([&good]).collect();
    let edge = Edge::serving(&all);
    assert_eq!(edge.connect().get("/").text(), "good");
    let answer = edge.connect().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").read();
    assert_eq!(answer.text(), "good");
    assert_eq!(edge.drained().failed, 0);
}

/// Instances live on while there is nobody who makes sockets into them; requests wait for the next one.
#[test]
fn nobody_is_refused_because_sockets_come_a_little_later() {
    // On both ways.
    for connection in ["keep-alive", "close"] {
        let instance = Instance::saying("well");
        let edge = Edge::serving(&[&instance]);
        edge.ports().1.lock().unwrap().away = 5;
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
        assert_eq!(edge.connect().send(request).read().text(), "well");
        assert_eq!((edge.ports().1.lock().unwrap().away, edge.drained().failed), (0, 0));
    }
}

/// But not for ever. No instance is blamed for it, and none is asked in another's place: that would be no better.
#[test]
fn who_gets_no_socket_in_time_is_told_so() {
    let instances = [1, 2, 3].map(|_| Instance::saying("well"));
    for connection in ["keep-alive", "close"] {
        let edge = Edge::with(short(), 1);
        edge.serve(&[&instances[0], &instances[1], &instances[2]]);
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
        let refused = || {
            let answer = edge.connect().send(&request).read();
            assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));
        };
        edge.ports().1.lock().unwrap().away = u32::MAX;
        refused();
        edge.ports().1.lock().unwrap().away = 0;
        edge.ports().1.lock().unwrap().short = 20;
        (0..20).for_each(|_| refused());
        assert_eq!(edge.connect().send(&request).read().text(), "well");
        edge.tells("kiln_edge_refused_requests_total{cause=\"no_socket\"} 21");
        at_its_route(&edge, "kiln_refused_requests_total", "no_socket", 21);
        edge.tells("kiln_edge_retries_total 0");
        edge.tells("kiln_edge_ejections_total 0");
    }
}

#[test]
fn one_that_closes_or_resets_without_a_word() {
    let (answer, edge) = get_from(|_| {});
    assert_eq!(answer.status(), 502);
    is_counted_as(&edge, "lost");
    let (answer, edge) = get_from(|connection| {
        let stream = connection.reader.get_ref().try_clone().unwrap();
        crate::wire::Client::new(stream).reset();
    });
    assert_eq!(answer.status(), 502);
    is_counted_as(&edge, "lost");
}

#[test]
fn one_that_dies_under_a_get_is_replaced_by_another() {
    let dying = Instance::raw(|connection| drop(connection.try_read()));
    let good = Instance::saying("good");
    let edge = Edge::serving(&[&dying, &good]);
    let mut client = edge.connect();
    assert!((0..50).all(|_| client.get("/").text() == "good"));
    assert!(dying.connections() > 0);
    assert_eq!(edge.drained().failed, 0);
}

#[test]
fn one_that_talks_nonsense() {
    let (answer, edge) = get_from(|connection| write(connection, "SSH-2.0-OpenSSH_9.2\r\n\r\n"));
    assert_eq!(answer.status(), 502);
    is_counted_as(&edge, "garbage");
    assert!(answer.text().contains("HTTP"), "{}", answer.text());
}

#[test]
fn one_that_frames_its_answer_in_two_ways() {
    for framing in ["Content-Length: 3\r\nContent-Length: 4", "Content-Length: x"] {
        let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\nabcd");
        let (answer, _) = get_from(move |connection| write(connection, &head));
        assert_eq!(answer.status(), 502, "{framing}");
    }
}

#[test]
fn one_that_stops_in_the_middle_of_the_head() {
    let (answer, edge) = get_from(|connection| write(connection, "HTTP/1.1 200 OK\r\nContent-Le"));
    assert_eq!(answer.status(), 502);
    is_counted_as(&edge, "lost");
}

#[test]
fn one_that_stops_in_the_middle_of_the_body() {
    for head in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let instance = Instance::new(move |_, connection| {
            connection.send(format!("HTTP/1.1 200 OK\r\n{head}"));
            false
        });
        let edge = Edge::serving(&[&instance]);
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.read_head().unwrap();
        assert_eq!(head.status(), 200);
        assert_eq!(client.read_body(&head), None, "a cut answer must not look whole");
        let count = edge.drained();
        assert_eq!((count.served, count.failed), (1, 1));
        edge.tells("kiln_edge_spoilt_answers_total{cause=\"broken_off\"} 1");
        at_its_route(&edge, "kiln_spoilt_answers_total", "broken_off", 1);
    }
}

#[test]
fn one_that_stops_in_the_middle_is_known_to_clients_of_http_1_0_too() {
    let instance = Instance::new(move |_, connection| {
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        false
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    // For them the end of the connection is the end of the answer: it has to be a reset.
    let error = std::io::Read::read_to_end(&mut client.reader, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(edge.drained().failed, 1);
}

#[test]
fn one_that_sends_more_than_it_promised() {
    let instance = Instance::new(|_, connection| {
        // In one piece: what comes later could as well be the answer to the next request.
        connection.send(ok("whole") + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        true
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    // What nobody asked for is never given to whoever asks next.
    for n in 0..10 {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.text()), (200, "whole"), "request {n}");
    }
    edge.tells("kiln_edge_spoilt_answers_total{cause=\"overlong\"} 10");
    at_its_route(&edge, "kiln_spoilt_answers_total", "overlong", 10);
}

#[test]
fn one_that_never_comes_to_its_answer() {
    let (answer, _) = get_from(|connection| {
        let early = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(100);
        while std::io::Write::write_all(connection.reader.get_mut(), early.as_bytes()).is_ok() {}
    });
    assert_eq!(answer.status(), 502);
}

#[test]
fn one_that_hangs() {
    let instance = Instance::raw(|connection| while connection.line().is_some() {});
    let edge = Edge::with(short(), 1);
    edge.serve(&[&instance]);
    let answer = edge.connect().get("/");
    assert_eq!(answer.status(), 504);
    assert!(answer.text().contains("in time"), "{}", answer.text());
    let count = edge.drained();
    assert_eq!((count.served, count.failed), (1, 1));
    is_counted_as(&edge, "response_timeout");
}

#[test]
fn one_that_cannot_be_connected_to_in_time() {
    // A listener whose queue is full drops what comes: connecting hangs.
    let full =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&full, &any).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let address = kiln_edge::local(&full).unwrap();
    let _filler = std::net::TcpStream::connect(address).unwrap();
    let instance = Instance::at(address);
    let edge = Edge::with(short(), 1);
    edge.serve(&[&instance]);
    assert_eq!(edge.connect().get("/").status(), 504);
    assert_eq!(edge.drained().failed, 1);
    is_counted_as(&edge, "connect_timeout");
}

#[test]
fn one_that_closes_kept_connections_between_requests() {
    let instance = Instance::new(|_, connection| {
        connection.send(ok("once"));
        false
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    for _ in 0..200 {
        assert_eq!(client.get("/").text(), "once");
    }
    assert_eq!(edge.drained().failed, 0);
}

#[test]
fn a_post_that_may_have_been_carried_out_is_not_sent_again() {
    let instance = Instance::new(|request, connection| {
        if request.start.starts_with("GET") {
            connection.send(ok("kept"));
        }
        request.start.starts_with("GET")
    });
    let edge = Edge::with(Limits::default(), 1);
    edge.serve(&[&instance, &instance]);
    let mut client = edge.connect();
    assert_eq!(client.get("/").text(), "kept");
    let answer = client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").read();
    assert_eq!(answer.status(), 502);
    let posts = instance.seen().iter().filter(|r| r.start.starts_with("POST")).count();
    assert_eq!(posts, 1);
    assert_eq!(edge.drained().failed, 1);
}

/// A repeated PUT may undo what somebody else has written in between, a repeated DELETE says that there was nothing.
#[test]
fn only_what_changes_nothing_is_asked_again_when_it_may_have_been_carried_out() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"] {
        // On both ways.
        for connection in ["keep-alive", "close"] {
            let dying = [(); 4].map(|()| Instance::raw(|connection| drop(connection.try_read())));
            let edge = Edge::with(Limits::default(), 1);
            edge.serve(&dying.each_ref());
            let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
            let mut client = edge.connect();
            assert_eq!(client.send(request).read_head().unwrap().status(), 502, "{method}");
            assert_eq!(edge.drained().failed, 1);
            let asked = if ["GET", "HEAD", "OPTIONS"].contains(&method) { 3 } else { 1 };
            let reached: usize = dying.iter().map(Instance::connections).sum();
            assert_eq!(reached, asked, "instances that a {method} has reached, with {connection}");
        }
    }
}

#[test]
fn an_answer_before_the_end_of_the_upload_is_passed_on() {
    let instance = Instance::raw(|connection| {
        let _ = connection.read_head();
        connection
            .send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
        // Reads on, so that the answer is not lost to a reset.
        connection.hear_out();
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome");
    let answer = client.read();
    assert_eq!((answer.status(), answer.text()), (413, "big"));
}
