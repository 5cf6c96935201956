//! The client connections of one thread: who they are, where their requests are, and how to end them.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::Limits;
use crate::client_io::Marks;
use crate::clients::Admitted;
use crate::counts::Totals;
use crate::cut::Ticket;
use crate::inside::Caller;
use crate::metrics::{ByCause, Reason};
use crate::origin::{Peer, Scheme};
use crate::trust::Trust;

/// One client connection, or the tunnel it has become.
pub(crate) struct Connection {
    pub(crate) marks: Arc<Marks>,
    /// Who is at the other end, from the moment the first request can come.
    peer: OnceCell<Peer>,
    /// The instance it comes from, if it does.
    caller: OnceCell<Arc<Caller>>,
    /// Where the client thinks it is, for the few that do not say.
    pub(crate) local: SocketAddr,
    /// Its requests in flight: one at a time, or many over HTTP/2.
    tickets: RefCell<Vec<Rc<Ticket>>>,
    /// The one last begun, until its task is known.
    pub(crate) newest: RefCell<Option<Rc<Ticket>>>,
    /// Requests of this connection that the client gave up, less those it did not.
    wasted: Cell<u32>,
    abort: RefCell<Option<AbortHandle>>,
    /// Told when the client is to be asked to leave.
    pub(crate) retired: Notify,
    was_retired: Cell<bool>,
    /// What it waits for.
    pub(crate) pause: Cell<Pause>,
    /// Counts as one of its client's for as long as anything of it is there, the tunnel above all.
    _admitted: Admitted,
}

/// What a connection waits for, as far as that says how it may be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// For the next request, with nothing of it read and nothing left to write: it can be ended at any time.
    Between,
    /// For something else, or nobody knows.
    Within,
}

impl Connection {
    pub(crate) fn new(marks: Arc<Marks>, local: SocketAddr, admitted: Admitted) -> Self {
        Self {
            marks,
            peer: OnceCell::new(),
            caller: OnceCell::new(),
            local,
            tickets: RefCell::default(),
            newest: RefCell::default(),
            wasted: Cell::new(0),
            abort: RefCell::default(),
            retired: Notify::new(),
            was_retired: Cell::new(false),
            pause: Cell::new(Pause::Within),
            _admitted: admitted,
        }
    }

    /// Says who is at the other end; the first word counts.
    pub(crate) fn is_from(&self, peer: Peer) {
        let _ = self.peer.set(peer);
    }

    /// Says that it comes from inside an instance.
    pub(crate) fn is_called_by(&self, caller: Arc<Caller>) {
        let _ = self.caller.set(caller);
    }

    /// The instance it comes from, if it does.
    pub(crate) fn caller(&self) -> Option<&Arc<Caller>> {
        self.caller.get()
    }

    pub(crate) fn peer(&self) -> &Peer {
        let nobody = || Peer::new(self.local, Scheme::Http, &Trust::default());
        self.peer.get_or_init(nobody)
    }

    /// A request has begun.
    pub(crate) fn begin(&self) -> Rc<Ticket> {
        let ticket = Rc::<Ticket>::default();
        self.tickets.borrow_mut().push(ticket.clone());
        self.marks.busy();
        ticket
    }

    /// It has ended: with its answer, or given up by the client.
    pub(crate) fn end(&self, ticket: &Rc<Ticket>, is_wasted: bool) {
        let mut tickets = self.tickets.borrow_mut();
        if let Some(at) = tickets.iter().position(|t| Rc::ptr_eq(t, ticket)) {
            tickets.swap_remove(at);
        }
        let wasted = self.wasted.get();
        self.wasted.set(if is_wasted { wasted + 1 } else { wasted.saturating_sub(1) });
        self.marks.rest();
    }

    /// Asks those of its requests to end whose fleet has left the table.
    fn tell_those_at_fleets_gone(&self) {
        self.tickets.borrow().iter().filter(|t| t.is_at_a_fleet_gone()).for_each(|t| t.tell());
    }

