//! HTTP/2 on either side of the edge.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::channel;
use std::time::Duration;

use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kiln_edge::Limits;
use kiln_model::{EdgeFleet, Protocol};
use tokio::net::TcpStream;

use crate::harness::{Edge, fleet_id, route};
use crate::instance::{Instance, ok};

pub type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

pub fn full(words: impl Into<Bytes>) -> Body {
    Full::new(words.into()).boxed()
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    block_on_without_end(in_time(future))
}

/// For what takes care of its time itself.
pub fn block_on_without_end<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

/// A client that begins with HTTP/2, and whether its connection has ended.
pub async fn connect(address: SocketAddr) -> (SendRequest<Body>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://example.com{path}")).body(full("")).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// An instance that speaks HTTP/2: it gives back what it is sent, says in a header what it was asked, and in a
/// trailer how it went.
pub fn grpc() -> Instance {
    h2c(echo)
}

/// An instance that speaks HTTP/2 and answers so.
pub fn h2c<F>(answer: fn(Request<Incoming>) -> F) -> Instance
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper::service::service_fn(answer);
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    Instance::at(address)
}

async fn echo(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let te = request.headers().get("te").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let asked = format!("{} {} te={te}", request.method(), request.uri());
    let mut body = request.into_body();
    let (sender, frames) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            let _ = sender.send(Ok(frame)).await;
        }
        let status = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let _ = sender.send(Ok(Frame::trailers(status))).await;
    });
    let frames = futures(frames);
    Ok(Response::builder().header("asked", asked).body(StreamBody::new(frames).boxed()).unwrap())
}

/// A receiver as a stream.
fn futures<T: Send + 'static>(
    mut receiver: tokio::sync::mpsc::Receiver<Result<Frame<T>, Infallible>>,
) -> impl futures_core::Stream<Item = Result<Frame<T>, Infallible>> {
    Poller(move |cx: &mut std::task::Context<'_>| receiver.poll_recv(cx))
}

struct Poller<F>(F);

impl<T, F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<T>> + Unpin> futures_core::Stream
    for Poller<F>
{
    type Item = T;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        (self.0)(cx)
    }
}

pub fn serve_h2c(edge: &Edge, generation: u64, instance: &Instance) -> EdgeFleet {
    EdgeFleet { protocol: Protocol::H2c, ..edge.fleet(generation, &[instance]) }
}

#[test]
fn clients_of_http_2_reach_instances_of_http_1() {
    let instance = Instance::new(|request, connection| {
        connection.send(ok(&format!("{} {}", request.start, request.text())));
        true
    });
    let edge = Edge::serving(&[&instance]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        for n in 0..20 {
            let request = Request::post(format!("http://example.com/{n}?q"))
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(full("words"))
                .unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.version(), hyper::Version::HTTP_2);
            assert_eq!(text(response).await, format!("POST /{n}?q HTTP/1.1 words"));
        }
    });
    let seen = instance.seen();
    assert_eq!(seen[0].header("host"), Some("example.com"));
    assert_eq!(seen[0].header("cookie"), Some("a=1; b=2"));
    assert_eq!(seen[0].header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(edge.drained().served, 20);
}

#[test]
fn many_requests_at_once_over_one_connection() {
    let instance = Instance::saying("hi");
    let edge = Edge::serving(&[&instance]);
    block_on(async {
        let (client, _) = connect(edge.address).await;
        let all = (0..200).map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { text(client.send_request(get("/")).await.unwrap()).await })
        });
        for answer in all.collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap(), "hi");
        }
    });
    assert_eq!(edge.drained().served, 200);
}

#[test]
fn a_call_with_trailers_goes_through_both_ways_as_it_comes() {
    let instance = grpc();
    let edge = Edge::start();
    let fleet = serve_h2c(&edge, 1, &instance);
    edge.set(vec![route(None, "/", &[(&fleet.id, 1)])], vec![fleet]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        let (sender, frames) = tokio::sync::mpsc::channel(4);
        let request = Request::post("http://example.com/echo.Echo/Say").header("te", "trailers");
        let request = request.body(StreamBody::new(futures(frames)).boxed()).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.headers()["asked"], "POST http://example.com/echo.Echo/Say te=trailers");
        let mut body = response.into_body();
        // Each message only after the one before has come back.
        for message in ["one", "two", "three"] {
            sender.send(Ok(Frame::data(Bytes::from(message)))).await.unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), message);
        }
        drop(sender);
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert!(body.frame().await.is_none());
    });
    assert_eq!(edge.drained().served, 1);
}

