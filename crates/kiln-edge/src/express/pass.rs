//! The body of an answer on its way to the client.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::answer::Framing;
use super::body::{Body, LARGE};
use super::chunks::Malformed;
use super::lane::Lane;
use super::line::{Line, UseAfter};
use super::query::Rest;
use crate::lease::Lease;

/// The end of a body in chunks.
const LAST: &[u8] = b"0\r\n\r\n";

/// How an answer went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// The client has all of it.
    Whole,
    /// It has not, and must not take it for whole.
    Broken,
}

/// One chunk with this data, of which there is some: none would be the last.
fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// What comes next from an instance.
enum Heeded {
    More,
    End,
    /// The connection broke.
    Lost,
    /// The answer is to end.
    Told,
    /// The client has left.
    Left,
}

/// Passes an answer on; its head is whole.
pub(super) async fn pass(lane: &mut Lane, rest: Rest, mut out: Vec<u8>, lease: Lease<Line>) -> Passed {
    let Rest { framing, is_events, mut bytes, mut at } = rest;
    let (mut body, mut lease) = (Body::of(framing), Some(lease));
    let passed = loop {
        let Some(mut held) = lease.take() else { break Passed::Whole };
        let taken = body.take(&bytes[at..], |data| match framing {
            Framing::Chunks | Framing::Close => chunk(&mut out, data),
            Framing::Nothing | Framing::Length(_) => out.extend_from_slice(data),
        });
        match taken {
            Ok(piece) => {
                held.passed(piece.data);
                if piece.is_last {
                    if framing == Framing::Chunks {
                        out.extend_from_slice(LAST);
                    }
                    if at + piece.used < bytes.len() {
                        // More than was promised: nobody is to get that.
                        held.was_overlong();
                        held.line().0.use_after = UseAfter::None;
                    }
                    held.complete();
                } else {
                    lease = Some(held);
                }
            }
            Err(Malformed) => {
                held.cut_short();
                let _ = lane.write(&out).await;
                break Passed::Broken;
            }
        }
        if lane.write(&out).await.is_err() {
            break Passed::Broken;
        }
        let Some(held) = &mut lease else { break Passed::Whole };
        if bytes.len() == bytes.capacity() && bytes.len() < LARGE {
            bytes = Vec::with_capacity(LARGE);
        }
        bytes.clear();
        at = 0;
        // Events may be far apart: no buffer waits for them.
        lane.worker.buffers.give(std::mem::take(&mut out));
        let heeded = poll_fn(|cx| heed(lane, held, &mut bytes, cx)).await;
        out = lane.worker.buffers.take();
        match heeded {
            Heeded::More => {}
            Heeded::Left => break Passed::Broken,
            ended => break end(lane, lease, &ended, (is_events, framing)).await,
        }
    };
    lane.worker.buffers.give(bytes);
    lane.worker.buffers.give(out);
    passed
}

fn heed(lane: &mut Lane, lease: &mut Lease<Line>, bytes: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<Heeded> {
    let (line, ticket) = lease.line();
    match line.poll_hear(cx, bytes, &lane.worker) {
        Poll::Ready(Ok(1..)) => Poll::Ready(Heeded::More),
        Poll::Ready(Ok(0)) => Poll::Ready(Heeded::End),
        Poll::Ready(Err(_)) => Poll::Ready(Heeded::Lost),
        Poll::Pending if ticket.poll_told(cx) => Poll::Ready(Heeded::Told),
        Poll::Pending if lane.is_left(cx) => Poll::Ready(Heeded::Left),
        Poll::Pending => Poll::Pending,
    }
}

/// Ends an answer of which nothing more comes.
async fn end(
    lane: &mut Lane,
    lease: Option<Lease<Line>>,
    why: &Heeded,
    (is_events, framing): (bool, Framing),
) -> Passed {
    let Some(lease) = lease else { return Passed::Broken };
    let is_framed = matches!(framing, Framing::Chunks | Framing::Close);
    match why {
        Heeded::End if framing == Framing::Close => lease.complete(),
        // Clients expect events to end and come again.
        Heeded::Told if is_events && is_framed => lease.ended(),
        _ => {
            lease.cut_short();
            return Passed::Broken;
        }
    }
    match lane.write(LAST).await {
        Ok(()) => Passed::Whole,
        Err(_) => Passed::Broken,
    }
}
