//! What an instance sees of a request, and a client of an answer.

use crate::harness::Edge;
use crate::instance::Instance;
use crate::wire::Message;

/// The request as the instance got it, and the answer as the client did.
fn pass(request: &str, answer: &'static str) -> (Message, Message) {
    let instance = Instance::new(move |_, connection| {
        connection.send(answer);
        true
    });
    let edge = Edge::serving(&[&instance]);
    let answer = edge.connect().send(request).read();
    (instance.seen().remove(0), answer)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn what_is_about_one_connection_does_not_cross() {
    let request = "GET /p?q=1 HTTP/1.1\r\nHost: a.com:8080\r\nConnection: keep-alive, X-Mine, host\r\n\
        X-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nTE: trailers\r\nUpgrade: h2c\r\n\
        HTTP2-Settings: x\r\nProxy-Authorization: x\r\nX-Kept: yes\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
        X-Kept: yes\r\nContent-Length: 2\r\n\r\nok";
    let (seen, answer) = pass(request, answer);
    assert_eq!(seen.start, "GET /p?q=1 HTTP/1.1");
    assert_eq!((seen.header("host"), seen.header("x-kept")), (Some("a.com:8080"), Some("yes")));
    for name in ["connection", "x-mine", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"]
    {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-kept"), Some("yes"));
    for name in ["connection", "x-secret", "keep-alive", "via"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[test]
fn an_instance_is_told_who_asks_and_not_what_the_client_claims() {
    let request = "GET / HTTP/1.1\r\nHost: a.com\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-User: root\r\n\
        X_Forwarded_For: 6.6.6.6\r\n\r\n";
    // In the one way and in the other: what expects to be asked to go on is hyper's.
    for request in [request.to_owned(), request.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n")] {
        is_told_what_is_true(&request);
    }
}

fn is_told_what_is_true(request: &str) {
    let (seen, _) = pass(request, OK);
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("a.com"));
    for name in ["forwarded", "x-real-ip", "x-forwarded-user", "x_forwarded_for"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.headers.iter().filter(|(n, _)| n == "x-forwarded-for").count(), 1);
}

/// Whoever got an instance to speak HTTP/2 over a tunnel would ask it past all routes and limits; and HTTP/1.0 knows no
/// other protocols.
#[test]
fn nobody_goes_over_to_http_2_in_the_middle() {
    for (version, protocol, asked) in [
        ("1.1", "h2c", None),
        ("1.1", "websocket, H2C", None),
        ("1.0", "websocket", None),
        ("1.1", "websocket", Some("websocket")),
    ] {
        let request = format!(
            "GET / HTTP/{version}\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
             HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
        );
        let (seen, answer) = pass(&request, OK);
        assert_eq!((seen.header("upgrade"), answer.status()), (asked, 200), "{version} {protocol}");
    }
}

/// A coding that the edge takes off a body and does not say again would be lost.
#[test]
fn a_body_in_another_coding_goes_nowhere() {
    let coded = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let mut client = edge.connect();
    let answer = client.send(coded).read();
    assert_eq!(answer.status(), 501);
    assert!(client.is_at_end());
    assert_eq!(edge.drained().failed, 0, "nobody failed but the client");
    // In an answer it is no answer, in the one way as in the other.
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.0\r\nHost: a\r\n\r\n"] {
        let (_, answer) =
            pass(request, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
        assert_eq!(answer.status(), 502, "{request}");
    }
}

#[test]
fn every_request_has_an_id() {
    let (seen, answer) = pass("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine-1\r\n\r\n", OK);
    assert_eq!(
        (seen.header("x-request-id"), answer.header("x-request-id")),
        (Some("mine-1"), Some("mine-1"))
    );
    let (seen, answer) = pass("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: not fit\r\n\r\n", OK);
    let id = seen.header("x-request-id").unwrap();
    assert_eq!(id.len(), 32);
    assert_eq!(answer.header("x-request-id"), Some(id));
}

/// What an instance writes down is what the log says and the client is told.
#[test]
fn a_request_has_one_id() {
    for other in ["b", "b c d"] {
        let request =
            format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\r\nX-Request-Id: {other}\r\n\r\n");
        let (seen, answer) = pass(&request, OK);
        let ids: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "x-request-id").collect();
        assert_eq!(ids.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["a"], "{other}");
        assert_eq!(answer.header("x-request-id"), Some("a"), "{other}");
    }
}

#[test]
fn a_head_request_gets_a_head() {
    let instance = Instance::new(|_, connection| {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
        true
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    for _ in 0..3 {
        let head = client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").read_head().unwrap();
        assert_eq!((head.status(), head.header("content-length")), (200, Some("1234")));
    }
    assert_eq!(edge.drained().served, 3);
    assert_eq!(instance.connections(), 1);
}

#[test]
fn answers_without_a_body_end_at_once() {
    for status in ["204 No Content", "304 Not Modified"] {
        let instance = Instance::new(move |_, connection| {
            connection.send(format!("HTTP/1.1 {status}\r\nETag: \"x\"\r\n\r\n"));
            true
        });
        let edge = Edge::serving(&[&instance]);
        let mut client = edge.connect();
        for _ in 0..3 {
            let answer = client.get("/");
            assert!(answer.start.ends_with(status));
            assert_eq!(answer.header("transfer-encoding"), None);
        }
        assert_eq!(edge.drained().served, 3);
    }
}

#[test]
fn clients_of_http_1_0_are_served() {
    let instance = Instance::new(|_, connection| {
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nold\r\n0\r\n\r\n");
        true
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    let answer = client.send("GET / HTTP/1.0\r\n\r\n").read();
    assert_eq!((answer.status(), answer.text()), (200, "old"));
    assert!(client.is_at_end());
    assert_eq!(instance.seen()[0].header("host"), Some(edge.address.to_string().as_str()));
}

#[test]
fn clients_of_http_1_0_may_keep_their_connection() {
    let edge = Edge::serving(&[&Instance::saying("kept")]);
    let mut client = edge.connect();
    for _ in 0..3 {
        let answer = client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").read();
        assert_eq!(answer.text(), "kept");
    }
}

#[test]
fn an_absolute_target_names_the_host() {
    let request = "GET http://real.com:81/x?y HTTP/1.1\r\nHost: other.com\r\n\r\n";
    let (seen, _) = pass(request, OK);
    assert_eq!((seen.start.as_str(), seen.header("host")), ("GET /x?y HTTP/1.1", Some("real.com:81")));
}

#[test]
fn asking_about_the_server_as_a_whole_is_passed_on() {
    let (seen, answer) = pass("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", OK);
    assert_eq!((seen.start.as_str(), answer.status()), ("OPTIONS * HTTP/1.1", 200));
}

#[test]
fn connections_to_instances_are_kept() {
    let instance = Instance::saying("hi");
    let edge = Edge::with(kiln_edge::Limits::default(), 1);
    edge.serve(&[&instance]);
    let mut client = edge.connect();
    for _ in 0..100 {
        assert_eq!(client.get("/").text(), "hi");
        let answer = client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").read();
        assert_eq!(answer.text(), "hi");
    }
    assert!(instance.connections() <= 2, "{}", instance.connections());
}
