//! Fields behind a body: what is about a connection, a length or an origin goes no further, in either direction.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::h2::{Body, block_on, connect, full, h2c, serve_h2c};
use crate::harness::{Edge, route};
use crate::instance::{Instance, ok};
use crate::wire::Client;

/// Of these only one may go on.
const FIELDS: [&str; 11] = [
    "Connection: close",
    "TE: trailers",
    "Transfer-Encoding: chunked",
    "Upgrade: websocket",
    "Keep-Alive: timeout=5",
    "Content-Length: 7",
    "Host: b",
    "X-Forwarded-For: 6.6.6.6",
    "X_Real_IP: 6.6.6.6",
    "Forwarded: for=6.6.6.6",
    "X-T: 1",
];

/// A body in chunks with these fields behind it, which its head must name if hyper is to let them through.
fn chunked(start: &str, fields: &[&str]) -> String {
    let names: Vec<&str> = fields.iter().map(|field| field.split(':').next().unwrap()).collect();
    let head =
        format!("{start}\r\nTE: trailers\r\nTrailer: {}\r\nTransfer-Encoding: chunked", names.join(", "));
    format!("{head}\r\n\r\n2\r\nok\r\n0\r\n{}\r\n\r\n", fields.join("\r\n"))
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a";
const OK: &str = "HTTP/1.1 200 OK";

/// The fields behind a body of one chunk; its head has been read.
fn behind(message: &mut Client) -> Vec<String> {
    assert_eq!([(); 3].map(|()| message.line().unwrap()), ["2", "ok", "0"]);
    std::iter::from_fn(|| message.line().filter(|line| !line.is_empty())).collect()
}

/// Tells how many trailers have come with a request, and which.
async fn telling(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let whole = request.into_body().collect().await.unwrap();
    let names: Vec<&str> = whole.trailers().into_iter().flat_map(|t| t.keys()).map(|n| n.as_str()).collect();
    Ok(Response::new(full(names.join(","))))
}

/// The client of an instance of HTTP/2 refuses to send fields about a connection, and the request never ended.
#[test]
fn an_instance_of_http_2_is_not_lost_to_the_trailers_of_a_client() {
    let instance = h2c(telling);
    let edge = Edge::start();
    let fleet = serve_h2c(&edge, 1, &instance);
    edge.set(vec![route(None, "/", &[(&fleet.id, 1)])], vec![fleet]);
    for field in FIELDS {
        let expected = if field.starts_with("X-T") { "x-t" } else { "" };
        let answer = edge.connect().send(chunked(POST, &[field])).read();
        assert_eq!((answer.status(), answer.text()), (200, expected), "{field}");
    }
    assert_eq!(edge.connect().send(chunked(POST, &FIELDS)).read().text(), "x-t");
    assert_eq!(edge.drained().failed, 0);
}

#[test]
fn an_instance_of_http_1_is_told_nothing_by_trailers_about_connection_and_origin() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let instance = Instance::raw(move |connection| {
        connection.read_head();
        *tell.lock().unwrap() = behind(connection);
        connection.send(ok("done"));
    });
    let edge = Edge::serving(&[&instance]);
    assert_eq!(edge.connect().send(chunked(POST, &FIELDS)).read().text(), "done");
    assert_eq!(*told.lock().unwrap(), ["x-t: 1"]);
}

#[test]
fn a_client_gets_no_trailers_about_the_connection_to_an_instance() {
    let instance = Instance::new(|_, connection| {
        connection.send(chunked(OK, &FIELDS));
        false
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n").read_head().unwrap();
    assert_eq!(behind(&mut client), ["x-t: 1"]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        let request = Request::get("http://a/").header("te", "trailers").body(full("")).unwrap();
        let body = client.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        let trailers = body.trailers().unwrap();
        assert_eq!((trailers.len(), &trailers["x-t"]), (1, &"1".parse().unwrap()));
    });
    assert_eq!(edge.drained().failed, 0);
}

/// What is left of a body whose trailers all go nowhere is its end.
#[test]
fn a_body_behind_which_nothing_is_left_ends() {
    let instance = Instance::new(|_, connection| {
        connection.send(chunked(OK, &FIELDS[..10]));
        false
    });
    let edge = Edge::serving(&[&instance]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        let request = Request::get("http://a/").header("te", "trailers").body(full("")).unwrap();
        let body = client.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        assert!(body.trailers().is_none());
        assert_eq!(body.to_bytes(), "ok");
    });
    assert_eq!(edge.drained().failed, 0);
}

/// What a head names as being about its connection is so behind the body as well (RFC 9110, 7.6.1).
#[test]
fn what_the_head_says_is_about_its_connection_does_not_follow_behind_the_body() {
    let fields = ["X-T: 1", "X-U: 2"];
    let instance = h2c(telling);
    let edge = Edge::start();
    let fleet = serve_h2c(&edge, 1, &instance);
    edge.set(vec![route(None, "/", &[(&fleet.id, 1)])], vec![fleet]);
    let asks = chunked(&format!("{POST}\r\nConnection: x-t"), &fields);
    assert_eq!(edge.connect().send(asks).read().text(), "x-u");

    let instance = Instance::new(move |_, connection| {
        connection.send(chunked(&format!("{OK}\r\nConnection: close, X-T"), &fields));
        false
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n").read_head().unwrap();
    assert_eq!(behind(&mut client), ["x-u: 2"]);
}
