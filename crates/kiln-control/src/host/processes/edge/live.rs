//! The edge as the core sees it: one, however many processes there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_edge::{Certificate, Door, EdgeClient, EdgeError, Listener, Proof};
use kiln_model::{EdgeCounts, Evidence, FleetEvidence, FleetId, RouteTable};

use super::certificates::Shelf;
use super::errand::{Errands, Order};
use super::{EdgeProcess, Held, redirects, threads};
use crate::host::driver::Waker;
use crate::shelf::time_of_day;
use crate::sync::lock;
use crate::world::{Edge, Trouble};

impl EdgeProcess {
    /// Puts a table in force, with the doors and the certificates that it names.
    fn set_table(&self, table: &RouteTable) -> Result<EdgeCounts, Trouble> {
        let mut held = lock(&self.held);
        // What cannot be open now is open as soon as it can be: nobody else waits for it.
        *lock(&self.shut) = self.open_doors(&mut held, table)?;
        let Held { listeners, certificates, .. } = &mut *held;
        self.show_certificates(listeners, certificates, table)?;
        let mut counts = vec![self.client.set_table(table).map_err(|e| Trouble::of(&e))?];
        held.table = Some(table.clone());
        // One that has ended in the meantime has nothing in flight.
        counts.extend(held.leaving.iter().filter_map(|leaving| leaving.client.set_table(table).ok()));
        let sums = lock(&self.ledger).sum(counts).unwrap_or_default();
        self.close_doors(&mut held, table)?;
        Ok(sums)
    }

    /// Those at which somebody else listens stay shut; they are told.
    fn open_doors(&self, held: &mut Held, table: &RouteTable) -> Result<Vec<String>, Trouble> {
        let mut shut = Vec::new();
        for (door, at) in self.doors_to_open(held, table) {
            match Listener::bind(door, at, threads()) {
                Ok(listeners) => self.open(held, listeners)?,
                Err(e @ EdgeError::AddressInUse { .. }) => shut.push(no_door(&e)),
                Err(e) => return Err(Trouble::of(&e)),
            }
        }
        Ok(shut)
    }

    fn doors_to_open(&self, held: &Held, table: &RouteTable) -> Vec<(Door, SocketAddr)> {
        let ports = table.tcp.iter().map(|route| route.port);
        let doors = ports.map(|port| (Door::Tcp(port), SocketAddr::new(self.address.ip(), port)));
        doors.filter(|(door, _)| !held.listeners.iter().any(|l| l.door == *door)).collect()
    }

    /// Opens what had to stay shut, if that is possible by now.
    pub(crate) fn open_what_is_shut(&self) -> Result<(), Trouble> {
        if lock(&self.shut).is_empty() {
            return Ok(());
        }
        let mut held = lock(&self.held);
        let Some(table) = held.table.clone() else { return Ok(()) };
        *lock(&self.shut) = self.open_doors(&mut held, &table)?;
        Ok(())
    }

    /// The doors of a table that somebody else has. A table that is being put in force is judged by that.
    fn lacks(&self, table: &RouteTable) -> Option<String> {
        let held = self.held.try_lock().ok()?;
        let mut doors = self.doors_to_open(&held, table).into_iter();
        // Free again as soon as this is over.
        doors.find_map(|(door, at)| match Listener::bind(door, at, 1) {
            Err(e @ EdgeError::AddressInUse { .. }) => Some(e.to_string()),
            _ => None,
        })
    }

    fn close_doors(&self, held: &mut Held, table: &RouteTable) -> Result<(), Trouble> {
        let is_wanted = |door: Door| match door {
            Door::Tcp(port) => table.tcp.iter().any(|route| route.port == port),
            Door::Http | Door::Https | Door::Metrics | Door::Inside(_) => true,
        };
        let mut unwanted: Vec<Door> =
            held.listeners.iter().map(|l| l.door).filter(|d| !is_wanted(*d)).collect();
        unwanted.dedup();
        if unwanted.is_empty() {
            return Ok(());
        }
        held.listeners.retain(|l| is_wanted(l.door));
        self.client.deafen(&unwanted).map_err(|e| Trouble::of(&e))
    }

