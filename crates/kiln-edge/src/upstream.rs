//! One instance as one thread knows it: how busy it is, and the connections that wait for the next request.

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::Request;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Response, body::Incoming};
use kiln_model::{InstanceId, Protocol};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::body::RequestBody;
use crate::standing::Standing;
use crate::upstream_io::{Watch, is_silent};

/// How long a connection may have rested and still be trusted with a request that must not be sent twice. Servers
/// close idle connections after seconds; within this time hardly one does.
const FRESH: Duration = Duration::from_secs(1);
/// Requests under way at once on one connection of HTTP/2; most servers allow a hundred.
const STREAMS_AT_MOST: u32 = 90;

/// One instance.
pub(crate) struct Upstream {
    id: InstanceId,
    port: u16,
    protocol: Protocol,
    load: Cell<u32>,
    /// Connections without a request.
    idle: RefCell<Vec<Idle>>,
    /// The same, of those that nobody looks after in between.
    bare: RefCell<Vec<Bare>>,
    /// Connections that carry several requests at once.
    shared: RefCell<Vec<Rc<Shared>>>,
    in_table: Cell<bool>,
    pub(crate) standing: Standing,
}

/// A connection to an instance, or a request's part in one.
pub(crate) struct Channel {
    sender: Sender,
    /// Whether a request went over it before.
    pub(crate) used: bool,
}

enum Sender {
    Own(http1::SendRequest<RequestBody>, Watch),
    Part(Part),
}

/// A connection that carries several requests.
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    streams: Cell<u32>,
    since: Cell<Instant>,
}

/// One request's part in a shared connection.
struct Part(Rc<Shared>);

impl Part {
    fn of(shared: &Rc<Shared>) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        Self(shared.clone())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.since.set(Instant::now());
    }
}

/// A connection that waits for a request, and nobody with it.
struct Bare {
    stream: TcpStream,
    since: Instant,
}

impl Bare {
    /// Whether nothing is known of it but that it is there: an unused connection has nothing to say.
    fn is_quiet(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        match self.stream.poll_read_ready(&mut context) {
            Poll::Pending => true,
            // It may be old news: the kernel knows.
            Poll::Ready(_) => is_silent(self.stream.as_fd()),
        }
    }
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    watch: Watch,
    since: Instant,
}

impl Channel {
    /// A fresh connection that carries one request at a time.
    pub(crate) fn own(sender: http1::SendRequest<RequestBody>, watch: Watch) -> Self {
        Self { sender: Sender::Own(sender, watch), used: false }
    }

    /// Sends a request; what could not be sent is given back.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match &mut self.sender {
            Sender::Own(sender, _) => sender.try_send_request(request).await,
            Sender::Part(part) => part.0.sender.clone().try_send_request(request).await,
        }
    }
}

impl Upstream {
    pub(crate) fn new(id: InstanceId, port: u16, protocol: Protocol) -> Rc<Self> {
        Rc::new(Self {
            id,
            port,
            protocol,
            load: Cell::new(0),
            idle: RefCell::default(),
            bare: RefCell::default(),
            shared: RefCell::default(),
            in_table: Cell::new(true),
            standing: Standing::new(),
        })
    }

    pub(crate) fn id(&self) -> &InstanceId {
        &self.id
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Requests of this thread in flight there.
    pub(crate) fn load(&self) -> u32 {
        self.load.get()
    }

    /// A connection that waits for a request; one that is to be sent at most once gets only a connection of which
    /// there is reason to believe that it lives.
    pub(crate) fn take(&self, at_most_once: bool) -> Option<Channel> {
        match self.protocol {
            Protocol::Http1 => self.take_idle(at_most_once),
            Protocol::H2c => {
                let shared = self.shared.borrow();
                let has_room = |s: &&Rc<Shared>| !s.sender.is_closed() && s.streams.get() < STREAMS_AT_MOST;
                let part = Part::of(shared.iter().find(has_room)?);
                Some(Channel { sender: Sender::Part(part), used: true })
            }
        }
    }

    fn take_idle(&self, at_most_once: bool) -> Option<Channel> {
        let mut idle = self.idle.borrow_mut();
        // The one used last is the one least likely to have been closed.
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if idle[at].sender.is_closed() {
                idle.remove(at);
            } else if idle[at].sender.is_ready() {
                let Idle { sender, watch, since } = idle.remove(at);
                let is_sound = !at_most_once || since.elapsed() < FRESH && watch.is_quiet();
                return is_sound.then_some(Channel { sender: Sender::Own(sender, watch), used: true });
            }
        }
        None
    }

    /// [`Self::take`] for those who look after a connection themselves.
    pub(crate) fn take_bare(&self, at_most_once: bool) -> Option<TcpStream> {
        let mut bare = self.bare.borrow_mut();
        while let Some(last) = bare.pop() {
            if last.is_quiet() {
                let is_sound =
                    !at_most_once || last.since.elapsed() < FRESH && is_silent(last.stream.as_fd());
                return is_sound.then_some(last.stream);
            }
        }
        None
    }

    /// Keeps such a connection for the next request.
    pub(crate) fn put_bare(&self, stream: TcpStream, since: Instant, at_most: usize) {
        let mut bare = self.bare.borrow_mut();
        if self.in_table.get() && bare.len() < at_most {
            bare.push(Bare { stream, since });
        }
    }

    /// A fresh connection that carries several requests, this one's first.
    pub(crate) fn share(&self, sender: http2::SendRequest<RequestBody>) -> Channel {
        let shared = Rc::new(Shared { sender, streams: Cell::new(0), since: Cell::new(Instant::now()) });
        let channel = Channel { sender: Sender::Part(Part::of(&shared)), used: false };
        if self.in_table.get() {
            self.shared.borrow_mut().push(shared);
        }
        channel
    }

    /// Keeps a connection for the next request. It may still have to finish the last one: [`Self::take`] asks.
    pub(crate) fn put(&self, channel: Channel, at_most: usize) {
        let Sender::Own(sender, watch) = channel.sender else { return };
        let mut idle = self.idle.borrow_mut();
        if self.in_table.get() && idle.len() < at_most && !sender.is_closed() {
            idle.push(Idle { sender, watch, since: Instant::now() });
        }
    }

    /// The instance has left the table: its unused connections are closed, and so is each that ends its request.
    pub(crate) fn leave(&self) {
        self.in_table.set(false);
        self.close_idle();
        self.shared.borrow_mut().clear();
    }

    /// Closes the connections unused for `limit`, and those the instance has closed.
    pub(crate) fn expire(&self, limit: Duration) {
        self.idle.borrow_mut().retain(|i| !i.sender.is_closed() && i.since.elapsed() < limit);
        self.bare.borrow_mut().retain(|b| b.since.elapsed() < limit && b.is_quiet());
        let in_use = |s: &Rc<Shared>| s.streams.get() > 0 || s.since.get().elapsed() < limit;
        self.shared.borrow_mut().retain(|s| !s.sender.is_closed() && in_use(s));
    }

    pub(crate) fn close_idle(&self) {
        self.idle.borrow_mut().clear();
        self.bare.borrow_mut().clear();
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