#[test]
fn clients_of_http_1_reach_instances_of_http_2() {
    let edge = Edge::start();
    let fleet = serve_h2c(&edge, 1, &grpc());
    edge.set(vec![route(None, "/", &[(&fleet.id, 1)])], vec![fleet]);
    let mut client = edge.connect();
    for _ in 0..20 {
        let answer = client.send("POST /x HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\n\r\nhello").read();
        assert_eq!((answer.status(), answer.text()), (200, "hello"));
        assert_eq!(answer.header("asked"), Some("POST http://a.b/x te="));
    }
    let answer = client
        .send("POST /x HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .read();
    assert_eq!(answer.text(), "abc");
    let count = edge.drained();
    assert_eq!((count.served, count.failed), (21, 0));
    // What was found to be for another way is counted once.
    assert_eq!(edge.client.stats().unwrap().requests, 21);
}

#[test]
fn an_instance_of_http_2_that_is_not_there_is_said_so() {
    let edge = Edge::start();
    let fleet = serve_h2c(&edge, 1, &Instance::saying("this is HTTP/1.1"));
    edge.set(vec![route(None, "/", &[(&fleet.id, 1)])], vec![fleet]);
    assert_eq!(edge.connect().get("/").status(), 502);
    assert_eq!(edge.drained().failed, 1);
}

#[test]
fn a_request_whose_host_contradicts_itself_is_refused() {
    let instance = Instance::saying("hi");
    let edge = Edge::serving(&[&instance]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        let request = Request::get("http://a.com/").header("host", "b.com").body(full("")).unwrap();
        assert_eq!(client.send_request(request).await.unwrap().status(), 400);
    });
    assert!(instance.seen().is_empty());
}

#[test]
fn draining_tells_clients_to_begin_nothing_more_and_lets_them_finish() {
    let (release, hold) = channel::<()>();
    let hold = std::sync::Mutex::new(hold);
    let instance = Instance::new(move |_, connection| {
        let _ = hold.lock().unwrap().recv();
        connection.send(ok("late"));
        true
    });
    let edge = Edge::serving(&[&instance]);
    block_on(async {
        let (mut client, connection) = connect(edge.address).await;
        let answer = tokio::spawn(client.send_request(get("/")));
        let control = edge.client.clone();
        while control.counts().unwrap().fleets[0].in_flight == 0 {
            tokio::task::yield_now().await;
        }
        let shutdown = std::thread::spawn(move || control.shutdown(Duration::from_secs(20)).unwrap());
        while TcpStream::connect(edge.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        release.send(()).unwrap();
        assert_eq!(text(answer.await.unwrap().unwrap()).await, "late");
        // The client has not let go of it: it ends because it was told that nothing more can be begun.
        connection.await.unwrap().unwrap();
        assert!(client.ready().await.is_err());
        assert_eq!(shutdown.join().unwrap().in_flight, 0);
    });
    edge.join().unwrap();
}

#[test]
fn a_fleet_that_leaves_takes_only_its_own_requests_along() {
    let hanging = Instance::raw(|connection| {
        connection.read_head();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        while connection.line().is_some() {}
    });
    let green = Instance::saying("green");
    let edge = Edge::start();
    let (blue, other) = (edge.fleet(1, &[&hanging]), edge.fleet(2, &[&green]));
    let routes = |blue: &[_]| vec![route(None, "/", blue), route(None, "/green", &[(&other.id, 1)])];
    edge.set(routes(&[(&blue.id, 1)]), vec![blue.clone(), other.clone()]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        let cut = client.send_request(get("/")).await.unwrap();
        let (routes, fleets) = (routes(&[]), vec![other.clone()]);
        let counts = tokio::task::spawn_blocking({
            let table = kiln_model::RouteTable { version: 2, routes, fleets, ..Default::default() };
            let control = edge.client.clone();
            move || control.set_table(&table).unwrap()
        });
        let counts = counts.await.unwrap();
        assert_eq!((counts.gone[0].in_flight, counts.gone[0].cut, counts.gone[0].failed), (0, 1, 1));
        assert!(cut.into_body().collect().await.is_err(), "a cut answer must not look whole");
        assert_eq!(text(client.send_request(get("/green")).await.unwrap()).await, "green");
    });
    assert_eq!(edge.client.wait_drained(&[fleet_id(2)], Duration::from_secs(5)).unwrap().fleets[0].failed, 0);
}

