//! How a connection of HTTP/2 ends, frame by frame.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::Edge;
use crate::instance::Instance;

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// The kind, the flags and the payload of the next frame; none at the end.
fn next(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], payload))
}

/// A client that has not read everything yet says meanwhile what it has read. If that met a closed socket it would be told
/// of a reset, and answers that were given would be lost on it.
#[test]
fn who_is_told_to_leave_may_finish_speaking() {
    let mut edge = Edge::serving(&[&Instance::saying("hi")]);
    let mut client = TcpStream::connect(edge.address).unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    client.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    // GET http://a/
    client.write_all(&frame(1, 5, 1, &[0x82, 0x84, 0x86, 0x41, 1, b'a'])).unwrap();
    while next(&mut client).expect("an answer").0 != 0 {}
    let old = edge.succeed();
    let mut told = 0;
    while let Some((kind, flags, payload)) = next(&mut client) {
        match kind {
            GOAWAY => told += 1,
            PING if flags == 0 => client.write_all(&frame(PING, 1, 0, &payload)).unwrap(),
            _ => {}
        }
    }
    assert_eq!(told, 2, "that it is to leave, and from where on");
    for _ in 0..3 {
        client.write_all(&frame(WINDOW_UPDATE, 0, 0, &2u32.to_be_bytes())).unwrap();
        assert_eq!(client.read(&mut [0; 9]).unwrap(), 0, "the end, and no reset");
    }
    drop(client);
    old.join().unwrap().unwrap();
}
