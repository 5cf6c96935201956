//! What comes first on a connection, in pieces or not to its end.

use std::io::Read;
use std::time::Duration;

use kiln_edge::{EdgeSettings, Limits, Trust};

use crate::frames::{PREFACE, SETTINGS, frame};
use crate::harness::Edge;
use crate::instance::{Instance, ok};
use crate::wire::Client;

/// Nobody is given up in the course of a test.
fn patient() -> Limits {
    Limits { header_read: Duration::from_secs(600), ..Limits::default() }
}

fn behind_a_balancer() -> EdgeSettings {
    let trust = Trust(vec!["127.0.0.0/8".parse().unwrap()]);
    EdgeSettings { trust, proxy_headers: true, ..EdgeSettings::default() }
}

/// The end behind bytes that say too little is seen as well, and at once.
#[test]
fn who_leaves_in_the_middle_of_the_first_word_has_left() {
    let words = ["P", "PRI * HTTP/2.0\r\n", "G"].map(|word| (word, EdgeSettings::default()));
    let headers =
        ["PROXY TCP4 192.0.2.7", "\r\n\r\n\0\r\nQUIT\n\x21"].map(|word| (word, behind_a_balancer()));
    for (word, settings) in words.into_iter().chain(headers) {
        let edge = Edge::with_settings(patient(), 1, settings);
        edge.serve(&[&Instance::saying("hi")]);
        let mut client = edge.connect();
        client.send(word).half_close();
        let ended = client.reader.read(&mut [0]);
        assert_eq!(ended.expect("an end, in time"), 0, "{word:?}");
    }
}

/// Sends each byte by itself.
fn drip(client: &mut Client, bytes: impl AsRef<[u8]>) {
    for byte in bytes.as_ref() {
        client.send([*byte]);
    }
}

#[test]
fn a_first_word_in_pieces_is_what_it_is_as_a_whole() {
    let instance = Instance::new(|request, connection| {
        connection.send(ok(&format!("{} {}", request.start, request.text())));
        true
    });
    let edge = Edge::with_settings(patient(), 2, EdgeSettings::default());
    edge.serve(&[&instance]);
    for _ in 0..20 {
        let mut client = edge.connect();
        drip(&mut client, "PRIVATE / HTTP/1.1\r\nHost: a\r\nX-Written: So\r\n");
        client.send("Content-Length: 2\r\n\r\nhi");
        assert_eq!(client.read().text(), "PRIVATE / HTTP/1.1 hi");
        assert_eq!(client.get("/next").text(), "GET /next HTTP/1.1 ");
    }
    // It was an ordinary request all the same: names of fields are as they were written.
    let seen = instance.seen();
    assert!(
        seen.iter().step_by(2).all(|request| request.headers.iter().any(|(name, _)| name == "X-Written"))
    );
}

#[test]
fn http_2_may_begin_in_pieces() {
    let edge = Edge::with_settings(patient(), 2, EdgeSettings::default());
    edge.serve(&[&Instance::saying("hi")]);
    for _ in 0..20 {
        let mut client = edge.connect();
        drip(&mut client, PREFACE);
        client.send(frame(SETTINGS, 0, 0, &[]));
        let mut head = [0; 9];
        client.reader.read_exact(&mut head).unwrap();
        assert_eq!(head[3], SETTINGS, "{head:?}");
    }
}

#[test]
fn a_header_of_a_balancer_may_come_in_pieces() {
    let edge = Edge::with_settings(patient(), 2, behind_a_balancer());
    let instance = Instance::saying("hi");
    edge.serve(&[&instance]);
    for _ in 0..20 {
        let mut client = edge.connect();
        drip(&mut client, "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nPOST");
        client.send(" / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.read().text(), "hi");
    }
    assert!(instance.seen().iter().all(|m| m.header("x-forwarded-for") == Some("192.0.2.7")));
}

/// Nobody knows who asks then: the balancer does not ask itself, and its word is not what is heard.
#[test]
fn whom_a_balancer_does_not_know_is_not_believed() {
    let edge = Edge::with_settings(patient(), 1, behind_a_balancer());
    let instance = Instance::saying("hi");
    edge.serve(&[&instance]);
    let v2 =
        |command: u8, family: u8| [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family, 0, 0][..]].concat();
    let unknown = b"PROXY UNKNOWN\r\n".to_vec();
    for (header, chain) in [
        (unknown, "127.0.0.1"),
        (v2(1, 0), "127.0.0.1"),
        (v2(1, 0x31), "127.0.0.1"),
        (v2(1, 0x12), "127.0.0.1"),
        // It speaks for itself.
        (v2(0, 0), "6.6.6.6, 127.0.0.1"),
    ] {
        let mut client = edge.connect();
        client.send(&header).send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n");
        assert_eq!(client.read().text(), "hi");
        let seen = instance.seen().pop().unwrap();
        assert_eq!(seen.header("x-forwarded-for"), Some(chain), "{header:?}");
    }
}