    fn show_certificates(
        &self,
        listeners: &[Listener],
        shelf: &mut Shelf,
        table: &RouteTable,
    ) -> Result<(), Trouble> {
        let mut look = shelf.look(&table.certificates, &lock(&self.automatic), time_of_day());
        look.warnings.extend(redirects::of_table(table).filter(|_| !self.has_https(listeners)));
        self.warn(look.warnings);
        if look.certificates != shelf.in_force() {
            self.client.set_certificates(&look.certificates).map_err(|e| Trouble::of(&e))?;
            shelf.put_in_force(look.certificates);
        }
        Ok(())
    }

    /// Takes account of what is wrong with https now; what was not before is complained of.
    fn warn(&self, warnings: Vec<String>) {
        let mut known = lock(&self.warnings);
        warnings.iter().filter(|warning| !known.contains(warning)).for_each(|warning| self.complain(warning));
        *known = warnings;
    }

    /// What people should know of doors that are shut, of the certificates that are shown, and of who is sent where there
    /// are none.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let shut = lock(&self.shut).clone();
        shut.into_iter().chain(lock(&self.warnings).iter().cloned()).collect()
    }

    /// What the certificates are for that the table in force names.
    pub(crate) fn names_of_certificates(&self) -> BTreeSet<String> {
        let Held { certificates, table, .. } = &mut *lock(&self.held);
        table.as_ref().map_or_else(BTreeSet::new, |table| certificates.names(&table.certificates))
    }

    /// Shows these to clients, beside those that tables name.
    pub(crate) fn show_automatic(&self, certificates: Vec<Certificate>) -> Result<(), Trouble> {
        *lock(&self.automatic) = certificates;
        self.refresh_certificates()
    }

    /// Shows proofs to whoever looks, at every process: nobody knows which one is asked.
    pub(crate) fn show_proofs(&self, proofs: &[Proof]) -> Result<(), Trouble> {
        self.leaving().iter().for_each(|edge| drop(edge.set_proofs(proofs)));
        self.client.set_proofs(proofs).map_err(|e| Trouble::of(&e))
    }

    /// Looks whether certificates have been renewed.
    pub(crate) fn refresh_certificates(&self) -> Result<(), Trouble> {
        let Held { listeners, certificates, table, .. } = &mut *lock(&self.held);
        table.as_ref().map_or(Ok(()), |table| self.show_certificates(listeners, certificates, table))
    }

    /// Beside the complaints of the edge itself.
    pub(crate) fn complain(&self, words: &str) {
        super::super::complain(&self.path.with_file_name("edge.log"), words);
    }

    fn counts(&self) -> Result<EdgeCounts, Trouble> {
        let leaving = self.leaving();
        let mut counts = vec![self.client.counts().map_err(|e| Trouble::of(&e))?];
        counts.extend(leaving.iter().filter_map(|client| client.counts().ok()));
        Ok(lock(&self.ledger).sum(counts).unwrap_or_default())
    }

    /// Asks all processes what they have seen of these fleets.
    fn look(&self, fleets: &[FleetId]) {
        let all = self.leaving().into_iter().chain([self.client.clone()]);
        let told: Vec<_> = all.filter_map(|client| client.evidence(fleets).ok()).collect();
        let mut seen = lock(&self.seen);
        for (pid, evidence) in told {
            seen.extend(evidence.into_iter().map(|e| ((pid, e.fleet), e.evidence)));
        }
    }

    /// What was seen of these fleets at the last look, by processes that are gone, too.
    fn seen(&self, fleets: &[FleetId]) -> Vec<FleetEvidence> {
        let mut seen = lock(&self.seen);
        seen.retain(|(_, fleet), _| fleets.contains(fleet));
        let mut sums: BTreeMap<FleetId, Evidence> = BTreeMap::new();
        for ((_, fleet), evidence) in &*seen {
            sums.entry(fleet.clone()).or_default().add(evidence);
        }
        sums.into_iter().map(|(fleet, evidence)| FleetEvidence { fleet, evidence }).collect()
    }

    pub(super) fn leaving(&self) -> Vec<EdgeClient> {
        lock(&self.held).leaving.iter().map(|leaving| leaving.client.clone()).collect()
    }

    /// Waits until nothing is in flight at `fleets` in any process, or `at_most` in each.
    fn wait_drained(&self, fleets: &[FleetId], at_most: Duration) {
        // Drained, timed out or failed: in any case the core looks for itself.
        for client in self.leaving().iter().chain([&self.client]) {
            let _ = client.wait_drained(fleets, at_most);
        }
    }
}

