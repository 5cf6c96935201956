//! The releases an app can go back to, oldest first, and those it keeps for that and other reasons.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use crate::{AppState, ReleaseId, Timestamp};

/// When something came about, and who asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occasion {
    /// When.
    pub at: Timestamp,
    /// Who asked for it.
    pub by: String,
}

/// A release that can be gone back to: it has served, or came from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRelease {
    /// Which.
    pub release: ReleaseId,
    /// How it came to be one of these: it served for the first time, or was imported.
    pub came: Occasion,
    /// When it first served; absent if it was imported and never did.
    pub first: Option<Occasion>,
}

/// All of them. A host that has lived for years has thousands: copies of a state share one list, and whether one is on it
/// is known without looking through all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History(Arc<List>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct List {
    kept: Vec<KeptRelease>,
    ids: BTreeSet<ReleaseId>,
    /// Those that never served.
    untried: BTreeSet<ReleaseId>,
}

impl History {
    /// One has come from a file.
    pub(crate) fn imported(&mut self, release: &ReleaseId, came: Occasion) {
        if !self.0.ids.contains(release) {
            let list = Arc::make_mut(&mut self.0);
            list.untried.insert(release.clone());
            list.add(KeptRelease { release: release.clone(), came, first: None });
        }
    }

    /// One serves from now on.
    pub(crate) fn serves(&mut self, release: &ReleaseId, now: Occasion) {
        if !self.0.ids.contains(release) {
            let kept = KeptRelease { release: release.clone(), came: now.clone(), first: Some(now) };
            Arc::make_mut(&mut self.0).add(kept);
        } else if self.0.untried.contains(release) {
            let list = Arc::make_mut(&mut self.0);
            list.untried.remove(release);
            let mut kept = list.kept.iter_mut();
            if let Some(it) = kept.find(|s| s.release == *release) {
                it.first = Some(now);
            }
        }
    }

    /// Without these.
    pub(crate) fn forget(&mut self, releases: &[ReleaseId]) {
        let gone: BTreeSet<&ReleaseId> = releases.iter().collect();
        let list = Arc::make_mut(&mut self.0);
        list.kept.retain(|s| !gone.contains(&s.release));
        list.ids.retain(|id| !gone.contains(id));
        list.untried.retain(|id| !gone.contains(id));
    }
}

impl AppState {
    /// What serves, and what anything is up of.
    pub fn up(&self) -> BTreeSet<ReleaseId> {
        let fleets = self.fleets.values().map(|f| f.release.clone());
        fleets.chain(self.traffic.live().cloned()).collect()
    }

    /// What it cannot do without: what serves, what `kiln rollback` goes back to, what is up, what is under way, and
    /// what somebody wants to be kept.
    pub fn needed(&self) -> BTreeSet<ReleaseId> {
        let fleets = self.fleets.values().map(|f| f.release.clone());
        let under_way =
            self.under_way.iter().flat_map(|u| [u.plan.from.clone(), u.plan.to.clone()]).flatten();
        let main = [self.traffic.live().cloned(), self.previous.clone()].into_iter().flatten();
        fleets.chain(under_way).chain(main).chain(self.pinned.iter().cloned()).collect()
    }

    /// What may serve, now or later: what is needed, and all that can be gone back to. What was made and never served,
    /// because its deploy failed, is neither: nothing stays for its sake.
    pub fn held(&self) -> BTreeSet<ReleaseId> {
        let mut held = self.needed();
        held.extend(self.kept.iter().map(|kept| kept.release.clone()));
        held
    }
}

impl List {
    fn add(&mut self, kept: KeptRelease) {
        self.ids.insert(kept.release.clone());
        self.kept.push(kept);
    }
}

impl Deref for History {
    type Target = [KeptRelease];

    fn deref(&self) -> &[KeptRelease] {
        &self.0.kept
    }
}
