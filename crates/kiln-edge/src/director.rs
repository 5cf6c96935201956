//! The one who holds the table: takes a new one, hands it to every thread, and answers only when all of them have it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use kiln_model::{EdgeCounts, FleetId, RouteTable};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::time::timeout;

use crate::counts::{Tally, Totals};
use crate::protocol::{EdgeStats, Reply, Request};
use crate::stock::Stock;
use crate::table::Table;
use crate::worker::Order;

/// How long connections whose requests are done may take to close.
const CLOSING: Duration = Duration::from_secs(1);

/// What the main thread knows.
pub(crate) struct Director {
    workers: Vec<mpsc::UnboundedSender<Order>>,
    stock: Stock,
    totals: Arc<Totals>,
    /// Told whenever a fleet's count reaches zero.
    drained: Arc<Notify>,
    table: RefCell<Arc<Table>>,
    /// One table at a time.
    turn: Mutex<()>,
    is_ending: Cell<bool>,
    is_drained: Cell<bool>,
    /// Told when the edge has drained, has said so, and is to end.
    pub(crate) ended: Notify,
}

impl Director {
    pub(crate) fn new(workers: Vec<mpsc::UnboundedSender<Order>>, stock: Stock, totals: Arc<Totals>) -> Self {
        let drained = Arc::<Notify>::default();
        let table = Table::new(RouteTable::default(), &HashMap::new(), &drained);
        Self {
            workers,
            stock,
            totals,
            drained,
            table: RefCell::new(Arc::new(table)),
            turn: Mutex::new(()),
            is_ending: Cell::new(false),
            is_drained: Cell::new(false),
            ended: Notify::new(),
        }
    }

    pub(crate) async fn obey(&self, request: Request) -> Reply {
        match request {
            Request::SetTable { table } => self.set_table(table).await,
            Request::Counts => Reply::Counts { counts: self.counts() },
            Request::WaitDrained { fleets, timeout } => {
                self.wait_drained(&fleets, Duration::from_millis(timeout.0)).await
            }
            Request::Stats => Reply::Stats { stats: self.stats() },
            Request::Shutdown { grace } => self.shutdown(Duration::from_millis(grace.0)).await,
        }
    }

    fn table(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }

    fn counts(&self) -> EdgeCounts {
        self.table().counts()
    }

    fn stats(&self) -> EdgeStats {
        EdgeStats {
            requests: self.totals.requests.load(SeqCst),
            failed: self.totals.failed.load(SeqCst),
            in_flight: self.totals.in_flight.load(SeqCst),
            connections: self.totals.connections.load(SeqCst),
        }
    }

    async fn set_table(&self, table: RouteTable) -> Reply {
        let _turn = self.turn.lock().await;
        let old = self.table();
        if table.version <= old.version {
            return Reply::Stale { in_force: old.version };
        }
        if let Some(twice) = named_twice(&table) {
            return Reply::Refused { why: format!("the table names fleet {twice} twice") };
        }
        let tallies: HashMap<FleetId, Arc<Tally>> =
            old.fleets.iter().map(|f| (f.tally.fleet().clone(), f.tally.clone())).collect();
        let table = Arc::new(Table::new(table, &tallies, &self.drained));
        leave(&old, &table);
        let all_have_it = self.tell_all(|done| Order::Table(table.clone(), done)).await;
        *self.table.borrow_mut() = table.clone();
        self.stock.keep(table);
        // Fleets that have left are waited for by somebody, perhaps.
        self.drained.notify_waiters();
        if all_have_it {
            Reply::Counts { counts: self.counts() }
        } else {
            Reply::Refused { why: "one of the edge's threads has ended".into() }
        }
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
        self.table().fleets.iter().all(|f| !fleets.contains(f.tally.fleet()) || f.tally.is_drained())
    }

    async fn shutdown(&self, grace: Duration) -> Reply {
        if self.is_ending.replace(true) {
            return Reply::Refused { why: "it is shutting down already".into() };
        }
        self.tell_all(Order::Drain).await;
        let nothing_in_flight = async {
            loop {
                let change = self.totals.drained.notified();
                if self.totals.in_flight.load(SeqCst) == 0 {
                    return;
                }
                change.await;
            }
        };
        let _ = timeout(grace, nothing_in_flight).await;
        let stats = self.stats();
        let within = if stats.in_flight == 0 { CLOSING } else { Duration::ZERO };
        for worker in &self.workers {
            let _ = worker.send(Order::Close(within));
        }
        self.is_drained.set(true);
        Reply::Stats { stats }
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

/// Marks the fleets of `old` that `new` does not name: each thread cuts what it has in flight there when it takes
/// the new table.
fn leave(old: &Table, new: &Table) {
    let stay: std::collections::HashSet<_> = new.fleets.iter().map(|f| f.tally.fleet()).collect();
    old.fleets.iter().filter(|f| !stay.contains(f.tally.fleet())).for_each(|f| f.tally.leave());
}

fn named_twice(table: &RouteTable) -> Option<&FleetId> {
    let mut seen = std::collections::HashSet::new();
    table.fleets.iter().map(|f| &f.id).find(|id| !seen.insert(*id))
}
