//! Requests that try to be understood in two ways, sent to the edge, to a plain hyper server and to haproxy: whoever
//! passes one on must mean by it what the others mean.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::harness::Edge;
use crate::instance::{Instance, ok};

/// Asks for the end of the connection, so that whoever has understood it ends it.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Heads and bodies; what follows each is a request that must never arrive as part of it or instead of it.
fn corpus() -> Vec<String> {
    let mut all = Vec::new();
    let framings = [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding:\u{b}chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:chunked\r\n\u{20}foo",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "transfer-encoding: CHUNKED",
        "Transfer_Encoding: chunked",
        "Transfer-Encoding\0: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 ",
        "Content-Length: 5\u{b}",
        "Content-Length: 99999999999999999999",
        "Content-Length: 5e0",
        "Content-Length:",
        "Content_Length: 5",
        "Connection: Content-Length\r\nContent-Length: 5",
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nContent-Length: 5",
        "Expect: 100-continue\r\nContent-Length: 5",
    ];
    // An empty line before a request is allowed, and must not hide it.
    for (framing, before) in framings.into_iter().flat_map(|framing| [(framing, ""), (framing, "\r\n")]) {
        all.push(format!("{before}POST /first HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n0\r\n\r\n{NEXT}"));
    }
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "5;ext=\"\r\n\r\n\"\r\nhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "05\r\nhello\r\n00\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
        "5\r\nhello\r\n0\r\n \r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
    ] {
        all.push(format!(
            "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{NEXT}"
        ));
    }
    for start in [
        "GET /first HTTP/1.1\nHost: a\n\n",
        "GET /first HTTP/1.1\r\nHost: a\r\n\n",
        "GET /first\r\n\r\n",
        "GET /first HTTP/0.9\r\n\r\n",
        "GET /first HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET /first HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET /first HTTP/1.1 x\r\nHost: a\r\n\r\n",
        "GET\t/first\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /first HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET http://b/first HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /first#x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /fi\0rst HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /first HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET /first HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
        "\r\n\r\nGET /first HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /first HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HEAD /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "GET /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        all.push(format!("{start}{NEXT}"));
    }
    all
}

/// What somebody makes of bytes: the requests it sees in them, in order, each with the length of its body.
type Meaning = Vec<String>;

