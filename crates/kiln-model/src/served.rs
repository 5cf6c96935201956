//! The releases that have ever served, oldest first.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use crate::{ReleaseId, Timestamp};

/// A release that has served at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Which.
    pub release: ReleaseId,
    /// When it first did.
    pub first: Timestamp,
    /// Who asked for it then.
    pub by: String,
}

/// All of them. A host that has lived for years has thousands: copies of a state share one list, and whether one is on it
/// is known without looking through all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History(Arc<List>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct List {
    served: Vec<Served>,
    ids: BTreeSet<ReleaseId>,
}

impl History {
    /// One more, unless it is there already.
    pub(crate) fn add(&mut self, served: Served) {
        if !self.0.ids.contains(&served.release) {
            let list = Arc::make_mut(&mut self.0);
            list.ids.insert(served.release.clone());
            list.served.push(served);
        }
    }

    /// Without these.
    pub(crate) fn forget(&mut self, releases: &[ReleaseId]) {
        let list = Arc::make_mut(&mut self.0);
        list.served.retain(|s| !releases.contains(&s.release));
        list.ids.retain(|id| !releases.contains(id));
    }
}

impl Deref for History {
    type Target = [Served];

    fn deref(&self) -> &[Served] {
        &self.0.served
    }
}
