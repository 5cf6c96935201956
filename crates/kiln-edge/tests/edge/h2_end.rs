//! How a connection of HTTP/2 ends, frame by frame.

use std::io::{Read, Write};

use crate::frames::{DATA, GET, GOAWAY, HEADERS, PING, WINDOW_UPDATE, connect, frame, next};
use crate::harness::Edge;
use crate::instance::Instance;

/// A client that has not read everything yet says meanwhile what it has read. If that met a closed socket it would be told
/// of a reset, and answers that were given would be lost on it.
#[test]
fn who_is_told_to_leave_may_finish_speaking() {
    let mut edge = Edge::serving(&[&Instance::saying("hi")]);
    let mut client = connect(edge.address);
    client.write_all(&frame(HEADERS, 5, 1, &GET)).unwrap();
    while next(&mut client).expect("an answer").0 != DATA {}
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