    /// Ends what was asked to end long enough ago, and what its client does not take.
    fn enforce(&self, limits: &Limits) {
        self.tickets.borrow().iter().for_each(|t| t.note_late(limits.response_head));
        let overdue = |t: &Rc<Ticket>| {
            t.told_at().is_some_and(|told| told.elapsed() > Ticket::GRACE)
                || t.is_stalled(limits.client_stall)
        };
        let overdue: Vec<Rc<Ticket>> = self.tickets.borrow().iter().filter(|t| overdue(t)).cloned().collect();
        for ticket in overdue {
            if !ticket.abort() {
                self.abort();
            }
        }
    }

    /// Whether it only begins requests to give them up, which costs instances more than it costs the client.
    fn is_wasteful(&self, limits: &Limits) -> bool {
        self.wasted.get() > limits.wasted_requests
    }

    /// Ends a connection that does nothing: with a word where the protocol has one, and without if that was in vain.
    fn give_up(&self) {
        if self.marks.is_multiplexed() && !self.marks.is_stalled() && !self.was_retired.replace(true) {
            self.retired.notify_one();
            self.marks.settled();
        } else {
            self.abort();
        }
    }

    /// Ends the connection now, whatever it is doing; what it holds is released and counted when its task is dropped.
    fn abort(&self) {
        if let Some(handle) = self.abort.borrow().as_ref() {
            handle.abort();
        }
    }
}

/// All of a thread's connections.
pub(crate) struct Connections {
    totals: Arc<Totals>,
    all: RefCell<HashMap<u64, Rc<Connection>>>,
    next: Cell<u64>,
    /// Told when one ends.
    pub(crate) ended: Notify,
}

/// Keeps a connection listed for as long as its task lives.
pub(crate) struct Listed {
    connections: Rc<Connections>,
    key: u64,
}

impl Connections {
    pub(crate) fn new(totals: Arc<Totals>) -> Rc<Self> {
        Rc::new(Self { totals, all: RefCell::default(), next: Cell::new(0), ended: Notify::new() })
    }

    pub(crate) fn list(self: &Rc<Self>, connection: Rc<Connection>) -> Listed {
        let key = self.next.get();
        self.next.set(key + 1);
        self.all.borrow_mut().insert(key, connection);
        self.totals.connections.fetch_add(1, SeqCst);
        Listed { connections: self.clone(), key }
    }

    /// How the connection listed under `key` can be ended from now on.
    pub(crate) fn ended_by(&self, key: u64, handle: AbortHandle) {
        if let Some(connection) = self.all.borrow().get(&key) {
            *connection.abort.borrow_mut() = Some(handle);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.borrow().len()
    }

    /// Asks what is in flight at fleets that have left the table to end.
    pub(crate) fn cut_gone(&self) {
        self.all.borrow().values().for_each(|c| c.tell_those_at_fleets_gone());
    }

    /// Asks all that is in flight to end.
    pub(crate) fn tell_all(&self) {
        let all = self.all.borrow();
        all.values().for_each(|c| c.tickets.borrow().iter().for_each(|t| t.tell()));
    }

    /// Ends those that wait for a request.
    pub(crate) fn end_resting(&self) {
        let all = self.all.borrow();
        all.values().filter(|c| c.pause.get() == Pause::Between).for_each(|c| c.abort());
    }

    /// Ends those that overstep the limits.
    pub(crate) fn cut_overdue(&self, limits: &Limits, turned_away: &ByCause<Reason>) {
        for connection in self.all.borrow().values() {
            connection.enforce(limits);
            if connection.is_wasteful(limits) {
                turned_away.count(Reason::Wasteful);
                connection.abort();
            } else if connection.marks.is_overdue(limits) {
                if !connection.marks.is_at_rest() {
                    turned_away.count(Reason::TooSlow);
                }
                connection.give_up();
            }
        }
    }
}

impl Listed {
    pub(crate) fn key(&self) -> u64 {
        self.key
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.connections.all.borrow_mut().remove(&self.key);
        if self.connections.totals.connections.fetch_sub(1, SeqCst) == 1 {
            self.connections.totals.drained.notify_waiters();
        }
        self.connections.ended.notify_waiters();
    }
}
