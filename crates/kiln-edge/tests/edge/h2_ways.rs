//! The two ways from a client of HTTP/2 to an instance of HTTP/1.1: requests that ask for nothing special go without
//! hyper behind the edge, those whose client takes trailers with it. Neither side may see which.

use http_body_util::BodyExt;
use hyper::client::conn::http2::SendRequest;
use hyper::header::TE;
use hyper::{Method, Request};
use kiln_edge::Limits;

use crate::express::answers;
use crate::frames::{self, HEADERS};
use crate::h2::{Body, block_on, connect, full, get, grpc, serve_h2c};
use crate::harness::{Edge, route};
use crate::instance::{Instance, ok};
use crate::wire::Message;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Without,
    With,
}

fn request(method: &Method, path: &str, way: Way) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://example.com{path}"))
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-empty", "");
    if way == Way::With {
        request = request.header(TE, "trailers");
    }
    request.body(full("")).unwrap()
}

/// Status, fields in order without values that are drawn or told by the clock, and the body; none if it breaks off.
type Got = (u16, Vec<(String, String)>, Option<Vec<u8>>);

async fn got(client: &mut SendRequest<Body>, request: Request<Body>) -> Got {
    let (head, body) = client.send_request(request).await.unwrap().into_parts();
    let value = |name: &str, value: &str| match name {
        "date" => "any".to_owned(),
        "x-request-id" if value.len() == 32 => "any".to_owned(),
        _ => value.to_owned(),
    };
    let fields = head.headers.iter().map(|(n, v)| (n.to_string(), value(n.as_str(), v.to_str().unwrap())));
    let mut fields: Vec<_> = fields.collect();
    fields.sort();
    // hyper says a length twice that was said twice.
    fields.dedup();
    (head.status.as_u16(), fields, body.collect().await.ok().map(|body| body.to_bytes().to_vec()))
}

#[test]
fn a_client_gets_the_same_on_both_ways() {
    for answer in answers() {
        let bytes = answer.clone();
        let instance = Instance::new(move |_, connection| {
            connection.send(&bytes);
            !bytes.starts_with(b"HTTP/1.1 200 Until")
        });
        let edge = Edge::serving(&[&instance]);
        let head = String::from_utf8_lossy(&answer[..answer.len().min(120)]).into_owned();
        block_on(async {
            let (mut client, _) = connect(edge.address).await;
            let without = got(&mut client, request(&Method::GET, "/", Way::Without)).await;
            let with = got(&mut client, request(&Method::GET, "/", Way::With)).await;
            assert_eq!((without.0, &without.1), (with.0, &with.1), "{head:?}");
            assert!(without.2.is_some() && without.2 == with.2, "the bodies differ: {head:?}");
        });
        // Each way has connections of its own.
        assert_eq!(instance.connections(), 2, "{head:?}");
        assert_eq!(edge.drained().failed, 0, "{head:?}");
    }
}

#[test]
fn an_instance_is_sent_the_same_on_both_ways() {
    let instance = Instance::new(|request, connection| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        connection.send(head).send(if request.start.starts_with("HEAD") { "" } else { "ok" });
        true
    });
    let edge = Edge::serving(&[&instance]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        for (method, path) in [
            (Method::GET, "/p/q?r=s&t=%20"),
            (Method::HEAD, "/"),
            (Method::OPTIONS, "//two?a?b"),
            (Method::TRACE, "/x"),
        ] {
            let mut got_it = Vec::new();
            for way in [Way::Without, Way::With] {
                got_it.push(got(&mut client, request(&method, path, way)).await);
            }
            assert_eq!(got_it[0], got_it[1], "{method} {path}");
            let seen = instance.seen();
            let [without, with] = [&seen[seen.len() - 2], &seen[seen.len() - 1]].map(meaning);
            assert_eq!(without, with, "{method} {path}");
        }
    });
    assert_eq!(instance.connections(), 2);
}

fn meaning(message: &Message) -> (String, Vec<(String, String)>, Vec<u8>) {
    let fields = message.headers.iter().map(|(name, value)| match &**name {
        "x-request-id" | "traceparent" => (name.clone(), value.len().to_string()),
        _ => (name.clone(), value.clone()),
    });
    let mut fields: Vec<_> = fields.collect();
    fields.sort();
    (message.start.clone(), fields, message.body.clone())
}