/// Sends `bytes` and waits until there is nothing more to come.
fn send(address: SocketAddr, bytes: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // One who has refused it already may have closed.
    let _ = stream.write_all(bytes.as_bytes());
    if stream.read_to_end(&mut Vec::new()).is_err() {
        // It waits for more. Only now is it told that there is none: the end might make it forget what it has.
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// An instance that notes what it is asked.
fn noting() -> (Instance, Arc<Mutex<Meaning>>) {
    let noted = Arc::<Mutex<Meaning>>::default();
    let notes = noted.clone();
    let instance = Instance::new(move |request, connection| {
        let path = request.start.split(' ').nth(1).unwrap_or_default().to_owned();
        notes.lock().unwrap().push(format!("{path} {}", request.body.len()));
        let head = request.start.starts_with("HEAD");
        connection.send(if head { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".into() } else { ok("ok") });
        true
    });
    (instance, noted)
}

/// A server of hyper and nothing else.
fn plain_hyper() -> (SocketAddr, Arc<Mutex<Meaning>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let noted = Arc::<Mutex<Meaning>>::default();
    let notes = noted.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let notes = notes.clone();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let notes = notes.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        if let Ok(body) = request.into_body().collect().await {
                            notes.lock().unwrap().push(format!("{path} {}", body.to_bytes().len()));
                        }
                        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                    }
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    (address, noted)
}

struct Haproxy {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Haproxy {
    /// None where it is not installed: `cargo xtask setup` does that.
    fn before(instance: &Instance) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "global\n  maxconn 100\ndefaults\n  mode http\n  timeout client 10s\n  timeout server 10s\n  timeout connect 5s\n\
             frontend f\n  bind {address}\n  default_backend b\nbackend b\n  server s {}\n",
            instance.address
        );
        let path = dir.path().join("haproxy.cfg");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        while TcpStream::connect(address).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "haproxy ended");
            std::thread::yield_now();
        }
        Some(Self { child, address, _dir: dir })
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_edge_passes_on_only_what_others_understand_in_the_same_way() {
    let (instance, seen_behind_edge) = noting();
    let edge = Edge::serving(&[&instance]);
    let (hyper, seen_by_hyper) = plain_hyper();
    let (other, seen_behind_haproxy) = noting();
    let haproxy = Haproxy::before(&other);
    // What an instance notes late is not held against the next.
    let take = |noted: &Arc<Mutex<Meaning>>, tag: &str| -> Meaning {
        let noted = std::mem::take(&mut *noted.lock().unwrap());
        noted.into_iter().filter(|path| path.contains(tag)).collect()
    };
    let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
    // Each as the first of its connection, and behind one that nobody doubts.
    let behind = corpus().into_iter().map(|bytes| (format!("{good}{bytes}"), 1));
    let all = corpus().into_iter().map(|bytes| (bytes, 0)).chain(behind);
    for (number, (bytes, doubtless)) in all.enumerate() {
        let tag = &format!("-{number}-");
        let bytes =
            bytes.replace("first", &format!("first{tag}")).replace("smuggled", &format!("smuggled{tag}"));
        let bytes = bytes.replace("good", &format!("good{tag}"));
        send(edge.address, &bytes);
        edge.drained();
        let ours = take(&seen_behind_edge, tag);
        send(hyper, &bytes);
        let theirs = take(&seen_by_hyper, tag);
        assert!(
            theirs.starts_with(&ours),
            "hyper takes {bytes:?} for {theirs:?}, the edge passes on {ours:?}"
        );
        let ambiguous = bytes.contains("Content-Length: 4");
        assert!(
            !ambiguous || ours.len() <= doubtless,
            "{bytes:?} has two lengths and was passed on: {ours:?}"
        );
        let Some(haproxy) = &haproxy else { continue };
        send(haproxy.address, &bytes);
        let theirs = take(&seen_behind_haproxy, tag);
        // One may refuse what the other passes on; but what both pass on must be the same to the last byte.
        let both = ours.len().min(theirs.len());
        assert_eq!(ours[..both], theirs[..both], "{bytes:?}");
    }
    if haproxy.is_none() {
        eprintln!("haproxy is not installed: compared with hyper only");
    }
}

/// What may come before a request with two lengths on its connection, and how much of it all comes at first.
const BEFORE: [&str; 4] = [
    "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nX: \r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nX: y\r\n\r\n",
];

#[test]
fn whatever_comes_before_it_a_head_with_two_lengths_is_refused() {
    let instance = Instance::saying("well");
    let edge = Edge::serving(&[&instance]);
    let two =
        "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for before in BEFORE {
        // In one piece, behind the request before it, and cut within.
        for first in [before.len() + two.len() + NEXT.len(), before.len(), before.len() + 30] {
            let bytes = [before, two, NEXT].concat();
            let mut client = edge.connect();
            client.send(&bytes[..first]);
            assert_eq!(client.read().text(), "well", "{before:?}");
            // What is left comes after the answer, when the connection rests.
            client.send(&bytes[first..]);
            assert_eq!(client.read().status(), 400, "{before:?}, {first}");
            assert!(client.try_read().is_none(), "nothing more is read from it");
        }
    }
    let seen = instance.seen();
    assert!(seen.iter().all(|request| request.start.contains(" /a ")), "{seen:?}");
}

#[test]
fn two_lengths_are_seen_while_another_request_is_answered_and_behind_one_that_was_refused() {
    let (asked, released) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (ask, release) = (asked.clone(), released.clone());
    let instance = Instance::new(move |_, client| {
        ask.wait();
        release.wait();
        client.send(ok("well"));
        true
    });
    let edge = Edge::serving(&[&instance]);
    let two =
        "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut client = edge.connect();
    client.send(BEFORE[0]);
    asked.wait();
    client.send(two);
    released.wait();
    assert_eq!(client.read().text(), "well");
    assert_eq!(client.read().status(), 400);

    // The body of what is refused has an empty line, and what looks like two lengths; the next one is as it should be.
    let body = "\r\n\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let refused = format!("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut client = edge.connect();
    client.send(format!("{refused}{two}"));
    assert_eq!(client.read().status(), 501);
    assert!(client.try_read().is_none_or(|answer| answer.status() == 400));
    assert_eq!(instance.seen().len(), 1);
}
