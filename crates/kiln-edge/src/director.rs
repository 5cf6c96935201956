//! The one who holds the table: takes a new one, hands it to every thread, and answers only when all of them have it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::time::Duration;

use kiln_model::{EdgeCounts, FleetEvidence, FleetId, RouteTable};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::certificate::Certificate;
use crate::counts::{Tally, Totals};
use crate::inside::{Attended, Callers};
use crate::local;
use crate::metrics::Registry;
use crate::process::share_out;
use crate::protocol::{EdgeStats, Estate, Reply, Request};
use crate::sink::Sink;
use crate::sockets::{Door, Listener};
use crate::stock::Stock;
use crate::table::Table;
use crate::terse::Terse;
use crate::tls::Certificates;
use crate::told::Told;
use crate::worker::{Common, Order};

/// How long connections whose requests are done may take to close.
const CLOSING: Duration = Duration::from_secs(1);

/// How long what is in flight at a fleet that left the table may take to end: a word of goodbye, and the time that
/// passes until those who do not listen are cut.
const CUTTING: Duration = Duration::from_millis(1500);

/// What the main thread knows.
pub(crate) struct Director {
    workers: Vec<mpsc::UnboundedSender<Order>>,
    stock: Stock,
    totals: Arc<Totals>,
    certificates: Certificates,
    registry: Arc<Registry>,
    https_port: Arc<AtomicU16>,
    sink: Option<Arc<Sink>>,
    /// Told whenever a fleet's count reaches zero.
    drained: Arc<Notify>,
    table: RefCell<Arc<Table>>,
    /// One table at a time.
    turn: Mutex<()>,
    /// What a successor would be left.
    legacy: RefCell<Estate>,
    listeners: RefCell<Vec<Listener>>,
    callers: Arc<Callers>,
    attended: RefCell<Attended>,
    /// One change of those at a time.
    attending: Mutex<()>,
    is_ending: Cell<bool>,
    is_drained: Cell<bool>,
    /// Told when the edge has drained, has said so, and is to end.
    pub(crate) ended: Notify,
}

impl Director {
    pub(crate) fn new(
        workers: Vec<mpsc::UnboundedSender<Order>>,
        common: Common,
        certificates: Certificates,
        identity: String,
        listeners: Vec<Listener>,
        callers: Arc<Callers>,
    ) -> Self {
        let Common { stock, totals, registry, https_port, sink, .. } = common;
        let drained = Arc::<Notify>::default();
        let table = Table::new(Told::default(), &HashMap::new(), &drained, &registry);
        Self {
            workers,
            stock,
            totals,
            certificates,
            registry,
            https_port,
            sink,
            drained,
            table: RefCell::new(Arc::new(table)),
            turn: Mutex::new(()),
            legacy: RefCell::new(Estate { identity, pid: std::process::id(), ..Estate::default() }),
            listeners: RefCell::new(listeners),
            callers,
            attended: RefCell::default(),
            attending: Mutex::new(()),
            is_ending: Cell::new(false),
            is_drained: Cell::new(false),
            ended: Notify::new(),
        }
    }

    /// Does what is asked. Descriptors may come with a request, and go with a reply.
    pub(crate) async fn obey(
        self: &Rc<Self>,
        request: Request<'_>,
        fds: Vec<OwnedFd>,
    ) -> (Reply, Vec<OwnedFd>) {
        let reply = match request {
            Request::HandOver => return self.hand_over(),
            Request::Listen { doors } => self.listen(&doors, fds).await,
            Request::Deafen { doors } => self.deafen(&doors).await,
            Request::Leave { grace } => self.leave(Duration::from_millis(grace.0)),
            Request::TakeTable { terse } => self.take_table(terse).await,
            Request::SetTable { table } => self.take_table(Terse::of(&table)).await,
            Request::Counts => Reply::Counts { counts: self.counts() },
            Request::Evidence { fleets } => self.evidence(&fleets),
            Request::WaitDrained { fleets, timeout } => {
                self.wait_drained(&fleets, Duration::from_millis(timeout.0)).await
            }
            Request::SetCertificates { certificates } => self.set_certificates(&certificates),
            Request::SetProofs { proofs } => match self.certificates.proofs.replace(&proofs) {
                Ok(()) => Reply::Done,
                Err(why) => Reply::Refused { why },
            },
            Request::TakeLog => self.take_log(fds),
            Request::Metrics => Reply::Text { text: self.registry.text(&self.totals) },
            Request::Stats => Reply::Stats { stats: self.stats() },
            Request::Shutdown { grace } => self.shutdown(Duration::from_millis(grace.0)).await,
        };
        (reply, Vec::new())
    }

