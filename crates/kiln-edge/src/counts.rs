//! What is in flight: counted per fleet, over all threads and all tables.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use kiln_model::{FleetCount, FleetId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::evidence::Seen;

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
    parted: AtomicBool,
    /// Requests that wait for room.
    queued: AtomicU64,
    /// Requests that were refused because there was none.
    refused: AtomicU64,
    /// Told when there may be room for one more.
    pub(crate) room: Notify,
    /// Made when it is first needed: fleets that nobody doubts have none.
    seen: OnceLock<Box<Seen>>,
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
            parted: AtomicBool::new(false),
            queued: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            room: Notify::new(),
            seen: OnceLock::new(),
            drained,
        })
    }

    pub(crate) fn fleet(&self) -> &FleetId {
        &self.fleet
    }

    /// What is seen of it while another release serves beside its own.
    pub(crate) fn seen(&self) -> &Seen {
        self.seen.get_or_init(Box::default)
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

    /// The edge has answered in the fleet's place a request that was not let in there.
    pub(crate) fn answered_for(&self) {
        self.served.fetch_add(1, SeqCst);
        self.failed.fetch_add(1, SeqCst);
    }

    /// Whether others wait for room already.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.queued.load(SeqCst) > 0
    }

    /// So many wait for room at the moment, and so many were refused.
    pub(crate) fn queue(&self) -> (u64, u64) {
        (self.queued.load(SeqCst), self.refused.load(SeqCst))
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.in_flight.load(SeqCst) == 0
    }

    /// The fleet has left the table: what is still in flight there is cut, thread by thread.
    pub(crate) fn leave(&self) {
        self.gone.store(true, SeqCst);
    }

    /// Whether what users had asked of the fleet has ended, by the table in force.
    pub(crate) fn is_parted(&self) -> bool {
        self.parted.load(SeqCst)
    }

    pub(crate) fn set_parted(&self, parted: bool) {
        self.parted.store(parted, SeqCst);
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
    /// Requests that wait for the end of a pause.
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

    /// It is begun again by somebody else, and counted there.
    pub(crate) fn forget(self) {
        self.0.requests.fetch_sub(1, SeqCst);
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
    watched: Watched,
}

/// How far the evidence of a request is taken.
#[derive(Debug, Clone, Copy)]
enum Watched {
    /// It is none, or all of it is.
    No,
    /// It waits for the head of its answer, since then.
    Waits(Instant),
    /// That was good, and the rest is on its way.
    Good,
}

/// One request that waits for room at a fleet.
pub(crate) struct Queued {
    tally: Arc<Tally>,
    /// Whether nobody waited before it.
    pub(crate) is_first: bool,
    /// When it began to wait.
    pub(crate) since: Instant,
}

impl Queued {
    /// None if `at_most` wait already.
    pub(crate) fn enter(tally: Arc<Tally>, at_most: u64) -> Option<Self> {
        let room = |n: u64| (n < at_most).then_some(n + 1);
        let Ok(before) = tally.queued.fetch_update(SeqCst, SeqCst, room) else {
            tally.refused.fetch_add(1, SeqCst);
            return None;
        };
        Some(Self { tally, is_first: before == 0, since: Instant::now() })
    }

    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// It has waited in vain.
    pub(crate) fn gives_up(self) {
        self.tally.refused.fetch_add(1, SeqCst);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        // Whoever goes tells the next one, so that room for two is not left to one.
        if self.tally.queued.fetch_sub(1, SeqCst) > 1 {
            self.tally.room.notify_one();
        }
    }
}

impl InFlight {
    /// At a fleet that has room for it.
    pub(crate) fn within(tally: &Arc<Tally>, at_most: u64) -> Option<Self> {
        let room = |n: u64| (n < at_most).then_some(n + 1);
        tally.in_flight.fetch_update(SeqCst, SeqCst, room).ok()?;
        Some(Self { tally: tally.clone(), ending: Ending::Left, watched: Watched::No })
    }

    pub(crate) fn at(tally: Arc<Tally>) -> Self {
        tally.in_flight.fetch_add(1, SeqCst);
        Self { tally, ending: Ending::Left, watched: Watched::No }
    }

    /// It is evidence for or against its fleet; it began then.
    pub(crate) fn watched_since(mut self, begun: Instant) -> Self {
        self.watched = Watched::Waits(begun);
        self
    }

    /// It is no evidence: it goes on elsewhere.
    pub(crate) fn unwatched(&mut self) {
        self.watched = Watched::No;
    }

    /// The head of its answer has come.
    pub(crate) fn answered(&mut self, status: u16) {
        if let Watched::Waits(begun) = self.watched {
            self.tally.seen().took(begun.elapsed());
            if status >= 500 {
                self.tally.seen().failed();
            }
            self.watched = if status >= 500 { Watched::No } else { Watched::Good };
        }
    }

    /// Takes the evidence that is left at its end. What is cut because its time is up says nothing about the fleet;
    /// who left without an answer waited that long.
    fn testify(&self) {
        if self.tally.is_gone() || self.ending == Ending::Cut {
            return;
        }
        let failed = self.ending == Ending::Failed;
        match self.watched {
            Watched::No => {}
            Watched::Waits(begun) => {
                self.tally.seen().took(begun.elapsed());
                if failed {
                    self.tally.seen().failed();
                }
            }
            Watched::Good if failed => self.tally.seen().failed(),
            Watched::Good => {}
        }
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
        self.testify();
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
        if self.tally.is_waited_for() {
            self.tally.room.notify_one();
        }
    }
}