/// What goes straight to instances of HTTP/1.1 is begun anew for those of HTTP/2, and counted once.
#[test]
fn an_instance_of_http_2_is_asked_in_http_2() {
    let edge = Edge::start();
    let fleet = serve_h2c(&edge, 1, &grpc());
    edge.set(vec![route(None, "/", &[(&fleet.id, 1)])], vec![fleet]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        for _ in 0..5 {
            let answer = client.send_request(get("/x")).await.unwrap();
            assert_eq!(answer.headers()["asked"], "GET http://example.com/x te=");
        }
    });
    let count = edge.drained();
    assert_eq!((count.served, count.failed, edge.client.stats().unwrap().requests), (5, 0, 5));
}

/// Ids are all different: remembered for compression, they would push out what is said again and again. So the date, which
/// comes last, is all there is to remember of these answers.
#[test]
fn the_id_of_a_request_is_kept_out_of_the_table_of_fields() {
    let named = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: its-own\r\n\r\nok";
    for answer in [ok("ok"), named.to_owned()] {
        let instance = Instance::new(move |_, connection| {
            connection.send(&answer);
            true
        });
        let edge = Edge::serving(&[&instance]);
        let mut client = frames::connect(edge.address);
        let heads = (0..5).map(|n| {
            std::io::Write::write_all(&mut client, &frames::frame(HEADERS, 5, 2 * n + 1, &frames::GET))
                .unwrap();
            let frames = std::iter::from_fn(|| frames::next(&mut client));
            frames.filter(|(kind, ..)| *kind == HEADERS).map(|(.., fields)| fields).next().unwrap()
        });
        let last_remembered = 0x80 | 62;
        let heads: Vec<_> = heads.collect();
        // Unless it is another second.
        assert!(heads.iter().any(|fields| fields.last() == Some(&last_remembered)), "{heads:x?}");
    }
}

#[test]
fn a_length_of_a_body_that_is_not_there_is_not_passed_on_without_hyper() {
    let instance = Instance::saying("ok");
    let edge = Edge::serving(&[&instance]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        let claim = Request::get("http://example.com/").header("content-length", "0").body(full("")).unwrap();
        assert_eq!(got(&mut client, claim).await.0, 200);
        assert_eq!(got(&mut client, get("/")).await.0, 200);
    });
    assert_eq!(instance.connections(), 2);
}

#[test]
fn an_answer_that_is_broken_off_is_not_taken_for_whole() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhello".to_owned(),
        chunked.to_owned(),
        format!("{chunked}nonsense\r\n"),
    ] {
        let bytes = answer.clone();
        let instance = Instance::new(move |_, connection| {
            connection.send(&bytes);
            false
        });
        let edge = Edge::serving(&[&instance]);
        block_on(async {
            let (mut client, _) = connect(edge.address).await;
            // What is broken off at once may be so before its head has gone out.
            if let Ok(answered) = client.send_request(get("/")).await {
                assert!(answered.into_body().collect().await.is_err(), "{answer:?}");
            }
        });
        assert_eq!(edge.drained().failed, 1, "{answer:?}");
    }
}

#[test]
fn more_than_was_promised_goes_no_further() {
    let instance = Instance::new(|_, connection| {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nstolen");
        true
    });
    let edge = Edge::serving(&[&instance]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        for _ in 0..3 {
            assert_eq!(got(&mut client, get("/")).await.2.unwrap(), b"ok");
        }
    });
    assert_eq!(instance.connections(), 3);
}

#[test]
fn who_does_not_answer_is_answered_for() {
    let limits = Limits { response_head: std::time::Duration::from_millis(300), ..Limits::default() };
    let silent = Instance::new(|_, connection| {
        connection.try_read();
        true
    });
    let edge = Edge::with(limits, 1);
    edge.serve(&[&silent]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        assert_eq!(got(&mut client, get("/")).await.0, 504);
    });
    let garbage = Instance::new(|_, connection| {
        connection.send("garbage\r\n\r\n");
        false
    });
    let edge = Edge::serving(&[&garbage]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        assert_eq!(got(&mut client, get("/")).await.0, 502);
    });
    assert_eq!(garbage.connections(), 1);
}

/// One of two instances dies with each request it is sent: the other one is asked.
#[test]
fn an_instance_that_dies_with_a_request_is_not_noticed() {
    let (dying, well) = (
        Instance::new(|_, _| false),
        Instance::new(|_, connection| {
            connection.send(ok("well"));
            true
        }),
    );
    let edge = Edge::serving(&[&dying, &well]);
    block_on(async {
        let (mut client, _) = connect(edge.address).await;
        for _ in 0..20 {
            assert_eq!(got(&mut client, get("/")).await.2.unwrap(), b"well");
        }
    });
    assert!(dying.connections() > 0, "it was never asked");
}
