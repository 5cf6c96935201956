//! Streams whose fleet's time is up: websockets are told that it goes away, events just end.

use kiln_edge::Limits;
use kiln_model::EdgeCounts;

use crate::harness::{Edge, route};
use crate::instance::Instance;
use crate::wire::{Client, Message};

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Switches to websockets and sends this; tells what it hears at the end.
fn talking(bytes: &'static [u8]) -> (Instance, std::sync::mpsc::Receiver<Vec<u8>>) {
    answering(0, bytes)
}

/// The same, which waits until it has heard so many bytes; they are not told.
fn answering(heard_first: usize, bytes: &'static [u8]) -> (Instance, std::sync::mpsc::Receiver<Vec<u8>>) {
    let (heard, hear) = std::sync::mpsc::channel();
    let heard = std::sync::Mutex::new(heard);
    let instance = Instance::raw(move |connection| {
        connection.read_head();
        connection
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        std::io::Read::read_exact(&mut connection.reader, &mut vec![0; heard_first]).unwrap();
        connection.send(bytes);
        let mut all = Vec::new();
        let _ = std::io::Read::read_to_end(&mut connection.reader, &mut all);
        let _ = heard.lock().unwrap().send(all);
    });
    (instance, hear)
}

fn retire(edge: &Edge) -> EdgeCounts {
    edge.set(vec![route(None, "/", &[])], vec![])
}

fn rest(client: &mut Client) -> Vec<u8> {
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut client.reader, &mut rest).expect("an end, and no reset");
    rest
}

fn opened(edge: &Edge) -> (Client, Message) {
    let mut client = edge.connect();
    client.send(UPGRADE);
    let head = client.read_head().unwrap();
    assert_eq!(head.status(), 101);
    (client, head)
}

#[test]
fn both_sides_of_a_websocket_are_told_that_it_goes_away() {
    let (instance, heard) = talking(b"\x81\x05hello");
    let edge = Edge::serving(&[&instance]);
    let (mut client, _) = opened(&edge);
    let mut frame = [0; 7];
    std::io::Read::read_exact(&mut client.reader, &mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x05hello");
    let counts = retire(&edge);
    assert_eq!((counts.gone[0].in_flight, counts.gone[0].cut, counts.gone[0].failed), (0, 1, 0));
    assert_eq!(rest(&mut client), b"\x88\x02\x03\xe9", "1001");
    let heard = heard.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    assert_eq!(heard, b"\x88\x82\0\0\0\0\x03\xe9");
}

/// Bytes of a protocol that the client does not speak are none for the client, and those after a 101 that nobody asked
/// for are no HTTP.
#[test]
fn an_instance_that_goes_over_to_something_else_has_not_answered() {
    let asking = |protocol: &str| format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\n");
    for (asked, switches, status) in [
        (asking("websocket"), asking("foo"), 502),
        (asking("websocket"), asking("websocket, foo"), 502),
        (asking("websocket"), "Connection: Upgrade\r\n".into(), 502),
        // Nobody asked, on both ways.
        (String::new(), asking("websocket"), 502),
        ("Connection: close\r\n".into(), asking("websocket"), 502),
        (asking("foo, websocket"), asking("WebSocket"), 101),
        (asking("foo/1"), asking("foo/1"), 101),
    ] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{switches}\r\n");
        let instance = Instance::raw(move |connection| {
            connection.read_head();
            connection.send(&answer);
            while connection.line().is_some() {}
        });
        let edge = Edge::serving(&[&instance]);
        let mut client = edge.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{asked}\r\n"));
        assert_eq!(client.read_head().unwrap().status(), status, "{asked:?} {switches:?}");
        drop(client);
        let (class, failed) = if status == 101 { ("1xx", 0) } else { ("5xx", 1) };
        assert_eq!(edge.drained().failed, failed);
        edge.tells(&format!("kiln_edge_refused_requests_total{{cause=\"garbage\"}} {failed}"));
        let told = edge.client.metrics().unwrap();
        let counted = told.lines().find(|l| l.starts_with("kiln_requests_total") && l.ends_with(" 1"));
        assert!(counted.is_some_and(|line| line.contains(class)), "{asked:?} {switches:?}\n{told}");
    }
}