#[test]
fn a_client_that_only_begins_and_gives_up_is_sent_away() {
    let instance = Instance::raw(|connection| {
        connection.read_head();
        while connection.line().is_some() {}
    });
    let short = Duration::from_millis(40);
    let limits = Limits { wasted_requests: 20, header_read: short, ..Limits::default() };
    let edge = Edge::with(limits, 1);
    edge.serve(&[&instance]);
    block_on(async {
        let (mut client, connection) = connect(edge.address).await;
        for _ in 0..1_000 {
            if client.ready().await.is_err() {
                break;
            }
            let given_up =
                tokio::time::timeout(Duration::from_millis(2), client.send_request(get("/"))).await;
            assert!(!matches!(given_up, Ok(Ok(_))), "nobody answers");
        }
        drop(client);
        let _ = connection.await.unwrap();
    });
    assert_eq!(edge.drained().in_flight, 0);
    assert!(instance.connections() < 100, "{} requests got through", instance.connections());
}

#[test]
fn a_client_that_is_refused_again_and_again_is_still_a_client() {
    let limits = Limits { wasted_requests: 20, header_read: Duration::from_millis(40), ..Limits::default() };
    let edge = Edge::with(limits, 1);
    let fleet = edge.fleet(1, &[&Instance::saying("hi")]);
    edge.set(vec![route(None, "/here", &[(&fleet.id, 1)])], vec![fleet]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        for _ in 0..100 {
            assert_eq!(client.send_request(get("/elsewhere")).await.unwrap().status(), 404);
        }
        // Longer than it takes to look for who oversteps the limits.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(text(client.send_request(get("/here")).await.unwrap()).await, "hi");
    });
}

#[test]
fn a_client_that_takes_nothing_of_one_answer_loses_that_one() {
    let endless = Instance::endless();
    let limits = Limits { client_stall: Duration::from_millis(60), ..Limits::default() };
    let edge = Edge::with(limits, 1);
    let (hanging, other) = (edge.fleet(1, &[&endless]), edge.fleet(2, &[&Instance::saying("other")]));
    let routes = vec![route(None, "/", &[(&hanging.id, 1)]), route(None, "/other", &[(&other.id, 1)])];
    edge.set(routes, vec![hanging, other]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        let untaken = client.send_request(get("/")).await.unwrap();
        let control = edge.client.clone();
        let drained = tokio::task::spawn_blocking(move || {
            control.wait_drained(&[fleet_id(1)], Duration::from_secs(20)).unwrap().fleets[0].in_flight
        });
        assert_eq!(drained.await.unwrap(), 0);
        assert_eq!(text(client.send_request(get("/other")).await.unwrap()).await, "other");
        assert!(untaken.into_body().collect().await.is_err());
    });
}

/// Four requests at a time over one connection, for as long as `goes_on` says so after each; a connection that is
/// told to end is followed by another. Fails on any request that is not answered whole, and in time.
pub async fn exchange(address: SocketAddr, goes_on: impl Fn() -> bool) {
    let (mut client, mut connection) = in_time(connect(address)).await;
    loop {
        let asked: Vec<_> = (0..4).map(|_| client.send_request(get("/quick"))).collect();
        for answer in asked {
            match in_time(answer).await {
                Ok(answer) => {
                    assert_eq!(answer.status(), 200);
                    assert_eq!(in_time(text(answer)).await, "quick");
                    if !goes_on() {
                        return;
                    }
                }
                // Not sent, or refused with the word that nothing was done with it.
                Err(error) => assert!(was_not_begun(&error), "{error:?}"),
            }
        }
        if connection.is_finished() || in_time(client.ready()).await.is_err() {
            drop(client);
            let _ = in_time(&mut connection).await;
            (client, connection) = in_time(connect(address)).await;
        }
    }
}

/// Whether the server said that it has not begun a request: every client of HTTP/2 sends it again then.
fn was_not_begun(error: &hyper::Error) -> bool {
    let words = format!("{error:?}");
    error.is_canceled()
        || words.contains("REFUSED_STREAM")
        || words.contains("GoAway(b\"\", NO_ERROR, Remote)")
}
