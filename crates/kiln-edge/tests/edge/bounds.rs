//! What routes say of their requests: how large a body may be, and how long an answer may take.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use kiln_edge::Limits;
use kiln_model::{ByteSize, EdgeFleet, EdgeRoute, Millis};

use crate::h2;
use crate::harness::{Edge, route};
use crate::instance::{Instance, ok};

/// Serves a fleet, with bodies of so many bytes.
fn bounded(edge: &Edge, fleet: EdgeFleet, size: u64) {
    let route = EdgeRoute { max_body: Some(ByteSize(size)), ..route(None, "/", &[(&fleet.id, 1)]) };
    edge.set(vec![route], vec![fleet]);
}

/// What is refused is counted with its cause, and is nobody's failure.
fn refused(edge: &Edge, times: u64) {
    let labels = "app=\"hello\",service=\"web\",release=\"\",generation=\"1\",route=\"*/\"";
    edge.tells(&format!("kiln_refused_requests_total{{{labels},cause=\"too_large\"}} {times}"));
    assert_eq!(edge.drained().failed, 0);
}

#[test]
fn a_body_that_says_that_it_is_too_large_is_not_sent_on() {
    let instance = Instance::saying("taken");
    let edge = Edge::start();
    bounded(&edge, edge.fleet(1, &[&instance]), 4);
    let post = |length: usize| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let mut client = edge.connect();
    // It has come whole, so that another one may follow.
    let answer = client.send(post(5) + "hello").read();
    assert_eq!((answer.status(), answer.header("connection")), (413, None));
    assert!(answer.text().contains("larger than"), "{}", answer.text());
    assert_eq!(instance.connections(), 0);
    assert_eq!(client.send(post(4) + "four").read().text(), "taken");
    assert_eq!(client.get("/").text(), "taken");
    // It has not come, and is not waited for.
    let answer = edge.connect().send(post(5)).read();
    assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")));
    assert_eq!(instance.seen().len(), 2);
    refused(&edge, 2);
}

#[test]
fn a_body_that_grows_too_large_is_cut_and_never_looks_whole() {
    let instance = Instance::saying("taken");
    let edge = Edge::start();
    bounded(&edge, edge.fleet(1, &[&instance]), 8);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let taken = edge.connect().send(format!("{head}4\r\nfour\r\n4\r\nfour\r\n0\r\n\r\n")).read();
    assert_eq!(taken.text(), "taken");
    let mut client = edge.connect();
    client.send(format!("{head}4\r\nfour\r\n"));
    while edge.count().in_flight == 0 {
        std::thread::yield_now();
    }
    client.send("5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.read().status(), 413);
    // In one piece with its end, too.
    assert_eq!(edge.connect().send(format!("{head}9\r\nnine here\r\n0\r\n\r\n")).read().status(), 413);
    refused(&edge, 2);
    assert_eq!(instance.seen().len(), 1, "what was cut was never whole");
}

#[test]
fn an_answer_that_breaks_off_because_its_request_grows_too_large_is_not_the_instances_fault() {
    let instance = Instance::raw(|connection| {
        let _ = connection.read_head();
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsoon \r\n");
        connection.hear_out();
    });
    let edge = Edge::start();
    bounded(&edge, edge.fleet(1, &[&instance]), 8);
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n");
    assert_eq!(client.read_head().expect("an early answer").status(), 200);
    assert_eq!(client.chunk(), Some(Some(b"soon ".to_vec())));
    client.send("5\r\nhello\r\n");
    assert_eq!(client.chunk(), None, "it is not taken for whole");
    refused(&edge, 1);
    let flaws = edge.client.metrics().unwrap();
    assert!(!flaws.contains("kiln_spoilt_answers_total{"), "{flaws}");
}

/// Sends these pieces over HTTP/2 without saying how many: the status of the answer.
fn posted(edge: &Edge, pieces: &'static [&'static str]) -> u16 {
    h2::block_on(async {
        let (mut sender, _) = h2::connect(edge.address).await;
        let frames = pieces.iter().map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(*piece))));
        let body = StreamBody::new(in_turn(frames)).boxed();
        let request = Request::post("http://example.com/").body(body).unwrap();
        sender.send_request(request).await.unwrap().status().as_u16()
    })
}

/// An iterator as a stream.
fn in_turn<T>(items: impl Iterator<Item = T> + Send + Sync + 'static) -> impl futures_core::Stream<Item = T> {
    struct Items<I>(I);
    impl<I: Iterator + Unpin> futures_core::Stream for Items<I> {
        type Item = I::Item;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<I::Item>> {
            std::task::Poll::Ready(self.0.next())
        }
    }
    Items(Box::new(items))
}

#[test]
fn a_body_over_http_2_is_bounded_as_well() {
    let instance = Instance::saying("taken");
    let edge = Edge::start();
    bounded(&edge, edge.fleet(1, &[&instance]), 8);
    assert_eq!(posted(&edge, &["four", "four"]), 200);
    assert_eq!(posted(&edge, &["four", "hello"]), 413);
    refused(&edge, 1);
    assert_eq!(instance.seen().len(), 1);
}

/// Bodies that an instance of HTTP/2 has got whole.
static WHOLE: AtomicUsize = AtomicUsize::new(0);

async fn gathers(request: Request<Incoming>) -> Result<Response<h2::Body>, Infallible> {
    if request.into_body().collect().await.is_ok() {
        WHOLE.fetch_add(1, SeqCst);
    }
    Ok(Response::new(h2::full("taken")))
}

#[test]
fn an_instance_of_http_2_gets_no_body_that_is_too_large() {
    let instance = h2::h2c(gathers);
    let edge = Edge::start();
    bounded(&edge, h2::serve_h2c(&edge, 1, &instance), 8);
    assert_eq!(posted(&edge, &["four", "four"]), 200);
    assert_eq!(posted(&edge, &["four", "hello"]), 413);
    let chunked =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nnine here\r\n0\r\n\r\n";
    assert_eq!(edge.connect().send(chunked).read().status(), 413);
    refused(&edge, 2);
    assert_eq!(WHOLE.load(SeqCst), 1);
}

/// Serves an instance that answers after 300 ms by a route that waits so long.
fn waiting(limit: Duration, timeout: u64) -> Edge {
    let slow = Instance::new(|_, connection| {
        // What comes from the client meanwhile would be the next request.
        connection.is_silent_for(Duration::from_millis(300));
        connection.send(ok("late"));
        true
    });
    let edge = Edge::with(Limits { response_head: limit, ..Limits::default() }, 1);
    let fleet = edge.fleet(1, &[&slow]);
    let route = EdgeRoute { timeout: Some(Millis(timeout)), ..route(None, "/", &[(&fleet.id, 1)]) };
    edge.set(vec![route], vec![fleet]);
    edge
}

#[test]
fn a_route_says_how_long_an_answer_may_take() {
    let (ordinary, by_hyper) = ("", "Connection: close\r\n");
    for fields in [ordinary, by_hyper] {
        let ask =
            |edge: &Edge| edge.connect().send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).read();
        // Longer than the edge puts up with otherwise, or not as long.
        let answer = ask(&waiting(Duration::from_millis(50), 60_000));
        assert_eq!((answer.status(), answer.text()), (200, "late"), "{fields:?}");
        let answer = ask(&waiting(Duration::from_millis(200), 50));
        assert_eq!(answer.status(), 504, "{fields:?}");
    }
}
