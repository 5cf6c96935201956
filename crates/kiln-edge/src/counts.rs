//! What is in flight: counted per fleet, over all threads and all tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use kiln_model::{FleetCount, FleetId};
use tokio::sync::Notify;

/// The counters of one fleet. They outlive tables: a fleet keeps its tally from the first table that names it to the
/// last.
///
/// Sequentially consistent throughout: whoever sees `in_flight` at zero must also see what the last request left
/// behind, and the cost is that of any locked instruction.
#[derive(Debug)]
pub(crate) struct Tally {
    fleet: FleetId,
    in_flight: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    cut: AtomicU64,
    gone: AtomicBool,
    /// Told whenever `in_flight` reaches zero.
    drained: Arc<Notify>,
}

impl Tally {
    pub(crate) fn new(fleet: FleetId, drained: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            fleet,
            in_flight: AtomicU64::new(0),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            drained,
        })
    }

    pub(crate) fn fleet(&self) -> &FleetId {
        &self.fleet
    }

    pub(crate) fn count(&self) -> FleetCount {
        FleetCount {
            fleet: self.fleet.clone(),
            in_flight: self.in_flight.load(SeqCst),
            served: self.served.load(SeqCst),
            failed: self.failed.load(SeqCst),
            cut: self.cut.load(SeqCst),
        }
    }

    /// Whether the fleet has as many requests as it may have.
    pub(crate) fn is_full(&self, at_most: u64) -> bool {
        self.in_flight.load(SeqCst) >= at_most
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.in_flight.load(SeqCst) == 0
    }

    /// The fleet has left the table: what is still in flight there is cut, thread by thread.
    pub(crate) fn leave(&self) {
        self.gone.store(true, SeqCst);
    }

    /// Whether the fleet has left the table.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(SeqCst)
    }
}

/// All requests of the edge, those that no fleet saw included.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) requests: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) ejections: AtomicU64,
    /// Requests that wait for their turn at a fleet at its limit.
    pub(crate) queued: AtomicU64,
    pub(crate) drained: Arc<Notify>,
}

/// One request from its head to the end of its answer.
pub(crate) struct Turn(Arc<Totals>);

impl Turn {
    pub(crate) fn begin(totals: Arc<Totals>) -> Self {
        totals.requests.fetch_add(1, SeqCst);
        totals.in_flight.fetch_add(1, SeqCst);
        Self(totals)
    }

    pub(crate) fn failed(&self) {
        self.0.failed.fetch_add(1, SeqCst);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, SeqCst) == 1 {
            self.0.drained.notify_waiters();
        }
    }
}

/// How a request ended at its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nobody waited for the answer any more, or another fleet gave it.
    Left,
    /// The fleet answered; if the client broke off midway, that is not the fleet's failure.
    Answered,
    /// The edge answered in the fleet's place, or the answer was cut short.
    Failed,
    /// The fleet's time was up, and what was under way was brought to the end its protocol knows.
    Cut,
}

/// One request in flight at one fleet. Holding it is what keeps the fleet from being stopped.
pub(crate) struct InFlight {
    tally: Arc<Tally>,
    ending: Ending,
}

impl InFlight {
    pub(crate) fn at(tally: Arc<Tally>) -> Self {
        tally.in_flight.fetch_add(1, SeqCst);
        Self { tally, ending: Ending::Left }
    }

    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Says how it ended; the last word counts, and it counts when this is dropped.
    pub(crate) fn ends(&mut self, ending: Ending) {
        self.ending = ending;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.ending != Ending::Left {
            self.tally.served.fetch_add(1, SeqCst);
        }
        if self.ending == Ending::Failed {
            self.tally.failed.fetch_add(1, SeqCst);
        }
        // Whatever ends after its fleet has gone ends because of that.
        if self.ending == Ending::Cut || self.tally.is_gone() {
            self.tally.cut.fetch_add(1, SeqCst);
        }
        if self.tally.in_flight.fetch_sub(1, SeqCst) == 1 {
            self.tally.drained.notify_waiters();
        }
    }
}