    fn table(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }

    fn counts(&self) -> EdgeCounts {
        self.table().counts()
    }

    fn evidence(&self, fleets: &[FleetId]) -> Reply {
        let table = self.table();
        let known = table.tallies().filter(|tally| fleets.contains(tally.fleet()));
        let seen = known
            .map(|tally| FleetEvidence { fleet: tally.fleet().clone(), evidence: tally.seen().evidence() });
        Reply::Evidence { pid: std::process::id(), evidence: seen.collect() }
    }

    fn take_log(&self, fds: Vec<OwnedFd>) -> Reply {
        match (&self.sink, fds.into_iter().next()) {
            (Some(sink), Some(file)) => {
                sink.exchange(file);
                Reply::Done
            }
            (None, _) => Reply::Refused { why: "it keeps no access log".into() },
            (_, None) => Reply::Refused { why: "no file came along".into() },
        }
    }

    fn stats(&self) -> EdgeStats {
        EdgeStats {
            requests: self.totals.requests.load(SeqCst),
            failed: self.totals.failed.load(SeqCst),
            in_flight: self.totals.in_flight.load(SeqCst),
            connections: self.totals.connections.load(SeqCst),
        }
    }

    fn set_certificates(&self, certificates: &[Certificate]) -> Reply {
        match self.certificates.replace(certificates) {
            Ok(details) => {
                self.registry.tls.show(details);
                self.legacy.borrow_mut().certificates = certificates.to_vec();
                Reply::Done
            }
            Err(why) => Reply::Refused { why },
        }
    }

    async fn take_table(self: &Rc<Self>, terse: Terse<'_>) -> Reply {
        let reply = self.set_table(terse).await;
        spawn_local(attend(self.clone()));
        reply
    }

    async fn set_table(&self, terse: Terse<'_>) -> Reply {
        let _turn = self.turn.lock().await;
        let old = self.table();
        if terse.table.version <= old.version() {
            return Reply::Stale { in_force: old.version() };
        }
        if let Some(twice) = named_twice(&terse.table) {
            return Reply::Refused { why: format!("the table names fleet {twice} twice") };
        }
        let told = match Told::new(terse, old.router()) {
            Ok(told) => told,
            Err(why) => return Reply::Refused { why },
        };
        let tallies = kept(&old, &told.table);
        let table = Arc::new(Table::new(told, &tallies, &self.drained, &self.registry));
        let gone = retire(&old, &table);
        let all_have_it = self.tell_all(|done| Order::Table(table.clone(), done)).await;
        *self.table.borrow_mut() = table.clone();
        self.registry.follow(table.tallies().cloned().collect());
        self.stock.keep(table);
        // Fleets that have left are waited for by somebody, perhaps.
        self.drained.notify_waiters();
        self.ended_at(&gone).await;
        self.registry.forget_gone();
        // Nobody waits until thousands of routes are taken to pieces.
        spawn_local(async move { drop(old) });
        if all_have_it {
            let gone = gone.iter().map(|tally| tally.count()).collect();
            Reply::Counts { counts: EdgeCounts { gone, ..self.counts() } }
        } else {
            Reply::Refused { why: "one of the edge's threads has ended".into() }
        }
    }

    /// Gives what is in flight at fleets that have left the time it takes to end in order.
    async fn ended_at(&self, gone: &[Arc<Tally>]) {
        let all_ended = async {
            loop {
                let change = self.drained.notified();
                if gone.iter().all(|tally| tally.is_drained()) {
                    return;
                }
                change.await;
            }
        };
        let _ = timeout(CUTTING, all_ended).await;
    }

