//! What comes from inside instances: whose it is, and where it leads.
//!
//! The keeper listens inside an instance for what its service needs, and hands the listeners to the edge. Which fleet
//! or store a connection leads to says the table; that an instance can reach nothing else, the keeper sees to.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock};

use kiln_model::{FleetId, InstanceId, NeedName};

use crate::sockets::{Door, Listener};
use crate::table::Table;

/// An instance that needs something.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) instance: InstanceId,
    pub(crate) fleet: FleetId,
    pub(crate) need: NeedName,
}

/// Callers by the numbers of their doors. Shared by all threads; looked up once for each connection.
#[derive(Debug, Default)]
pub(crate) struct Callers(RwLock<HashMap<u64, Arc<Caller>>>);

impl Callers {
    pub(crate) fn get(&self, door: u64) -> Option<Arc<Caller>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&door).cloned()
    }

    fn put(&self, door: u64, caller: Caller) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(door, Arc::new(caller));
    }

    fn remove(&self, door: u64) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&door);
    }
}

/// The instances whose needs are served, with the numbers of their doors.
#[derive(Debug, Default)]
pub(crate) struct Attended {
    doors: BTreeMap<InstanceId, Vec<u64>>,
    last: u64,
}

impl Attended {
    /// The callers of a table that are not attended yet.
    pub(crate) fn new_ones(&self, table: &Table) -> Vec<(InstanceId, FleetId)> {
        let all = table.fleets.iter().flat_map(|f| f.callers.iter().map(|id| (id, f.tally.fleet())));
        let new = all.filter(|(id, _)| !self.doors.contains_key(*id));
        new.map(|(id, fleet)| (id.clone(), fleet.clone())).collect()
    }

    /// Lets go of those that are no callers any more: their doors, to be listened at no more.
    pub(crate) fn let_go(&mut self, table: &Table, callers: &Callers) -> Vec<Door> {
        let stay: std::collections::HashSet<&InstanceId> =
            table.fleets.iter().flat_map(|f| &f.callers).collect();
        let gone: Vec<InstanceId> = self.doors.keys().filter(|id| !stay.contains(id)).cloned().collect();
        let doors: Vec<u64> = gone.iter().filter_map(|id| self.doors.remove(id)).flatten().collect();
        doors.iter().for_each(|door| callers.remove(*door));
        doors.into_iter().map(Door::Inside).collect()
    }

    /// Takes the listeners of a caller.
    pub(crate) fn take(
        &mut self,
        (instance, fleet): (InstanceId, FleetId),
        listeners: Vec<(NeedName, OwnedFd)>,
        callers: &Callers,
    ) -> Vec<Listener> {
        let mut taken = Vec::with_capacity(listeners.len());
        let doors = self.doors.entry(instance.clone()).or_default();
        for (need, socket) in listeners {
            self.last += 1;
            callers.put(self.last, Caller { instance: instance.clone(), fleet: fleet.clone(), need });
            doors.push(self.last);
            taken.push(Listener { door: Door::Inside(self.last), socket });
        }
        taken
    }
}
