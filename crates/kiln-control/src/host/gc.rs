//! `kiln gc`: which releases may go.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{Answer, AppName, AppState, Failure, GcAnswer, Record, ReleaseId, Timestamp};
use kiln_store::Keep;

use super::{LocalHost, failure};
use crate::contract::Caller;
use crate::sync::lock;
use crate::world::{Clock, Trouble};

/// What was asked for.
pub(crate) struct Wanted {
    /// So many releases of each app stay, beside those that must.
    pub(crate) keep: u32,
    /// Only releases that first served before this moment go.
    pub(crate) before: Option<Timestamp>,
    pub(crate) caches: bool,
    pub(crate) dry_run: bool,
}

impl LocalHost {
    pub(crate) fn gc(&self, wanted: &Wanted, by: &Caller) -> Result<Answer, Failure> {
        // From here on nobody bakes, deploys or rolls back: what is decided stays true.
        let sweeper = self.store.sweeper().map_err(|e| failure::store(&e))?;
        let apps: BTreeMap<AppName, AppState> = lock(&self.driver.core).apps().clone();
        let all: BTreeSet<ReleaseId> =
            self.store.releases().map_err(|e| failure::store(&e))?.into_iter().collect();
        let doomed: BTreeMap<&AppName, Vec<ReleaseId>> =
            apps.iter().map(|(app, state)| (app, doomed(state, wanted))).collect();
        let served: BTreeSet<&ReleaseId> =
            apps.values().flat_map(|s| s.served.iter().map(|s| &s.release)).collect();
        let needed: BTreeSet<ReleaseId> = apps.values().flat_map(needed).collect();
        let stays = |id: &&ReleaseId| {
            // What was made and never served is nothing to go back to.
            needed.contains(*id) || (served.contains(*id) && !doomed.values().flatten().any(|d| d == *id))
        };
        let releases: BTreeSet<ReleaseId> = all.iter().filter(stays).cloned().collect();
        let outputs = self.outputs_of(&releases)?;
        if !wanted.dry_run {
            // The history first: a release that is still listed is still there.
            for (app, releases) in doomed.into_iter().filter(|(_, r)| !r.is_empty()) {
                let (at, by, app) = (self.clock.now(), by.name.clone(), app.clone());
                let collected = Record::Collected { at, by, app, releases };
                lock(&self.driver.core).note(&collected).map_err(|e| unrecorded(&e))?;
            }
        }
        let keep = Keep { releases, outputs, caches: wanted.caches };
        let swept = sweeper.sweep(&keep, wanted.dry_run).map_err(|e| failure::store(&e))?;
        let bytes = swept.amounts.values().map(|a| a.bytes).sum();
        Ok(Answer::Gc(GcAnswer { dry_run: wanted.dry_run, kept: keep.releases, bytes, swept }))
    }

    /// The instances whose output stays: those of kept releases, and those that exist.
    fn outputs_of(
        &self,
        releases: &BTreeSet<ReleaseId>,
    ) -> Result<BTreeSet<kiln_model::InstanceId>, Failure> {
        let lineage = super::history::Lineage::of(&self.records()?);
        let existing = self.engine.list().map_err(|e| failure::cannot_end(&Trouble::of(&e)))?;
        let existing: BTreeSet<_> = existing.into_iter().map(|s| s.id).collect();
        let named = self.store.outputs().map_err(|e| failure::store(&e))?;
        let stays = |id: &kiln_model::InstanceId| {
            existing.contains(id) || lineage.origin(id).is_some_and(|o| releases.contains(&o.release))
        };
        Ok(named.into_iter().filter(stays).collect())
    }
}

/// What an app cannot do without: what serves, what `kiln rollback` goes back to, what is up, what is under way.
fn needed(state: &AppState) -> BTreeSet<ReleaseId> {
    let fleets = state.fleets.values().map(|f| f.release.clone());
    let under_way = state.under_way.iter().flat_map(|u| [u.plan.from.clone(), u.plan.to.clone()]).flatten();
    let main = [state.traffic.live().cloned(), state.previous.clone()].into_iter().flatten();
    fleets.chain(under_way).chain(main).collect()
}

/// The releases of an app that go: neither needed, nor among the newest, nor too young.
fn doomed(state: &AppState, wanted: &Wanted) -> Vec<ReleaseId> {
    let needed = needed(state);
    let older = state.served.iter().rev().skip(wanted.keep as usize);
    let goes = |s: &&kiln_model::Served| {
        !needed.contains(&s.release) && wanted.before.is_none_or(|before| s.first < before)
    };
    older.filter(goes).map(|s| s.release.clone()).collect()
}

fn unrecorded(trouble: &Trouble) -> Failure {
    Failure::new(
        kiln_model::ExitCode::Host,
        "what goes could not be written into the log; nothing was removed",
    )
    .because(trouble.to_string())
}
