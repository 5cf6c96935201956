//! The bytes of a request as an instance is sent them, and the head of what it answers.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::task::Poll;

use hyper::Method;
use tokio::time::Instant;

use super::answer::{self, Answer, Framing};
use super::line::Line;
use crate::course::{Again, Kept, Miss};
use crate::cut::Ticket;
use crate::refusal::Refusal;
use crate::upstream::Upstream;
use crate::worker::Worker;

/// A request, as instances get it.
pub(crate) struct Query {
    method: Method,
    /// Head and body.
    bytes: Vec<u8>,
    /// Whether it may be sent again when it may have been carried out.
    repeats: Repeats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeats {
    Allowed,
    Never,
}

/// The head of an answer, and what was read with it.
pub(crate) struct Heard<H> {
    pub(super) line: Line,
    pub(super) rest: Rest,
    pub(crate) status: u16,
    pub(super) head: H,
}

/// What follows the head of an answer.
pub(super) struct Rest {
    pub(super) framing: Framing,
    pub(super) is_events: bool,
    /// What was read with the head, and where in it the body begins.
    pub(super) bytes: Vec<u8>,
    pub(super) at: usize,
}

/// The head of an answer in the form in which it goes on.
pub(crate) trait Head: Sized {
    /// None if it cannot be said so.
    fn of(answer: &Answer<'_, '_>, worker: &Worker) -> Option<Self>;
}

/// As it goes to a client of HTTP/1.1, without the line at its end.
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    /// Whether it names its request.
    pub(super) has_id: bool,
}

impl Head for Written {
    fn of(answer: &Answer<'_, '_>, worker: &Worker) -> Option<Self> {
        let mut bytes = worker.buffers.take();
        let has_id = answer.write(&mut bytes);
        Some(Self { bytes, has_id })
    }
}

impl Query {
    /// `bytes`: head and body.
    pub(crate) fn new(method: Method, bytes: Vec<u8>, repeats: Repeats) -> Self {
        Self { method, bytes, repeats }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Asks this instance, over a connection that was kept if there may be one.
    pub(crate) async fn ask<H: Head>(
        &self,
        worker: &Worker,
        upstream: &Rc<Upstream>,
        kept: Kept,
        ticket: &Ticket,
    ) -> Result<Heard<H>, Miss> {
        let mut line = Line::to(upstream, worker, kept, self.repeats == Repeats::Never).await?;
        ticket.awaits(Some(Instant::now()));
        let heard = match self.send(&mut line, ticket).await {
            Ok(()) => self.hear(line, worker, ticket).await,
            Err(miss) => Err(miss),
        };
        ticket.awaits(None);
        heard
    }

    /// What follows when an instance was sent it and gave no answer.
    fn lost(&self, line: &Line, refusal: Refusal) -> Miss {
        let again = match self.repeats {
            Repeats::Never if refusal != Refusal::Unreachable => Again::No,
            _ if line.was_kept => Again::Fresh,
            _ => Again::Elsewhere,
        };
        Miss { refusal, again }
    }

    async fn send(&self, line: &mut Line, ticket: &Ticket) -> Result<(), Miss> {
        let mut sent = 0;
        let sending = poll_fn(|cx| match line.poll_send(cx, &self.bytes, &mut sent) {
            Poll::Pending if ticket.is_late() => Poll::Ready(None),
            sending => sending.map(Some),
        });
        match sending.await {
            Some(Ok(())) => Ok(()),
            // Nothing of it was taken.
            Some(Err(_)) if sent == 0 => Err(self.lost(line, Refusal::Unreachable)),
            // It may have answered before it had heard everything.
            Some(Err(_)) => {
                line.is_reset();
                Ok(())
            }
            None => Err(Miss { refusal: Refusal::ResponseTimeout, again: Again::No }),
        }
    }

    async fn hear<H: Head>(
        &self,
        mut line: Line,
        worker: &Worker,
        ticket: &Ticket,
    ) -> Result<Heard<H>, Miss> {
        let (mut bytes, mut at) = (Vec::new(), 0);
        loop {
            match more(&mut line, &mut bytes, worker, ticket).await {
                Some(Ok(1..)) => {}
                Some(Ok(0) | Err(_)) => return Err(self.lost(&line, Refusal::Lost)),
                None => return Err(Miss { refusal: Refusal::ResponseTimeout, again: Again::No }),
            }
            match self.read(&bytes, &mut at, worker) {
                // Those before the answer count as well: there is an end to them.
                Read::Partial if bytes.len() < worker.limits.header_bytes => {}
                Read::Partial | Read::Garbage => {
                    return Err(Miss { refusal: Refusal::Garbage, again: Again::No });
                }
                Read::Whole(Summary { status, framing, keeps, is_events, head }) => {
                    line.used_for(framing, keeps);
                    if matches!(framing, Framing::Length(_)) && !is_events && bytes.len() == at {
                        self.begins(&mut line, &mut bytes, worker, ticket).await?;
                    }
                    let rest = Rest { framing, is_events, bytes, at };
                    return Ok(Heard { line, rest, status, head });
                }
            }
        }
    }

    /// Waits for the first bytes of a body that was promised. An instance that dies between the head and the body has
    /// not begun to answer as far as anybody was told, and the request may be asked again as if there were no head. One
    /// that takes its time is believed in the end.
    async fn begins(
        &self,
        line: &mut Line,
        bytes: &mut Vec<u8>,
        worker: &Worker,
        ticket: &Ticket,
    ) -> Result<(), Miss> {
        match more(line, bytes, worker, ticket).await {
            Some(Ok(1..)) | None => Ok(()),
            Some(Ok(0) | Err(_)) => Err(self.lost(line, Refusal::Lost)),
        }
    }

    /// Reads what was heard from `at` on, which moves past every head that is whole.
    fn read<H: Head>(&self, bytes: &[u8], at: &mut usize, worker: &Worker) -> Read<H> {
        loop {
            let mut room = [MaybeUninit::uninit(); answer::FIELDS];
            let most = worker.limits.header_count;
            match answer::parse(&bytes[*at..], &mut room, self.method.as_str(), most) {
                answer::Parsed::Interim(length) => *at += length,
                answer::Parsed::Partial => return Read::Partial,
                answer::Parsed::Garbage => return Read::Garbage,
                answer::Parsed::Whole(answer) => {
                    *at += answer.length;
                    let Some(head) = H::of(&answer, worker) else { return Read::Garbage };
                    let Answer { status, framing, keeps, is_events, .. } = answer;
                    return Read::Whole(Summary { status, framing, keeps, is_events, head });
                }
            }
        }
    }
}

/// Reads more of an answer; none if it is late.
async fn more(
    line: &mut Line,
    bytes: &mut Vec<u8>,
    worker: &Worker,
    ticket: &Ticket,
) -> Option<io::Result<usize>> {
    poll_fn(|cx| match line.poll_hear(cx, bytes, worker) {
        Poll::Pending if ticket.is_late() => Poll::Ready(None),
        hearing => hearing.map(Some),
    })
    .await
}

enum Read<H> {
    Partial,
    Garbage,
    Whole(Summary<H>),
}

struct Summary<H> {
    status: u16,
    framing: Framing,
    keeps: bool,
    is_events: bool,
    head: H,
}
