//! Clients of HTTP/2 who ask too much of the edge are stopped, and counted, frame by frame.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::frames::{DATA, GET, GOAWAY, HEADERS, connect, frame, next};
use crate::harness::Edge;
use crate::instance::Instance;

const CONTINUATION: u8 = 9;
const RST_STREAM: u8 = 3;
/// Flags of frames of heads.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// As much as a frame takes.
const FRAME: usize = 16 * 1024;

/// A request with a field of this length, in as many frames as that takes.
fn large(length: usize) -> Vec<u8> {
    let rest = length - 127;
    let size = [0x7f, rest as u8 | 0x80, (rest >> 7) as u8 | 0x80, (rest >> 14) as u8];
    // A literal field that is not to be remembered, named `x`, whose value is not compressed.
    let head = [&GET[..], &[0, 1, b'x'], &size[..], &vec![b'y'; length]].concat();
    let pieces: Vec<&[u8]> = head.chunks(FRAME).collect();
    let last = pieces.len() - 1;
    let framed = pieces.iter().enumerate().map(|(n, piece)| {
        let (kind, flags) = if n == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        frame(kind, flags | if n == last { END_HEADERS } else { 0 }, 1, piece)
    });
    framed.collect::<Vec<_>>().concat()
}

/// The kinds of the frames that come until one of this kind does, or until the end.
fn heard_until(client: &mut TcpStream, kind: u8) -> Option<Vec<u8>> {
    loop {
        let (heard, _, payload) = next(client)?;
        if heard == kind {
            return Some(payload);
        }
    }
}

#[test]
fn heads_that_are_too_large_are_counted() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    for (count, length) in (1..).zip([70_000, 120_000]) {
        let mut client = connect(edge.address);
        client.write_all(&large(length)).unwrap();
        assert!(heard_until(&mut client, HEADERS).is_some(), "an answer to {length}");
        edge.tells(&format!("kiln_edge_refused_requests_total{{cause=\"too_many_fields\"}} {count}"));
        edge.tells(&format!("kiln_edge_requests_total {count}"));
    }
    // One that is allowed is not among them.
    let mut client = connect(edge.address);
    client.write_all(&large(60_000)).unwrap();
    assert!(heard_until(&mut client, HEADERS).is_some());
    edge.tells("kiln_edge_requests_total 3");
    edge.tells("kiln_edge_refused_requests_total{cause=\"too_many_fields\"} 2");
}

#[test]
fn who_is_told_to_be_calm_is_counted() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    // More streams given up at once than are taken in.
    let mut client = connect(edge.address);
    let rapid = (1..).step_by(2).take(60).map(|stream| {
        let head = frame(HEADERS, END_STREAM | END_HEADERS, stream, &GET);
        [head, frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
    });
    client.write_all(&rapid.collect::<Vec<_>>().concat()).unwrap();
    assert!(heard_until(&mut client, GOAWAY).unwrap().ends_with(b"too_many_resets"));
    drop(client);
    edge.tells("kiln_edge_refused_connections_total{cause=\"excessive\"} 1");
    // A head without an end.
    let mut client = connect(edge.address);
    client.write_all(&large(400_000)).unwrap();
    assert!(heard_until(&mut client, GOAWAY).unwrap().ends_with(b"too_many_continuations"));
    drop(client);
    edge.tells("kiln_edge_refused_connections_total{cause=\"excessive\"} 2");
}

#[test]
fn what_is_no_http_2_is_counted_and_who_just_goes_is_not() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let mut client = connect(edge.address);
    client.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &GET)).unwrap();
    assert!(heard_until(&mut client, HEADERS).is_some());
    drop(client);
    let mut client = connect(edge.address);
    // The end of a head that has not begun.
    client.write_all(&frame(CONTINUATION, END_HEADERS, 1, &GET)).unwrap();
    assert!(heard_until(&mut client, GOAWAY).is_some());
    drop(client);
    edge.tells("kiln_edge_refused_connections_total{cause=\"malformed\"} 1");
    edge.tells("kiln_edge_connections 0");
    edge.tells("kiln_edge_refused_connections_total{cause=\"malformed\"} 1");
    edge.tells("kiln_edge_refused_connections_total{cause=\"excessive\"} 0");
}

/// A body that is longer or shorter than its head says ends its stream, and never looks whole.
#[test]
fn a_body_of_another_length_than_its_head_says_is_reset() {
    let (told, tells) = std::sync::mpsc::channel();
    let instance = Instance::raw(move |connection| {
        connection.read_head();
        let mut body = Vec::new();
        let _ = connection.reader.read_to_end(&mut body);
        told.send(body.len()).unwrap();
    });
    let edge = Edge::serving(&[&instance]);
    // POST http://a/ with `content-length: 5`.
    let head = [&[0x83, 0x86, 0x84, 0x41, 1, b'a'][..], &[0x0f, 0x0d, 1, b'5']].concat();
    for (n, body) in [&b"ab"[..], b"abcdefgh"].into_iter().enumerate() {
        let mut client = connect(edge.address);
        client.write_all(&frame(HEADERS, END_HEADERS, 1, &head)).unwrap();
        client.write_all(&frame(DATA, END_STREAM, 1, body)).unwrap();
        const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
        assert_eq!(heard_until(&mut client, RST_STREAM).unwrap(), PROTOCOL_ERROR);
        edge.tells(&format!("kiln_edge_refused_requests_total{{cause=\"client_left\"}} {}", n + 1));
        // It may not have been connected to at all.
        while let Ok(length) = tells.try_recv() {
            assert!(length < 5, "{length} bytes");
        }
    }
    edge.drained();
}