    /// Gives every thread an order and waits until all have carried it out; false if one cannot.
    async fn tell_all(&self, order: impl Fn(oneshot::Sender<()>) -> Order) -> bool {
        let mut answers = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            // One that has ended drops the order, and with it the sender.
            let _ = worker.send(order(done));
            answers.push(answer);
        }
        let mut all = true;
        for answer in answers {
            all &= answer.await.is_ok();
        }
        all
    }

    async fn wait_drained(&self, fleets: &[FleetId], within: Duration) -> Reply {
        let waiting = async {
            loop {
                // Made before looking, so that no count that reaches zero in between is missed.
                let change = self.drained.notified();
                if self.are_drained(fleets) {
                    return;
                }
                change.await;
            }
        };
        // The counts say whether it was the time that ran out.
        let _ = timeout(within, waiting).await;
        Reply::Counts { counts: self.counts() }
    }

    fn are_drained(&self, fleets: &[FleetId]) -> bool {
        self.table().tallies().all(|tally| !fleets.contains(tally.fleet()) || tally.is_drained())
    }

    async fn shutdown(&self, grace: Duration) -> Reply {
        if !self.begin_end().await {
            return Reply::Refused { why: "it is shutting down already".into() };
        }
        self.until(grace, || self.totals.in_flight.load(SeqCst) == 0).await;
        let stats = self.stats();
        self.close();
        Reply::Stats { stats }
    }

    /// Sees the connections there are to their end and then ends the process; nobody waits for that.
    fn leave(self: &Rc<Self>, grace: Duration) -> Reply {
        let director = self.clone();
        spawn_local(async move {
            if director.begin_end().await {
                director.until(grace, || director.totals.connections.load(SeqCst) == 0).await;
                director.close();
                director.ended.notify_one();
            }
        });
        Reply::Done
    }

    /// Nobody new comes in from now on; false if that was so before.
    async fn begin_end(&self) -> bool {
        if self.is_ending.replace(true) {
            return false;
        }
        self.listeners.borrow_mut().clear();
        self.tell_all(Order::Drain).await;
        true
    }

    /// Returns when `is_over` holds, or after `grace`.
    async fn until(&self, grace: Duration, is_over: impl Fn() -> bool) {
        let over = async {
            loop {
                let change = self.totals.drained.notified();
                if is_over() {
                    return;
                }
                change.await;
            }
        };
        let _ = timeout(grace, over).await;
    }

    fn close(&self) {
        for worker in &self.workers {
            let _ = worker.send(Order::Close(CLOSING));
        }
        self.is_drained.set(true);
    }

    fn hand_over(&self) -> (Reply, Vec<OwnedFd>) {
        let cloned = || {
            let listeners = self.listeners.borrow();
            listeners.iter().map(|l| l.socket.try_clone()).collect::<io::Result<Vec<_>>>()
        };
        match cloned() {
            Ok(sockets) => {
                let doors = self.listeners.borrow().iter().map(|l| l.door.to_string()).collect();
                let table = self.table().whole();
                let estate = Estate { doors, table, ..self.legacy.borrow().clone() };
                (Reply::Estate { estate }, sockets)
            }
            Err(error) => (Reply::Refused { why: error.to_string() }, Vec::new()),
        }
    }

    async fn listen(&self, doors: &[String], sockets: Vec<OwnedFd>) -> Reply {
        let parsed: Option<Vec<Door>> = doors.iter().map(|door| door.parse().ok()).collect();
        let Some(doors) = parsed.filter(|doors| doors.len() == sockets.len()) else {
            return Reply::Refused { why: "the sockets are not those of the doors".into() };
        };
        let more: Vec<Listener> =
            doors.into_iter().zip(sockets).map(|(door, socket)| Listener { door, socket }).collect();
        let kept: io::Result<Vec<Listener>> = more.iter().map(Listener::try_clone).collect();
        match kept {
            Ok(kept) => self.listeners.borrow_mut().extend(kept),
            Err(error) => return Reply::Refused { why: error.to_string() },
        }
        if let Some(https) = more.iter().find(|l| l.door == Door::Https) {
            let port = local(&https.socket).map_or(0, |address| address.port());
            self.https_port.store(port, SeqCst);
        }
        let mut all = true;
        for (worker, share) in self.workers.iter().cycle().zip(share_out(more)) {
            let (done, answer) = oneshot::channel();
            let _ = worker.send(Order::Listen(share, done));
            all &= answer.await.is_ok();
        }
        if all { Reply::Done } else { Reply::Refused { why: "one of the edge's threads has ended".into() } }
    }

    async fn deafen(&self, doors: &[String]) -> Reply {
        let doors: Vec<Door> = doors.iter().filter_map(|door| door.parse().ok()).collect();
        self.listeners.borrow_mut().retain(|l| !doors.contains(&l.door));
        self.tell_all(|done| Order::Deafen(doors.clone(), done)).await;
        Reply::Done
    }

    /// Whether there is nobody left whose needs could not be served.
    async fn attend_once(&self) -> bool {
        let _turn = self.attending.lock().await;
        if self.is_ending() {
            return true;
        }
        let table = self.table();
        let gone = self.attended.borrow_mut().let_go(&table, &self.callers);
        if !gone.is_empty() {
            self.tell_all(|done| Order::Deafen(gone.clone(), done)).await;
        }
        let new = self.attended.borrow().new_ones(&table);
        let mut all = true;
        for (number, caller) in new.into_iter().enumerate() {
            let Ok(listeners) = self.stock.listeners(&caller.0).await else {
                all = false;
                continue;
            };
            let listeners = self.attended.borrow_mut().take(caller, listeners, &self.callers);
            let Some(worker) = self.workers.get(number % self.workers.len().max(1)) else { continue };
            let (done, _) = oneshot::channel();
            let _ = worker.send(Order::Listen(listeners, done));
        }
        all
    }

    /// Whether nothing is left to do but to end.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained.get()
    }

    /// Whether threads may end.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.get()
    }
}

