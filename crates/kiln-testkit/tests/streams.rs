//! The clients of streams against services whose faults are known.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Response;
use hyper::body::Bytes;
use kiln_testkit::load::{StreamKind, StreamPlan, StreamReport, Streams};
use sha1::{Digest, Sha1};

/// A service that answers the first request of each connection with `answer(head)`, and closes in peace.
fn service(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            thread::spawn(move || {
                let (mut stream, mut head) = (BufReader::new(stream.unwrap()), String::new());
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).is_ok_and(|n| n > 0) {}
                let _ = stream.get_mut().write_all(&answer(&head));
                let _ = stream.get_ref().shutdown(std::net::Shutdown::Write);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    address
}

/// How it goes until some have ended.
fn run(address: SocketAddr, kind: StreamKind) -> StreamReport {
    let plan = StreamPlan { address, host: "a".into(), kinds: vec![kind], clients_of_each: 1 };
    let streams = Streams::start(plan);
    wait_for(&streams, 3);
    streams.stop()
}

/// Waits until so many have ended.
fn wait_for(streams: &Streams, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let ended = |report: StreamReport| report.whole() as usize + report.failures().len();
    while ended(streams.so_far()) < count {
        assert!(Instant::now() < deadline, "{:?}", streams.so_far());
        thread::park_timeout(Duration::from_millis(1));
    }
}

fn assert_fails(address: SocketAddr, kind: StreamKind, seen: &str) {
    let report = run(address, kind);
    assert_eq!(report.whole(), 0, "{seen}");
    assert!(report.failures().iter().all(|what| what.contains(seen)), "{seen}: {:?}", report.failures());
}

fn assert_whole(address: SocketAddr, kind: StreamKind) {
    let report = run(address, kind);
    assert_eq!(report.failures(), Vec::<String>::new());
}

fn events() -> StreamKind {
    StreamKind::Events { path: "/".into(), events: 2 }
}

fn websocket() -> StreamKind {
    StreamKind::Websocket { path: "/".into(), messages: 1, pace: Duration::ZERO }
}

#[test]
fn events_end_after_the_last_one_or_were_cut() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let first = "9\r\ndata: 0\n\n\r\n";
    for (rest, seen) in [
        ("", "closed after 1 of 2 events"),
        ("0\r\n\r\n", "an end after 1 of 2 events"),
        ("9\r\ndata: 2\n\n\r\n0\r\n\r\n", "an end after 2 of 2 events, or others"),
        ("9\r\ndata: 1\n\n\r\n", "closed after 2 of 2 events"),
    ] {
        assert_fails(service(move |_| format!("{head}{first}{rest}").into()), events(), seen);
    }
    assert_whole(service(move |_| format!("{head}{first}9\r\ndata: 1\n\n\r\n0\r\n\r\n").into()), events());
    assert_fails(service(|_| b"HTTP/1.1 502 Bad Gateway\r\n\r\n".into()), events(), "answered 502");
}

/// The answer to a handshake, and what is said at once.
fn hands(head: &str, said: &[u8]) -> Vec<u8> {
    let key = head.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
    let accepted = STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    [format!("{head}Sec-WebSocket-Accept: {accepted}\r\n\r\n").as_bytes(), said].concat()
}

#[test]
fn a_conversation_ends_with_a_goodbye_from_both_sides_or_was_cut() {
    let (tick, message, goodbye) = (b"\x81\x06tick 0", b"\x81\x09message 0", b"\x88\x02\x03\xe8");
    let all = || [&tick[..], message, goodbye];
    assert_whole(service(move |head| hands(head, &all().concat())), websocket());
    for (said, seen) in [
        (all()[..0].concat(), "closed after 0 of 1 messages"),
        (all()[..2].concat(), "closed instead of the other's goodbye"),
        (all()[1..].concat(), "the service said nothing of itself"),
        ([tick, &tick[..]].concat(), "\"tick 0\" instead of \"tick 1\" after 0 of 1 messages"),
        (b"\x88\x02\x03\xe9".to_vec(), "a goodbye with code 1001 after 0 of 1 messages"),
        ([&tick[..], message, b"\x88\x02\x03\xe9"].concat(), "code 1001 instead of the other's goodbye"),
        ([&all().concat()[..], b"x"].concat(), "1 bytes behind the end"),
    ] {
        assert_fails(service(move |head| hands(head, &said)), websocket(), seen);
    }
    let another = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n";
    assert_fails(service(move |_| another.into()), websocket(), "was accepted with Some(\"x\") instead of");
}

