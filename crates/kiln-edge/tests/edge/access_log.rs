//! What the access log tells of requests that do not go well.

use std::fs::File;
use std::io::{Read, Seek};
use std::time::{Duration, Instant};

use kiln_edge::{EdgeSettings, Limits};
use kiln_model::{Circuit, EdgeFleet, EdgeRoute, Millis};
use serde_json::Value;

use crate::h2;
use crate::harness::{Edge, route};
use crate::instance::Instance;

/// An edge that keeps an access log, and that log.
struct Logged {
    edge: Edge,
    log: File,
}

impl Logged {
    fn serving(instance: &Instance) -> Self {
        let settings = EdgeSettings { access_log: true, ..EdgeSettings::default() };
        let edge = Edge::with_settings(Limits::default(), 1, settings);
        edge.serve(&[instance]);
        let log = tempfile::tempfile().unwrap();
        edge.client.take_log(&log).unwrap();
        Self { edge, log }
    }

    /// Waits for the line of the next request, which is the only one since the last look.
    fn line(&mut self) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut text = String::new();
            self.log.rewind().unwrap();
            self.log.read_to_string(&mut text).unwrap();
            if text.ends_with('\n') {
                self.log.set_len(0).unwrap();
                self.log.rewind().unwrap();
                assert_eq!(text.lines().count(), 1, "{text}");
                return serde_json::from_str(&text).unwrap();
            }
            assert!(Instant::now() < deadline, "no line: {text:?}");
            std::thread::yield_now();
        }
    }
}

/// The method, the path, the status and the cause.
fn told(line: &Value) -> (Option<&str>, Option<&str>, Option<u64>, Option<&str>) {
    (line["method"].as_str(), line["path"].as_str(), line["status"].as_u64(), line["cause"].as_str())
}

#[test]
fn a_request_whose_head_does_not_read_has_a_line() {
    let mut logged = Logged::serving(&Instance::saying("hi"));
    let large = format!("GET /large HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(100_000));
    for (request, (method, path, status, cause)) in [
        (&*large, (Some("GET"), Some("/large"), 431, "too_many_fields")),
        ("POST /bad?q HTTP/1.0\r\nFoo : a\r\n\r\n", (Some("POST"), Some("/bad?q"), 400, "malformed")),
        ("G@T / HTTP/1.1\r\n\r\n", (None, None, 400, "malformed")),
        (&*long, (Some("GET"), None, 431, "too_many_fields")),
    ] {
        let mut client = logged.edge.connect();
        assert_eq!(client.send(request).read().status(), status);
        drop(client);
        let line = logged.line();
        assert_eq!(told(&line), (method, path, Some(status.into()), Some(cause)), "{line}");
        assert_eq!(line["client"], "127.0.0.1", "{line}");
    }
}

/// It is the request that did not read, and no other one on its connection.
#[test]
fn a_line_is_about_the_request_that_did_not_read() {
    let mut logged = Logged::serving(&Instance::saying("hi"));
    // What has a body in chunks is hyper's, and so is what follows.
    let fair = "POST /fair HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (bad, path) in [("GET /bad HTTP/1.1\r\nFoo : a\r\n\r\n", "/bad"), ("GET  / HTTP/1.1\r\n\r\n", "")] {
        let mut client = logged.edge.connect();
        assert_eq!(client.send(fair).read().status(), 200);
        assert_eq!(told(&logged.line()), (Some("POST"), Some("/fair"), Some(200), None));
        assert_eq!(client.send(bad).read().status(), 400);
        drop(client);
        assert_eq!(logged.line()["path"].as_str().unwrap_or_default(), path);
    }
}

#[test]
fn a_request_that_is_refused_by_its_head_is_told_with_who_asked_it() {
    let mut logged = Logged::serving(&Instance::saying("hi"));
    for (request, (method, path, status, cause)) in [
        ("GET /x HTTP/1.1\r\n\r\n", ("GET", Some("/x"), 400, "malformed")),
        (
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            ("POST", Some("/x"), 400, "malformed"),
        ),
        (
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            ("POST", Some("/x"), 501, "unknown_coding"),
        ),
        (
            "CONNECT a.com:443 HTTP/1.1\r\nHost: a.com:443\r\nX-Request-Id: mine\r\n\r\n",
            ("CONNECT", None, 501, "no_tunnels"),
        ),
    ] {
        let answer = logged.edge.connect().send(request).read();
        assert_eq!(answer.status(), status);
        let line = logged.line();
        assert_eq!(told(&line), (Some(method), path, Some(status.into()), Some(cause)), "{line}");
        assert_eq!(line["client"], "127.0.0.1", "{line}");
        let id = line["id"].as_str().expect("an id");
        assert_eq!(answer.header("x-request-id"), Some(id));
        assert!(id == "mine" || id.len() == 32 && method != "CONNECT", "{id}");
    }
}

