//! What a request holds at its fleet while its answer is under way.

use std::rc::Rc;

use hyper::Version;

use crate::connection::Connection;
use crate::counts::{Ending, InFlight, Turn};
use crate::upstream::{Burden, Channel};

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
}

/// A place, and the connection the answer comes over. Dropped without a word, it means that the client did not wait
/// for the end.
pub(crate) struct Lease {
    channel: Channel,
    idle_count: usize,
    place: Place,
}

/// From the reading of a request to the end of its answer, on the client's connection.
pub(crate) struct Reply {
    connection: Rc<Connection>,
    version: Version,
}

impl Reply {
    /// `version`: the request's.
    pub(crate) fn begin(connection: Rc<Connection>, version: Version) -> Self {
        connection.marks.busy();
        Self { connection, version }
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.connection.leave_fleet();
        self.connection.marks.rest();
    }
}

impl Lease {
    /// `idle_count`: how many unused connections the instance may have when this one is done.
    pub(crate) fn new(channel: Channel, idle_count: usize, mut place: Place) -> Self {
        place.flight.ends(Ending::Answered);
        Self { channel, idle_count, place }
    }

    /// The answer has gone through whole: its connection waits for the next request.
    pub(crate) fn complete(self) {
        self.place.burden.upstream().put(self.channel, self.idle_count);
    }

    /// The instance broke off in the middle of its answer.
    pub(crate) fn cut_short(mut self) {
        self.place.fail();
        if self.place.reply.version < Version::HTTP_11 {
            self.place.reply.connection.marks.reset_at_end();
        }
    }
}