#[test]
fn transfers_are_whole_or_were_cut() {
    let download = || StreamKind::Download { path: "/".into(), bytes: 10 };
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{body}").into_bytes();
    assert_whole(service(move |_| answer("0123456789")), download());
    assert_fails(service(move |_| answer("01234")), download(), "closed after 5 of 10 bytes");
    let shorter = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    assert_fails(service(move |_| shorter.into()), download(), "2 bytes instead of 10");
    let upload = || StreamKind::Upload { path: "/".into(), bytes: 10, takes: Duration::ZERO };
    assert_whole(service(move |_| shorter.into()), upload());
    assert_fails(service(|_| "HTTP/1.1 503 Busy\r\n\r\n".into()), upload(), "answered 503");
    assert_fails(service(|_| Vec::new()), upload(), "closed before the end of the head");
}

/// What a service of HTTP/2 does with a download that is asked for.
#[derive(Clone, Copy)]
enum Long {
    Whole,
    /// Cut in the middle.
    Reset,
    /// With a word to all later requests to come over another connection.
    GoAway,
    /// The connection ends in the middle.
    Close,
}

fn h2c(long: Long) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, long));
            }
        });
    });
    address
}

async fn serve(stream: tokio::net::TcpStream, long: Long) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut answer))) = connection.accept().await {
        let mut body = answer.send_response(Response::new(()), false).unwrap();
        match (request.uri().path(), long) {
            ("/long", Long::Reset) => {
                body.send_data(Bytes::from_static(b"half"), false).unwrap();
                // When that has been sent.
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    body.send_reset(h2::Reason::INTERNAL_ERROR);
                });
                continue;
            }
            ("/long", Long::Close) => {
                body.send_data(Bytes::from_static(b"half"), false).unwrap();
                let sending = async { while connection.accept().await.is_some() {} };
                let _ = tokio::time::timeout(Duration::from_millis(50), sending).await;
                return;
            }
            ("/long", Long::GoAway) => connection.graceful_shutdown(),
            _ => {}
        }
        body.send_data(Bytes::from_static(b"all of it."), true).unwrap();
    }
}

#[test]
fn streams_of_http2_are_whole_or_declined_or_were_cut() {
    let kind = || StreamKind::Http2 { long: "/long".into(), bytes: 10, short: "/".into() };
    assert_whole(h2c(Long::Whole), kind());
    assert_whole(h2c(Long::GoAway), kind());
    for long in [Long::Reset, Long::Close] {
        let report = run(h2c(long), kind());
        let (losses, failures) = (report.losses(), report.failures());
        assert!(losses.len() == 1 && losses[0].contains(" HTTP/2, the first at "), "{losses:?}");
        assert!(failures.iter().any(|what| what.contains("GET /long: cut after 4 bytes")), "{failures:?}");
    }
}

#[test]
fn nothing_is_under_way_while_there_is_to_be_none() {
    let address = service(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec());
    let kinds = vec![StreamKind::Upload { path: "/".into(), bytes: 10, takes: Duration::from_millis(30) }];
    let streams = Streams::start(StreamPlan { address, host: "a".into(), kinds, clients_of_each: 4 });
    let counts = || streams.so_far().by_kind.get("uploads").cloned().unwrap_or_default();
    for round in 1..=10 {
        wait_for(&streams, 4 * round);
        streams.without(|| {
            let (first, _) = (counts(), thread::park_timeout(Duration::from_millis(10)));
            assert_eq!(first.begun, first.whole);
            assert_eq!(counts(), first);
        });
    }
    assert_eq!(streams.stop().failures(), Vec::<String>::new());
}