/// One that answers with the beginning of something long, and then waits.
fn beginning() -> Instance {
    Instance::raw(|connection| {
        connection.read_head();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbeginning");
        connection.is_at_end();
    })
}

#[test]
fn who_leaves_in_the_middle_of_a_download_is_said_to_have_left() {
    let mut logged = Logged::serving(&beginning());
    // In the one way and in the other: what expects to be asked to go on is hyper's.
    for more in ["", "Expect: 100-continue\r\n"] {
        let mut client = logged.edge.connect();
        client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\n{more}\r\n")).read_head();
        drop(client);
        assert_eq!(told(&logged.line()), (Some("GET"), Some("/x"), Some(200), Some("client_left")));
    }
    // The same over HTTP/2: GET and POST go different ways.
    for method in ["GET", "POST"] {
        h2::block_on(async {
            let (mut client, _) = h2::connect(logged.edge.address).await;
            let request = hyper::Request::builder().method(method).uri("http://a/x").body(h2::full(""));
            drop(client.send_request(request.unwrap()).await.unwrap());
        });
        assert_eq!(told(&logged.line()), (Some(method), Some("/x"), Some(200), Some("client_left")));
    }
}

#[test]
fn who_leaves_before_the_answer_is_said_to_have_left() {
    let silent = Instance::raw(|connection| while connection.line().is_some() {});
    let mut logged = Logged::serving(&silent);
    for (count, more) in (1..).zip(["", "Expect: 100-continue\r\n"]) {
        let mut client = logged.edge.connect();
        client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
        logged.edge.tells("kiln_edge_in_flight_requests 1");
        drop(client);
        assert_eq!(told(&logged.line()), (Some("GET"), Some("/x"), Some(499), Some("client_left")));
        logged.edge.tells(&format!("kiln_edge_refused_requests_total{{cause=\"client_left\"}} {count}"));
    }
}

#[test]
fn who_leaves_in_the_middle_of_an_upload_is_said_to_have_left() {
    let mut logged = Logged::serving(&Instance::raw(|connection| while connection.line().is_some() {}));
    for framing in ["Content-Length: 1000\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel"] {
        let mut client = logged.edge.connect();
        client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\n{framing}"));
        logged.edge.tells("kiln_edge_in_flight_requests 1");
        drop(client);
        assert_eq!(told(&logged.line()), (Some("POST"), Some("/x"), Some(499), Some("client_left")));
    }
    logged.edge.tells("kiln_edge_refused_requests_total{cause=\"client_left\"} 2");
    // One whose body is not fit to be read has not left.
    let mut client = logged.edge.connect();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    assert_eq!(client.read().status(), 400);
    assert_eq!(told(&logged.line()), (Some("POST"), Some("/x"), Some(400), Some("malformed")));
}

/// Nobody is said to have left who has got everything, or whose instance has.
#[test]
fn who_stays_is_not_said_to_have_left() {
    let mut logged = Logged::serving(&Instance::new(|request, connection| {
        let answer = match request.start.contains("/half") {
            true => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            false => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        };
        connection.send(answer);
        !request.start.contains("/half")
    }));
    for more in ["", "Expect: 100-continue\r\n"] {
        for (path, cause) in [("/", None), ("/half", Some("broken_off"))] {
            let mut client = logged.edge.connect();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n")).try_read();
            drop(client);
            assert_eq!(told(&logged.line()), (Some("GET"), Some(path), Some(200), cause));
        }
    }
}

/// Nobody has to guess for which fleet one was meant that was let in nowhere.
#[test]
fn who_is_refused_in_the_place_of_a_fleet_is_told_with_it() {
    let instance = Instance::saying("here");
    let mut logged = Logged::serving(&instance);
    let whole = logged.edge.fleet(1, &[&instance]);
    let circuit = Some(Circuit { in_flight: 0, queue: 0, queue_time: Millis(0) });
    let full = EdgeFleet { circuit, ..whole.clone() };
    let empty = EdgeFleet { instances: vec![], ..whole.clone() };
    for (fleet, hold, cause) in
        [(full, None, "overloaded"), (whole, Some(Millis(1)), "paused"), (empty, None, "no_instance")]
    {
        let route = EdgeRoute { hold, ..route(None, "/", &[(&fleet.id, 1)]) };
        logged.edge.set(vec![route], vec![fleet]);
        assert_eq!(logged.edge.connect().get("/x").status(), 503);
        let line = logged.line();
        assert_eq!(told(&line), (Some("GET"), Some("/x"), Some(503), Some(cause)));
        assert_eq!(line["fleet"].as_str(), Some("hello/web@1"), "{cause}");
    }
}
