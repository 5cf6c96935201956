//! The way of ordinary requests of HTTP/1.1: read, sent on and answered without a library in between.
//!
//! Every connection of HTTP/1.1 begins here. What is not an ordinary request is given back unread, and hyper carries
//! that and the rest of the connection. What is decided about a request is decided elsewhere ([`crate::course`]), for
//! all ways in the same manner.

pub mod answer;
mod body;
pub mod chunks;
mod direct;
mod errand;
mod field;
mod lane;
mod line;
mod pass;
mod query;
pub mod request;
mod tail;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Response, Version};

use crate::body::ResponseBody;
use crate::client_io::ClientIo;
use crate::connection::Connection;
use crate::counts::Turn;
use crate::course::{Course, Stop};
use crate::lease::{Lease, Reply};
use crate::upstream::Burden;
use crate::worker::Worker;
pub(crate) use direct::direct;
pub(crate) use errand::Express;
use lane::{Lane, Next};
use pass::{Passed, pass};
pub(crate) use query::{Head, Repeats};
use query::{Heard, Written};
pub(crate) use tail::Tail;

/// What comes after a request.
enum After {
    /// Another one.
    Next,
    /// The end of the connection.
    End,
    /// hyper.
    Foreign,
}

/// Whether there is room here for all the fields that are let through.
pub(crate) fn carries(worker: &Worker) -> bool {
    worker.limits.header_count <= answer::FIELDS
}

/// Serves a connection until it ends, or until there is something on it that hyper is to carry.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    io: ClientIo,
) -> Option<ClientIo> {
    if !carries(worker) {
        return Some(io);
    }
    let mut lane = Lane::new(worker.clone(), connection.clone(), io);
    while !worker.is_closing() {
        let after = match lane.next().await {
            // Boxed, so that a connection at rest does not carry its weight.
            Next::Request(errand, read) => Box::pin(carry(&mut lane, errand, &read)).await,
            Next::Foreign => After::Foreign,
            Next::End => After::End,
        };
        match after {
            After::Next => {}
            After::End => break,
            After::Foreign => return Some(lane.io),
        }
    }
    lane.close().await;
    None
}

/// Carries one request, read from the bytes `read`.
async fn carry(lane: &mut Lane, mut errand: Express<Written>, read: &[u8]) -> After {
    let worker = lane.worker.clone();
    let mut reply = Reply::begin(worker.clone(), lane.connection.clone(), Version::HTTP_11);
    let turn = Turn::begin(worker.totals.clone());
    reply.account.story = worker.log.is_some().then(|| Box::new(errand.story(Version::HTTP_11)));
    let mut course = Course::new(worker, turn, reply);
    let obtained = {
        let mut obtaining = pin!(course.obtain(&mut errand));
        poll_fn(|cx| match obtaining.as_mut().poll(cx) {
            Poll::Ready(obtained) => Poll::Ready(Some(obtained)),
            Poll::Pending if lane.is_left(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    };
    match obtained {
        Some(Ok((heard, burden))) => answer(lane, course, &errand, heard, burden).await,
        Some(Err(Stop::Otherwise)) => {
            course.forget();
            lane.give_back(read);
            After::Foreign
        }
        Some(Err(Stop::Refused(refusal))) => {
            let cookie = course.cookie();
            course.refused(refusal);
            let port = lane.worker.https_port.load(Relaxed);
            let response = refusal.response_at(port, Some(errand.host()), errand.target());
            Box::pin(say(lane, response, &errand, cookie)).await
        }
        None => After::End,
    }
}

/// Passes on what an instance answers.
async fn answer(
    lane: &mut Lane,
    mut course: Course,
    errand: &Express<Written>,
    heard: Heard<Written>,
    burden: Burden,
) -> After {
    let Heard { line, rest, status, head: Written { bytes: mut head, has_id } } = heard;
    let cookie = course.cookie();
    let id = if has_id { None } else { Some(errand.id()) };
    let after = finish(lane, &mut head, id, cookie);
    // It was counted where it was sent.
    let Some(place) = course.answered(status, burden) else { return After::End };
    let lease = Lease::new(line, lane.worker.limits.upstream_idle_count, place);
    match pass(lane, rest, head, lease).await {
        Passed::Whole => after,
        Passed::Broken => After::End,
    }
}

/// The edge's own words.
async fn say(
    lane: &mut Lane,
    response: Response<ResponseBody>,
    errand: &Express<Written>,
    cookie: Option<HeaderValue>,
) -> After {
    let (parts, body) = response.into_parts();
    let words = body.own();
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_u16()).into_bytes();
    for (name, value) in &parts.headers {
        field(&mut head, name.as_str(), value.as_bytes());
    }
    field(&mut head, "content-length", words.len().to_string().as_bytes());
    answer::date(&mut head);
    let mut after = finish(lane, &mut head, Some(errand.id()), cookie);
    if parts.headers.get(CONNECTION).is_some() {
        after = After::End;
    }
    if !errand.is_head() {
        head.extend_from_slice(&words);
    }
    match lane.write(&head).await {
        Ok(()) => after,
        Err(_) => After::End,
    }
}

/// Ends a head with what the edge adds to every answer.
fn finish(lane: &Lane, head: &mut Vec<u8>, id: Option<&[u8]>, cookie: Option<HeaderValue>) -> After {
    if let Some(id) = id {
        field(head, "x-request-id", id);
    }
    if let Some(cookie) = cookie {
        field(head, "set-cookie", cookie.as_bytes());
    }
    let after = if lane.worker.is_draining() { After::End } else { After::Next };
    if matches!(after, After::End) {
        field(head, "connection", b"close");
    }
    head.extend_from_slice(b"\r\n");
    after
}

fn field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(piece);
    }
}
