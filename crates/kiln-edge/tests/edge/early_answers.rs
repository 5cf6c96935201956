//! Answers that come before the request has: who writes on meanwhile has to get them all the same.

use std::convert::Infallible;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame};
use kiln_edge::Limits;

use crate::h2;
use crate::harness::{Edge, route};
use crate::instance::Instance;
use crate::tls::Authority;
use crate::wire::Client;

/// More than the buffers on the way take.
const MUCH: usize = 8 * 1024 * 1024;

/// Writes `head` and much behind it, and only then reads: status and `Connection` of the answer, which is followed by the
/// end, and not by a reset.
fn answered(client: &mut Client, head: &str) -> (u16, Option<String>) {
    client.send(head);
    client.send(vec![b'x'; MUCH]);
    let answer = client.read();
    let rest = client.reader.read(&mut [0; 16]);
    assert_eq!(rest.unwrap(), 0, "the end, after {}", answer.start);
    (answer.status(), answer.header("connection").map(str::to_owned))
}

fn close(status: u16) -> (u16, Option<String>) {
    (status, Some("close".into()))
}

/// The head of a request with a long body to follow.
fn upload(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n\r\n")
}

#[test]
fn who_is_refused_in_the_middle_of_an_upload_learns_why() {
    let edge = Edge::start();
    let (busy, nobody) = (edge.fleet(1, &[&Instance::saying("hi")]), edge.fleet(2, &[]));
    let routes = vec![route(None, "/here", &[(&busy.id, 1)]), route(None, "/empty", &[(&nobody.id, 1)])];
    edge.set(routes, vec![busy, nobody]);
    assert_eq!(answered(&mut edge.connect(), &upload("/elsewhere")), close(404));
    assert_eq!(answered(&mut edge.connect(), &upload("/empty")), close(503));
    let chunked = "POST /elsewhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(answered(&mut edge.connect(), &format!("{chunked}{MUCH:x}\r\n")), close(404));
    let twice = "POST /here HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(answered(&mut edge.connect(), twice), close(400));
}

#[test]
fn what_cannot_be_read_is_told_so_to_who_goes_on_writing_it() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    assert_eq!(answered(&mut edge.connect(), "GET  / HTTP/1.1\r\nHost: a\r\n\r\n").0, 400);
    assert_eq!(answered(&mut edge.connect(), "GET / HTTP/1.1\r\nHost: a\r\nX: ").0, 431);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n";
    assert_eq!(answered(&mut edge.connect(), chunked).0, 400);
}

#[test]
fn an_instance_may_answer_before_the_end_of_an_upload() {
    let instance = Instance::raw(|connection| {
        let _ = connection.read_head();
        connection.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
        connection.hear_out();
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    // The rest waits for the answer: an instance that reads quickly might have heard everything before it is passed on.
    client.send(upload("/")).send(vec![b'x'; MUCH / 2]);
    let answer = client.read();
    assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")));
    client.send(vec![b'x'; MUCH / 2]);
    assert_eq!(client.reader.read(&mut [0; 16]).unwrap(), 0, "the end, and no reset");
    edge.drained();
}

/// An instance that closes with an upload unread resets the connection. What it has said before is there all the same.
#[test]
fn an_early_answer_survives_the_reset_behind_it() {
    let instance = Instance::raw(|connection| {
        let _ = connection.read_head();
        connection.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig");
    });
    let edge = Edge::serving(&[&instance]);
    for _ in 0..100 {
        assert_eq!(answered(&mut edge.connect(), &upload("/")), close(413));
    }
    edge.drained();
}

#[test]
fn a_client_that_was_too_slow_may_be_quick_afterwards() {
    let limits = Limits { response_head: Duration::from_millis(60), ..Limits::default() };
    let edge = Edge::with(limits, 1);
    edge.serve(&[&Instance::saying("hi")]);
    let mut client = edge.connect();
    client.send(upload("/"));
    edge.tells("kiln_edge_refused_requests_total{cause=\"client_too_slow\"} 1");
    assert_eq!(answered(&mut client, ""), close(408));
}

#[test]
fn the_same_over_tls() {
    let edge = Edge::start();
    edge.set(vec![], vec![]);
    let authority = Authority::new();
    edge.client.set_certificates(&[authority.certify(&["a.example.com"])]).unwrap();
    let mut stream = authority.connect(&edge, "a.example.com");
    stream.write_all(upload("/").as_bytes()).unwrap();
    stream.write_all(&vec![b'x'; MUCH]).unwrap();
    let mut answer = String::new();
    BufReader::new(&mut stream).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404") && answer.ends_with("takes this host and path\n"), "{answer}");
}

/// There is an end to it, for who never stops and for who never goes.
#[test]
fn nobody_is_listened_to_for_ever() {
    let edge = Edge::start();
    edge.set(vec![], vec![]);
    let mut endless = TcpStream::connect(edge.address).unwrap();
    let silent = TcpStream::connect(edge.address).unwrap();
    for client in [&endless, &silent] {
        let mut client = client;
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n").unwrap();
    }
    let ended = (0..1024).find_map(|_| endless.write_all(&vec![b'x'; 1 << 20]).err());
    let ended = ended.expect("an end after a gigabyte").kind();
    assert!(matches!(ended, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{ended:?}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while edge.client.stats().unwrap().connections > 0 {
        assert!(Instant::now() < deadline, "somebody is listened to who says nothing");
        std::thread::yield_now();
    }
    drop(silent);
}

/// A body of which nothing follows.
struct Unfinished(Option<Bytes>);

impl Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

/// Whoever has his answer and sends nothing more of his request holds no connection to an instance for ever.
#[test]
fn what_follows_an_early_answer_and_does_not_come_is_given_up() {
    let (ended, ends) = std::sync::mpsc::channel();
    let instance = Instance::raw(move |connection| {
        let _ = connection.read_head();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        connection.hear_out();
        let _ = ended.send(());
    });
    let edge = Edge::with(Limits { response_head: Duration::from_millis(200), ..Limits::default() }, 1);
    let fleet = edge.fleet(1, &[&instance]);
    edge.set(vec![route(None, "/", &[(&fleet.id, 1)])], vec![fleet]);
    let soon = Duration::from_secs(20);

    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nsome of it");
    assert_eq!(client.read().status(), 200);
    ends.recv_timeout(soon).expect("the instance hears the end of it");

    h2::block_on(async {
        let (mut sender, _driver) = h2::connect(edge.address).await;
        let body = Unfinished(Some("some of it".into())).boxed();
        let request = hyper::Request::post("http://example.com/").body(body).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        tokio::task::spawn_blocking(move || ends.recv_timeout(soon)).await.unwrap().expect("its end");
    });
}