/// What people should know of a door that is shut.
fn no_door(error: &EdgeError) -> String {
    format!("{error}: the route there is served as soon as it is free (`ss -ltnp` shows who has it)")
}

/// The edge as the core sees it.
#[derive(Clone)]
pub(crate) struct LiveEdge {
    edge: Arc<EdgeProcess>,
    errands: Errands,
    waker: Arc<Waker>,
    waiting: Arc<Mutex<BTreeSet<Vec<FleetId>>>>,
    /// Whether somebody is asking what was seen, and what was counted.
    looks: Arc<AtomicBool>,
    counts: Arc<AtomicBool>,
}

impl LiveEdge {
    /// # Errors
    /// If the thread that talks to the edge cannot be started.
    pub(crate) fn start(edge: Arc<EdgeProcess>, waker: Arc<Waker>) -> std::io::Result<Self> {
        let (carried, woken) = (edge.clone(), waker.clone());
        let carrier = move |order: &Order| match order {
            Order::SetTable(table) => carried.set_table(table),
            Order::Counts => carried.counts(),
        };
        let errands = Errands::start(Box::new(carrier), move || woken.wake())?;
        let (looks, counts) = (Arc::default(), Arc::default());
        Ok(Self { edge, errands, waker, waiting: Arc::default(), looks, counts })
    }

    /// Has the ledger learn what is counted by now, which an edge that is killed tells nobody any more.
    pub(crate) fn remember_counts(&self) {
        let edge = self.edge.clone();
        aside("counts", &self.counts, move || drop(edge.counts()));
    }
}

/// Does something on a thread of its own, unless it is being done: an edge that is slow to answer holds up nobody.
fn aside(name: &str, is_under_way: &Arc<AtomicBool>, deed: impl FnOnce() + Send + 'static) {
    if is_under_way.swap(true, SeqCst) {
        return;
    }
    let over = is_under_way.clone();
    let done = move || {
        deed();
        over.store(false, SeqCst);
    };
    if std::thread::Builder::new().name(name.into()).spawn(done).is_err() {
        is_under_way.store(false, SeqCst);
    }
}

impl Edge for LiveEdge {
    fn set_table(&self, table: &RouteTable) -> Result<EdgeCounts, Trouble> {
        self.errands.ask(Order::SetTable(table.clone()))
    }

    fn lacks(&self, table: &RouteTable) -> Option<String> {
        self.edge.lacks(table)
    }

    fn counts(&self) -> Result<EdgeCounts, Trouble> {
        self.errands.ask(Order::Counts)
    }

    fn evidence(&self, fleets: &[FleetId]) -> Vec<FleetEvidence> {
        // What it says is seen the next time.
        let (edge, wanted) = (self.edge.clone(), fleets.to_vec());
        aside("evidence", &self.looks, move || edge.look(&wanted));
        self.edge.seen(fleets)
    }

    fn wake_when_drained(&self, fleets: &[FleetId]) {
        if !lock(&self.waiting).insert(fleets.to_vec()) {
            return;
        }
        let (live, waited_for) = (self.clone(), fleets.to_vec());
        let wait = move || {
            live.edge.wait_drained(&waited_for, Duration::from_secs(10));
            lock(&live.waiting).remove(&waited_for);
            live.waker.wake();
        };
        if std::thread::Builder::new().name("drain".into()).spawn(wait).is_err() {
            lock(&self.waiting).remove(fleets);
        }
    }
}
