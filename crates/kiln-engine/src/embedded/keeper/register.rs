//! What is known of every instance, to be told.

use std::collections::BTreeMap;

use kiln_model::{InstanceId, InstanceState, InstanceStatus, Shortage, Timestamp};

use super::super::wire::Cursor;

/// The instances of a keeper, ended ones included until they are forgotten.
///
/// Changes are numbered, and of each instance the last one is kept: so the memory is bounded by the number of
/// instances, and nobody can be so late that there is nothing to tell them.
#[derive(Debug)]
pub(super) struct Register {
    keeper: u64,
    last_change: u64,
    known: BTreeMap<InstanceId, Entry>,
    by_change: BTreeMap<u64, InstanceId>,
}

#[derive(Debug)]
enum Entry {
    /// Ordered; neither running nor failed.
    Expected,
    /// With the number of its last change.
    Told(InstanceStatus, u64),
}

impl Register {
    /// How many instances a keeper remembers.
    pub(super) const MOST: usize = 1 << 16;

    /// An empty register; `keeper` tells its numbers from those of others.
    pub(super) fn new(keeper: u64) -> Self {
        Self { keeper, last_change: 0, known: BTreeMap::new(), by_change: BTreeMap::new() }
    }

    pub(super) fn has_room_for(&self, more: usize) -> bool {
        self.known.len() + more <= Self::MOST
    }

    pub(super) fn knows(&self, id: &InstanceId) -> bool {
        self.known.contains_key(id)
    }

    /// An instance was ordered.
    pub(super) fn expect(&mut self, id: InstanceId) {
        self.known.entry(id).or_insert(Entry::Expected);
    }

    /// An instance is in another state.
    pub(super) fn set(&mut self, id: &InstanceId, state: InstanceState, since: Timestamp) {
        let shortage = self.status(id).map_or_else(Shortage::default, |s| s.shortage.clone());
        self.put(id, InstanceStatus { id: id.clone(), state, since, shortage });
    }

    /// Something else is wanting in an instance than before.
    pub(super) fn set_shortage(&mut self, id: &InstanceId, shortage: Shortage) {
        if let Some(status) = self.status(id).filter(|s| s.shortage != shortage).cloned() {
            self.put(id, InstanceStatus { shortage, ..status });
        }
    }

    fn put(&mut self, id: &InstanceId, status: InstanceStatus) {
        self.last_change += 1;
        let before = self.known.insert(id.clone(), Entry::Told(status, self.last_change));
        if let Some(Entry::Told(_, change)) = before {
            self.by_change.remove(&change);
        }
        self.by_change.insert(self.last_change, id.clone());
    }

    /// The status of an instance, if it is known and has one.
    pub(super) fn status(&self, id: &InstanceId) -> Option<&InstanceStatus> {
        match self.known.get(id) {
            Some(Entry::Told(status, _)) => Some(status),
            _ => None,
        }
    }

    /// All statuses by id.
    pub(super) fn list(&self) -> Vec<InstanceStatus> {
        self.known.keys().filter_map(|id| self.status(id)).cloned().collect()
    }

    /// What has changed after `since`, in the order in which it came about.
    pub(super) fn changes(&self, since: Cursor) -> (Vec<InstanceStatus>, Cursor) {
        let known = if since.keeper == self.keeper { since.change } else { 0 };
        let ids = self.by_change.range(known.saturating_add(1)..).map(|(_, id)| id);
        let statuses = ids.filter_map(|id| self.status(id)).cloned().collect();
        (statuses, Cursor { keeper: self.keeper, change: self.last_change })
    }

    /// All statuses in the order in which they came about.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &InstanceStatus> {
        self.by_change.values().filter_map(|id| self.status(id))
    }

    /// Drops an instance, if it has ended. Whether it did.
    pub(super) fn forget(&mut self, id: &InstanceId) -> bool {
        let Some(Entry::Told(InstanceStatus { state: InstanceState::Ended { .. }, .. }, change)) =
            self.known.get(id)
        else {
            return false;
        };
        self.by_change.remove(change);
        self.known.remove(id);
        true
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::Exit;

    use super::*;

    fn id(name: &str) -> InstanceId {
        name.parse().unwrap()
    }

    const RUNNING: InstanceState = InstanceState::Running { pid: 1 };
    const ENDED: InstanceState = InstanceState::Ended { exit: Exit::Code { code: 0 } };

    fn names(told: &(Vec<InstanceStatus>, Cursor)) -> Vec<&str> {
        told.0.iter().map(|s| s.id.as_str()).collect()
    }

    #[test]
    fn changes_come_once_in_order_and_only_the_last_of_each() {
        let mut register = Register::new(7);
        for name in ["b", "a", "c"] {
            register.expect(id(name));
            register.set(&id(name), RUNNING, Timestamp(0));
        }
        register.set(&id("b"), ENDED, Timestamp(1));
        let told = register.changes(Cursor::default());
        assert_eq!(names(&told), ["a", "c", "b"]);
        assert_eq!(names(&register.changes(told.1)), [""; 0]);
        register.set(&id("a"), ENDED, Timestamp(2));
        assert_eq!(names(&register.changes(told.1)), ["a"]);
        let of_another_keeper = Cursor { keeper: 6, change: 1000 };
        assert_eq!(names(&register.changes(of_another_keeper)), ["c", "b", "a"]);
    }

    #[test]
    fn only_what_has_ended_is_forgotten() {
        let mut register = Register::new(7);
        register.expect(id("a"));
        register.forget(&id("a"));
        assert!(register.knows(&id("a")) && register.status(&id("a")).is_none());
        register.set(&id("a"), ENDED, Timestamp(0));
        register.forget(&id("a"));
        assert!(!register.knows(&id("a")));
        assert_eq!(register.list(), []);
        assert_eq!(names(&register.changes(Cursor::default())), [""; 0]);
    }
}
