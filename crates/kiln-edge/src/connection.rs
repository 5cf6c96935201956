//! The client connections of one thread: who they are, where their requests are, and how to end them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use hyper::header::HeaderValue;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::Limits;
use crate::client_io::Marks;
use crate::counts::{Tally, Totals};

/// One client connection, or the tunnel it has become.
pub(crate) struct Connection {
    pub(crate) marks: Arc<Marks>,
    /// The client's address, as instances are told.
    pub(crate) peer: HeaderValue,
    /// Where the client thinks it is, for the few that do not say.
    pub(crate) local: SocketAddr,
    /// The fleet its request is in flight at.
    fleet: RefCell<Option<Arc<Tally>>>,
    abort: RefCell<Option<AbortHandle>>,
}

impl Connection {
    pub(crate) fn new(marks: Arc<Marks>, peer: SocketAddr, local: SocketAddr) -> Self {
        let peer = HeaderValue::try_from(peer.ip().to_canonical().to_string())
            .unwrap_or(HeaderValue::from_static("unknown"));
        Self { marks, peer, local, fleet: RefCell::default(), abort: RefCell::default() }
    }

    pub(crate) fn enter_fleet(&self, tally: Arc<Tally>) {
        *self.fleet.borrow_mut() = Some(tally);
    }

    pub(crate) fn leave_fleet(&self) {
        *self.fleet.borrow_mut() = None;
    }

    fn is_at_a_fleet_gone(&self) -> bool {
        self.fleet.borrow().as_ref().is_some_and(|t| t.is_gone())
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

    /// Ends those whose request is at a fleet that has left the table.
    pub(crate) fn cut_gone(&self) {
        self.all.borrow().values().filter(|c| c.is_at_a_fleet_gone()).for_each(|c| c.abort());
    }

    /// Ends those that overstep the limits.
    pub(crate) fn cut_overdue(&self, limits: &Limits) {
        self.all.borrow().values().filter(|c| c.marks.is_overdue(limits)).for_each(|c| c.abort());
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
        self.connections.totals.connections.fetch_sub(1, SeqCst);
        self.connections.ended.notify_waiters();
    }
}
