//! What a request holds at its fleet while its answer is under way.

use std::rc::Rc;

use hyper::Version;

use crate::account::{Account, Stage};
use crate::connection::Connection;
use crate::counts::{Ending, InFlight, Turn};
use crate::cut::Ticket;
use crate::metrics::{Cause as _, Flaw};
use crate::refusal::Refusal;
use crate::upstream::{Burden, Channel, Upstream};
use crate::worker::Worker;

/// One request's place in the counts.
pub(crate) struct Place {
    pub(crate) burden: Burden,
    pub(crate) flight: InFlight,
    pub(crate) turn: Turn,
    /// Last, so dropped last: only when everything is counted does the client's connection rest.
    pub(crate) reply: Reply,
}

impl Place {
    /// Counts the request as failed.
    pub(crate) fn fail(&mut self) {
        self.flight.ends(Ending::Failed);
        self.turn.failed();
    }

    /// Its answer has begun and will not be whole.
    fn tell_of_the_cut(&mut self) {
        let cause = if self.reply.ticket.has_overrun() {
            self.reply.count(Refusal::TooLarge);
            Refusal::TooLarge.cause()
        } else if self.flight.tally().is_gone() {
            Refusal::Retired.cause()
        } else {
            self.reply.spoilt(Flaw::BrokenOff);
            Flaw::BrokenOff.as_str()
        };
        if let Some(story) = &mut self.reply.account.story {
            story.cause = Some(cause);
        }
    }
}

/// What an answer comes over.
pub(crate) trait Line {
    /// The answer has gone through whole: what it came over waits for the next request to `upstream`, unless as many
    /// as `at_most` do already.
    fn keep(self, upstream: &Upstream, at_most: usize);
}

impl Line for Channel {
    fn keep(self, upstream: &Upstream, at_most: usize) {
        upstream.put(self, at_most);
    }
}

/// A place, and the connection the answer comes over. Dropped without a word, it means that the client did not wait
/// for the end.
pub(crate) struct Lease<L: Line = Channel> {
    line: L,
    idle_count: usize,
    place: Place,
}

/// From the reading of a request to the end of its answer, on the client's connection.
pub(crate) struct Reply {
    connection: Rc<Connection>,
    ticket: Rc<Ticket>,
    version: Version,
    is_wasted: bool,
    pub(crate) account: Account,
    worker: Rc<Worker>,
}

impl Reply {
    /// `version`: the request's.
    pub(crate) fn begin(worker: Rc<Worker>, connection: Rc<Connection>, version: Version) -> Self {
        let ticket = connection.begin();
        if version == Version::HTTP_2 {
            *connection.newest.borrow_mut() = Some(ticket.clone());
        }
        Self {
            connection,
            ticket,
            version,
            is_wasted: version == Version::HTTP_2,
            account: Account::open(),
            worker,
        }
    }

    /// Of a connection that is passed on as it is: what becomes of it is counted where it leads to, and is no request's
    /// refusal, whoever ends it.
    pub(crate) fn untold(worker: Rc<Worker>, connection: Rc<Connection>) -> Self {
        let mut reply = Self::begin(worker, connection, Version::HTTP_11);
        reply.answered();
        reply
    }

    pub(crate) fn ticket(&self) -> &Rc<Ticket> {
        &self.ticket
    }

    /// The request was worth its while: there is an answer to it.
    pub(crate) fn answered(&mut self) {
        self.is_wasted = false;
        self.account.stage = Stage::Ended;
    }

    /// The edge answers it itself, for this reason.
    pub(crate) fn refused(&mut self, refusal: Refusal) {
        self.count(refusal);
        self.answered();
        self.account.status = refusal.status().as_u16();
        if let Some(story) = &mut self.account.story {
            story.cause = Some(refusal.cause());
        }
    }

    /// Counts why it has no answer, with the route and fleet it was meant for if they are known.
    fn count(&self, refusal: Refusal) {
        self.worker.registry.causes.count(refusal);
        if let Some(meter) = &self.account.meter {
            meter.refused(refusal);
        }
    }

    /// Counts what is wrong with its answer.
    fn spoilt(&self, flaw: Flaw) {
        self.worker.registry.flaws.count(flaw);
        if let Some(meter) = &self.account.meter {
            meter.spoilt(flaw);
        }
    }

    /// It ends before it has come to its end, and nobody has said why.
    fn is_left(&mut self) {
        let cause = self.who_left();
        if self.account.stage == Stage::Waits {
            self.count(cause);
        }
        if let Some(story) = &mut self.account.story {
            story.cause = Some(cause.cause());
        }
    }

    /// The client, unless the edge had reason to end it.
    fn who_left(&self) -> Refusal {
        let limits = &self.worker.limits;
        if self.ticket.told_at().is_some() {
            Refusal::Retired
        } else if self.ticket.is_stalled(limits.client_stall) || self.connection.marks.is_overdue(limits) {
            Refusal::ClientTooSlow
        } else {
            Refusal::ClientLeft
        }
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.account.stage != Stage::Ended {
            self.is_left();
        }
        self.account.close(self.worker.log.as_ref());
        self.ticket.ends();
        self.connection.end(&self.ticket, self.is_wasted);
    }
}

impl<L: Line> Lease<L> {
    /// `idle_count`: how many unused connections the instance may have when this one is done.
    pub(crate) fn new(line: L, idle_count: usize, mut place: Place) -> Self {
        place.flight.ends(Ending::Answered);
        place.reply.answered();
        place.reply.account.stage = Stage::Answers;
        Self { line, idle_count, place }
    }

    /// So many bytes of the body have gone to the client.
    pub(crate) fn passed(&mut self, bytes: usize) {
        self.place.reply.account.bytes += bytes as u64;
    }

    /// What it comes over, and what it is asked to end by.
    pub(crate) fn line(&mut self) -> (&mut L, &Ticket) {
        (&mut self.line, self.place.reply.ticket())
    }

    pub(crate) fn ticket(&self) -> &Ticket {
        self.place.reply.ticket()
    }

    /// The answer has gone through whole: its connection waits for the next request.
    pub(crate) fn complete(mut self) {
        self.place.reply.account.stage = Stage::Ended;
        self.line.keep(self.place.burden.upstream(), self.idle_count);
    }

    /// It is ended at the edge's wish, with the end its protocol knows: there is nothing to tell the client.
    pub(crate) fn ended(mut self) {
        self.place.flight.ends(Ending::Cut);
        self.place.reply.account.stage = Stage::Ended;
    }

    /// More followed than the answer promised; nobody is to get that.
    pub(crate) fn was_overlong(&mut self) {
        self.place.reply.spoilt(Flaw::Overlong);
    }

    /// The instance broke off in the middle of its answer, or is made to: by a fleet that has left, or by a client whose
    /// request grows too large, which is no failure of the fleet.
    pub(crate) fn cut_short(mut self) {
        if !self.place.reply.ticket.has_overrun() {
            self.place.fail();
        }
        self.place.reply.account.stage = Stage::Ended;
        self.place.tell_of_the_cut();
        if self.place.reply.version < Version::HTTP_11 {
            self.place.reply.connection.marks.reset_at_end();
        }
    }
}