/// How long until those are tried again whose needs could not be served: the keeper may be away for a moment, or an edge
/// before this one may not have let go yet.
const AGAIN: Duration = Duration::from_millis(250);

/// Serves the needs of the callers in the table, and of no others. Nobody waits for it: who calls before is in the
/// kernel's queue. Those who cannot be served now are tried again as long as the table names them.
async fn attend(director: Rc<Director>) {
    let table = director.table();
    while !director.attend_once().await {
        sleep(AGAIN).await;
        // Of another table its own attempt takes care.
        if !Arc::ptr_eq(&table, &director.table()) {
            return;
        }
    }
}

/// The counts that go on. Those of a fleet that is parted now are over, as if it had left; what it is asked from now on
/// counts anew.
fn kept(old: &Table, told: &RouteTable) -> HashMap<FleetId, Arc<Tally>> {
    let parted: HashSet<&FleetId> = told.fleets.iter().filter(|f| f.parted).map(|f| &f.id).collect();
    let goes_on = |tally: &&Arc<Tally>| tally.is_parted() || !parted.contains(tally.fleet());
    old.tallies().filter(goes_on).map(|tally| (tally.fleet().clone(), tally.clone())).collect()
}

/// Marks the fleets of `old` whose counts do not go on in `new`: each thread ends what it has in flight there when it
/// takes the new table.
fn retire(old: &Table, new: &Table) -> Vec<Arc<Tally>> {
    let stay: HashSet<_> = new.tallies().map(Arc::as_ptr).collect();
    let gone = old.tallies().filter(|tally| !stay.contains(&Arc::as_ptr(tally)));
    gone.inspect(|tally| tally.leave()).cloned().collect()
}

fn named_twice(table: &RouteTable) -> Option<&FleetId> {
    let mut seen = HashSet::new();
    table.fleets.iter().map(|f| &f.id).find(|id| !seen.insert(*id))
}
