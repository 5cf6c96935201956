//! One instance as one thread knows it: how busy it is, and the connections that wait for the next request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use kiln_model::InstanceId;
use tokio::time::Instant;

use crate::body::RequestBody;
use crate::upstream_io::Watch;

/// How long a connection may have rested and still be trusted with a request that must not be sent twice. Servers
/// close idle connections after seconds; within this time hardly one does.
const FRESH: Duration = Duration::from_secs(1);

/// One instance.
pub(crate) struct Upstream {
    id: InstanceId,
    port: u16,
    load: Cell<u32>,
    idle: RefCell<Vec<Idle>>,
    in_table: Cell<bool>,
}

/// A connection to an instance.
pub(crate) struct Channel {
    pub(crate) sender: SendRequest<RequestBody>,
    pub(crate) watch: Watch,
    /// Whether a request went over it before.
    pub(crate) used: bool,
}

struct Idle {
    channel: Channel,
    since: Instant,
}

impl Upstream {
    pub(crate) fn new(id: InstanceId, port: u16) -> Rc<Self> {
        let idle = RefCell::default();
        Rc::new(Self { id, port, load: Cell::new(0), idle, in_table: Cell::new(true) })
    }

    pub(crate) fn id(&self) -> &InstanceId {
        &self.id
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Requests of this thread in flight there.
    pub(crate) fn load(&self) -> u32 {
        self.load.get()
    }

    /// A connection that waits for a request; one that is to be sent at most once gets only a connection of which
    /// there is reason to believe that it lives.
    pub(crate) fn take(&self, at_most_once: bool) -> Option<Channel> {
        let mut idle = self.idle.borrow_mut();
        // The one used last is the one least likely to have been closed.
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if idle[at].channel.sender.is_closed() {
                idle.remove(at);
            } else if idle[at].channel.sender.is_ready() {
                let Idle { channel, since } = idle.remove(at);
                if !at_most_once {
                    return Some(channel);
                }
                return (since.elapsed() < FRESH && channel.watch.is_quiet()).then_some(channel);
            }
        }
        None
    }

    /// Keeps a connection for the next request. It may still have to finish the last one: [`Self::take`] asks.
    pub(crate) fn put(&self, mut channel: Channel, at_most: usize) {
        let mut idle = self.idle.borrow_mut();
        if self.in_table.get() && idle.len() < at_most && !channel.sender.is_closed() {
            channel.used = true;
            idle.push(Idle { channel, since: Instant::now() });
        }
    }

    /// The instance has left the table: its unused connections are closed, and so is each that ends its request.
    pub(crate) fn leave(&self) {
        self.in_table.set(false);
        self.idle.borrow_mut().clear();
    }

    /// Closes the connections unused for `limit`, and those the instance has closed.
    pub(crate) fn expire(&self, limit: Duration) {
        self.idle.borrow_mut().retain(|i| !i.channel.sender.is_closed() && i.since.elapsed() < limit);
    }

    pub(crate) fn close_idle(&self) {
        self.idle.borrow_mut().clear();
    }
}

/// A request that the instance is busy with.
pub(crate) struct Burden(Rc<Upstream>);

impl Burden {
    pub(crate) fn on(upstream: Rc<Upstream>) -> Self {
        upstream.load.set(upstream.load.get() + 1);
        Self(upstream)
    }

    pub(crate) fn upstream(&self) -> &Rc<Upstream> {
        &self.0
    }
}

impl Drop for Burden {
    fn drop(&mut self) {
        self.0.load.set(self.0.load.get() - 1);
    }
}