/// What a connection has become is still its client's.
#[test]
fn tunnels_are_among_the_connections_that_one_client_may_have() {
    let (instance, _heard) = talking(b"");
    let edge = Edge::with(Limits { client_connections: 2, ..Limits::default() }, 1);
    edge.serve(&[&instance]);
    let (first, second) = (opened(&edge), opened(&edge));
    assert!(edge.connect().is_at_end());
    edge.tells("kiln_edge_refused_connections_total{cause=\"too_many\"} 1");
    drop(first);
    edge.tells("kiln_edge_connections 1");
    drop(opened(&edge));
    drop(second);
}

#[test]
fn a_websocket_in_the_middle_of_a_message_is_not_lied_to() {
    // A frame of ten bytes of which six ever come: a goodbye now would be taken for the other four.
    let (instance, _heard) = talking(b"\x81\x0asixsix");
    let edge = Edge::serving(&[&instance]);
    let (mut client, _) = opened(&edge);
    let mut frame = [0; 8];
    std::io::Read::read_exact(&mut client.reader, &mut frame).unwrap();
    assert_eq!(retire(&edge).gone[0].in_flight, 0);
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client.reader, &mut rest);
    assert_eq!(rest, b"");
}

/// What it has begun to say is no reason not to tell it why it cannot go on.
#[test]
fn a_client_in_the_middle_of_a_message_is_told_that_it_goes_away() {
    let (instance, hear) = answering(8, b"\x81\x05hello");
    let edge = Edge::serving(&[&instance]);
    let (mut client, _) = opened(&edge);
    // Two bytes of ten.
    client.send(b"\x81\x8a\0\0\0\0be");
    std::io::Read::read_exact(&mut client.reader, &mut [0; 7]).unwrap();
    assert_eq!(retire(&edge).gone[0].in_flight, 0);
    assert_eq!(rest(&mut client), b"\x88\x02\x03\xe9", "1001");
    // The instance would take it for the message.
    assert_eq!(hear.recv_timeout(std::time::Duration::from_secs(10)).unwrap(), b"");
}

#[test]
fn a_websocket_whose_instance_has_died_is_not_in_flight_for_ever() {
    let instance = Instance::raw(|connection| {
        connection.read_head();
        connection
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    });
    let edge = Edge::serving(&[&instance]);
    let (mut client, _) = opened(&edge);
    assert_eq!(rest(&mut client), b"");
    // The client does not close.
    let count = edge.drained();
    assert_eq!((count.served, count.failed), (1, 0));
    drop(client);
}

#[test]
fn a_stream_of_events_just_ends() {
    let instance = Instance::raw(|connection| {
        connection.read_head();
        connection
            .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.send("9\r\ndata: x\n\n\r\n");
        while connection.line().is_some() {}
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_head().unwrap();
    assert_eq!(client.chunk().unwrap().unwrap(), b"data: x\n\n");
    let counts = retire(&edge);
    assert_eq!((counts.gone[0].in_flight, counts.gone[0].cut, counts.gone[0].failed), (0, 1, 0));
    assert_eq!(client.chunk(), Some(None), "its end, as if the instance had ended it");
    // The connection is as good as before.
    assert_eq!(client.get("/").status(), 503);
}

#[test]
fn a_download_that_is_cut_does_not_look_whole() {
    let instance = Instance::raw(|connection| {
        connection.read_head();
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        while connection.line().is_some() {}
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_head().unwrap();
    assert_eq!(client.chunk().unwrap().unwrap(), b"half");
    let counts = retire(&edge);
    assert_eq!((counts.gone[0].in_flight, counts.gone[0].cut, counts.gone[0].failed), (0, 1, 1));
    assert_eq!(client.chunk(), None);
}
