//! The body of an answer on its way to the client.

use std::future::poll_fn;
use std::task::Poll;

use super::answer::Framing;
use super::body::{Body, LARGE};
use super::chunks::Malformed;
use super::lane::Lane;
use super::line::{Came, Line};
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
                    held.has_all(at + piece.used < bytes.len());
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
        let came = poll_fn(|cx| match held.poll_more(cx, &mut bytes, &lane.worker) {
            Poll::Pending if lane.is_left(cx) => Poll::Ready(None),
            came => came.map(Some),
        });
        let came = came.await;
        out = lane.worker.buffers.take();
        match came {
            Some(Came::More) => {}
            Some(why) => {
                let is_whole = lease.is_some_and(|lease| lease.has_no_more(&why, framing, is_events));
                let has_its_end = is_whole && lane.write(LAST).await.is_ok();
                break if has_its_end { Passed::Whole } else { Passed::Broken };
            }
            // The client has left.
            None => break Passed::Broken,
        }
    };
    lane.worker.buffers.give(bytes);
    lane.worker.buffers.give(out);
    passed
}
