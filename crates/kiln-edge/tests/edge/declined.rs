//! What an instance of HTTP/2 says that it has not begun with is asked again, and nothing else (RFC 9113, 8.7).

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use crate::frames::{DATA, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use crate::frames::{frame, next_of_any};
use crate::h2::serve_h2c;
use crate::harness::{Edge, route};
use crate::instance::Instance;
use crate::wire::Message;

/// `:status: 200`
const OK: [u8; 1] = [0x88];
const REFUSED_STREAM: u32 = 7;
const INTERNAL_ERROR: u32 = 2;
/// What may be sent to an instance before it has said that it has read anything.
const ROOM: u32 = 1 << 20;

/// What an instance does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Deed {
    /// Gives its body back.
    Answer,
    /// Ends its stream with this code as soon as its head is there.
    ResetAtOnce(u32),
    /// Ends its stream with this code when all of it is there.
    Reset(u32),
    /// Says that it takes no requests from this one on, and ends.
    LeaveBefore,
    /// Says that it takes no requests behind this one, and ends without an answer.
    LeaveBehind,
}

/// The instances of a fleet: the first of the deeds is done with the first request that comes to any of them, and so on.
struct Script {
    deeds: Mutex<VecDeque<Deed>>,
    /// The bodies of the requests with which something was done, as far as they had come.
    seen: Mutex<Vec<String>>,
}

impl Script {
    fn of(deeds: &[Deed]) -> Arc<Self> {
        Arc::new(Self { deeds: Mutex::new(deeds.iter().copied().collect()), seen: Mutex::default() })
    }

    fn instance(self: &Arc<Self>) -> Instance {
        let script = self.clone();
        Instance::raw(move |connection| script.play(connection.reader.get_mut()).unwrap_or_default())
    }

    fn play(&self, stream: &mut TcpStream) -> Option<()> {
        stream.read_exact(&mut [0; PREFACE.len()]).ok()?;
        let window = [&[0, 4], &ROOM.to_be_bytes()[..]].concat();
        let (settings, room) =
            (frame(SETTINGS, 0, 0, &window), frame(WINDOW_UPDATE, 0, 0, &ROOM.to_be_bytes()));
        stream.write_all(&[settings, room].concat()).ok()?;
        let mut bodies = HashMap::<u32, (Deed, String)>::new();
        loop {
            let (kind, flags, id, payload) = next_of_any(stream)?;
            match kind {
                SETTINGS if flags == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[])).ok()?,
                HEADERS => {
                    let deed = self.deeds.lock().unwrap().pop_front().expect("no more requests than that");
                    bodies.insert(id, (deed, String::new()));
                }
                DATA => {
                    // Of one that was refused some may still come.
                    let Some((_, body)) = bodies.get_mut(&id) else { continue };
                    body.push_str(std::str::from_utf8(&payload).unwrap());
                }
                _ => {}
            }
            let ends = matches!(kind, HEADERS | DATA) && flags & 1 != 0;
            let is_reset = |id| matches!(bodies.get(id), Some((Deed::ResetAtOnce(_), _)));
            if (ends || kind == HEADERS && is_reset(&id))
                && let Some((deed, body)) = bodies.remove(&id)
            {
                self.seen.lock().unwrap().push(body.clone());
                self.act(deed, id, &body, stream)?;
            }
        }
    }

    /// None if that is the end of the connection.
    fn act(&self, deed: Deed, id: u32, body: &str, stream: &mut TcpStream) -> Option<()> {
        let leave = |last: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat());
        let said = match deed {
            Deed::Answer => {
                let pieces = body.as_bytes().chunks(1 << 14).map(|piece| frame(DATA, 0, id, piece));
                let pieces: Vec<u8> = pieces.flatten().collect();
                [frame(HEADERS, 4, id, &OK), pieces, frame(DATA, 1, id, &[])].concat()
            }
            Deed::ResetAtOnce(code) | Deed::Reset(code) => frame(RST_STREAM, 0, id, &code.to_be_bytes()),
            Deed::LeaveBefore => leave(id - 2.min(id)),
            Deed::LeaveBehind => leave(id),
        };
        stream.write_all(&said).ok()?;
        (!matches!(deed, Deed::LeaveBefore | Deed::LeaveBehind)).then_some(())
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// An edge before two instances that do this.
fn before(deeds: &[Deed]) -> (Edge, Arc<Script>) {
    let script = Script::of(deeds);
    let edge = Edge::start();
    let (one, other) = (script.instance(), script.instance());
    let mut fleet = serve_h2c(&edge, 1, &one);
    fleet.instances = edge.fleet(1, &[&one, &other]).instances;
    edge.set(vec![route(None, "/", &[(&fleet.id, 1)])], vec![fleet]);
    (edge, script)
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn answer(message: &Message) -> (u16, &str) {
    (message.status(), message.text())
}

#[test]
fn what_an_instance_refuses_to_begin_with_is_asked_again_whatever_it_is() {
    for deed in [Deed::Reset(REFUSED_STREAM), Deed::ResetAtOnce(REFUSED_STREAM), Deed::LeaveBefore] {
        for _ in 0..20 {
            let (edge, script) = before(&[deed, Deed::Answer, deed, Deed::Answer, Deed::Answer]);
            let mut client = edge.connect();
            // Over a connection that is fresh, and over one that has answered before.
            for words in ["hello", "again"] {
                assert_eq!(answer(&client.send(post(words)).read()), (200, words));
                assert!(script.seen().pop().is_some_and(|whole| whole == words), "once, and whole");
            }
            assert_eq!(client.get("/").status(), 200);
            let count = edge.drained();
            assert_eq!((count.served, count.failed, script.seen().len()), (3, 0, 5));
            edge.tells("kiln_edge_ejections_total 0");
        }
    }
}

#[test]
fn the_rest_of_an_upload_follows_to_the_next_instance() {
    let (edge, script) = before(&[Deed::ResetAtOnce(REFUSED_STREAM), Deed::Answer]);
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
    while script.seen().is_empty() {
        std::thread::yield_now();
    }
    edge.tells("kiln_edge_retries_total 1");
    assert_eq!(answer(&client.send("whole").read()), (200, "halfwhole"));
    let chunks =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
    let (edge, _) = before(&[Deed::Reset(REFUSED_STREAM), Deed::Answer]);
    assert_eq!(answer(&edge.connect().send(chunks).read()), (200, "abcd"));
}

#[test]
fn what_may_have_been_begun_with_is_not_asked_again() {
    for deed in [Deed::LeaveBehind, Deed::Reset(INTERNAL_ERROR)] {
        let (edge, script) = before(&[deed]);
        assert_eq!(edge.connect().send(post("hello")).read().status(), 502);
        edge.tells("kiln_edge_refused_requests_total{cause=\"lost\"} 1");
        assert_eq!(script.seen(), ["hello"]);
    }
}

/// It would have to be kept whole.
#[test]
fn a_large_upload_that_is_refused_is_not_asked_again() {
    let large = "x".repeat(70_000);
    let (edge, script) = before(&[Deed::Reset(REFUSED_STREAM), Deed::Answer]);
    assert_eq!(edge.connect().send(post(&large)).read().status(), 502);
    edge.tells("kiln_edge_refused_requests_total{cause=\"declined\"} 1");
    assert_eq!(script.seen(), [large]);
    let (edge, _) = before(&[Deed::Reset(REFUSED_STREAM), Deed::Answer]);
    let enough = "x".repeat(64 << 10);
    assert_eq!(answer(&edge.connect().send(post(&enough)).read()), (200, enough.as_str()));
}

#[test]
fn what_everybody_refuses_is_said_so() {
    let (edge, script) = before(&[Deed::Reset(REFUSED_STREAM); 2]);
    assert_eq!(edge.connect().send(post("hello")).read().status(), 502);
    edge.tells("kiln_edge_refused_requests_total{cause=\"declined\"} 1");
    assert_eq!((edge.drained().failed, script.seen().len()), (1, 2));
}
