//! `kiln gc`: which releases may go.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{
    Answer, AppName, AppState, ByteSize, Failure, GcAnswer, Millis, Record, ReleaseId, Swept, Timestamp,
};
use kiln_store::{Keep, Sweeper};

use super::{LocalHost, failure};
use crate::contract::Caller;
use crate::sync::lock;
use crate::world::{Clock, Trouble};

/// What was asked for.
pub(crate) struct Wanted {
    /// So many releases of each app stay, beside those that must.
    pub(crate) keep: u32,
    /// Only releases that came to this host before this moment go.
    pub(crate) before: Option<Timestamp>,
    /// Only as many go as it takes until the store is no larger than this.
    pub(crate) bytes: Option<ByteSize>,
    /// How old images must be that no release needs.
    pub(crate) images_older_than: Option<Millis>,
    pub(crate) caches: bool,
    pub(crate) dry_run: bool,
}

/// A release that may go.
struct Doomed {
    came: Timestamp,
    app: AppName,
    release: ReleaseId,
}

impl LocalHost {
    pub(crate) fn gc(&self, wanted: &Wanted, by: &Caller) -> Result<Answer, Failure> {
        // From here on nobody bakes, deploys or rolls back: what is decided stays true.
        let sweeper = self.store.sweeper().map_err(|e| failure::store(&e))?;
        let apps: BTreeMap<AppName, AppState> = lock(&self.driver.core).apps().clone();
        let mut doomed: Vec<Doomed> =
            apps.iter().flat_map(|(app, state)| doomed(app, state, wanted)).collect();
        doomed.sort_by_key(|d| d.came);
        let size = self.store.size().map_err(|e| failure::store(&e))?;
        if let Some(limit) = wanted.bytes {
            let fewest = self.fewest(&sweeper, &apps, &doomed, wanted, size.saturating_sub(limit.0))?;
            doomed.truncate(fewest);
        }
        let keep = self.keep(&apps, &doomed, wanted)?;
        if !wanted.dry_run {
            // The history first: a release that is still listed is still there.
            self.note_collected(doomed, by)?;
        }
        let swept = sweeper.sweep(&keep, wanted.dry_run).map_err(|e| failure::store(&e))?;
        let bytes = bytes_of(&swept);
        let (kept, remaining) = (keep.releases, size.saturating_sub(bytes));
        Ok(Answer::Gc(GcAnswer { dry_run: wanted.dry_run, kept, bytes, remaining, swept }))
    }

    /// How many of the doomed, from the first on, have to go to free so many bytes; all if that is not enough.
    fn fewest(
        &self,
        sweeper: &Sweeper,
        apps: &BTreeMap<AppName, AppState>,
        doomed: &[Doomed],
        wanted: &Wanted,
        bytes: u64,
    ) -> Result<usize, Failure> {
        let (mut least, mut most) = (0, doomed.len());
        while least < most {
            let middle = least.midpoint(most);
            let keep = self.keep(apps, &doomed[..middle], wanted)?;
            let freed = bytes_of(&sweeper.sweep(&keep, true).map_err(|e| failure::store(&e))?);
            if freed >= bytes { most = middle } else { least = middle + 1 }
        }
        Ok(least)
    }

    fn keep(
        &self,
        apps: &BTreeMap<AppName, AppState>,
        doomed: &[Doomed],
        wanted: &Wanted,
    ) -> Result<Keep, Failure> {
        let all = self.store.releases().map_err(|e| failure::store(&e))?;
        let served: BTreeSet<&ReleaseId> =
            apps.values().flat_map(|s| s.served.iter().map(|s| &s.release)).collect();
        let needed: BTreeSet<ReleaseId> = apps.values().flat_map(needed).collect();
        let goes: BTreeSet<&ReleaseId> = doomed.iter().map(|d| &d.release).collect();
        // What was made and never served is nothing to go back to.
        let stays = |id: &ReleaseId| needed.contains(id) || (served.contains(id) && !goes.contains(id));
        let releases: BTreeSet<ReleaseId> = all.into_iter().filter(stays).collect();
        let outputs = self.outputs_of(&releases)?;
        let grace = wanted.images_older_than.map_or(kiln_store::GRACE, Millis::duration);
        Ok(Keep { releases, outputs, grace, caches: wanted.caches })
    }

    fn note_collected(&self, doomed: Vec<Doomed>, by: &Caller) -> Result<(), Failure> {
        let mut by_app: BTreeMap<AppName, Vec<ReleaseId>> = BTreeMap::new();
        for Doomed { app, release, .. } in doomed {
            by_app.entry(app).or_default().push(release);
        }
        for (app, releases) in by_app {
            let collected = Record::Collected { at: self.clock.now(), by: by.author(), app, releases };
            lock(&self.driver.core).note(&collected).map_err(|e| unrecorded(&e))?;
        }
        Ok(())
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

/// What an app cannot do without: what serves, what `kiln rollback` goes back to, what is up, what is under way, and
/// what somebody wants to be kept.
fn needed(state: &AppState) -> BTreeSet<ReleaseId> {
    let fleets = state.fleets.values().map(|f| f.release.clone());
    let under_way = state.under_way.iter().flat_map(|u| [u.plan.from.clone(), u.plan.to.clone()]).flatten();
    let main = [state.traffic.live().cloned(), state.previous.clone()].into_iter().flatten();
    fleets.chain(under_way).chain(main).chain(state.pinned.iter().cloned()).collect()
}

/// The releases of an app that may go: neither needed, nor among the newest, nor too young.
fn doomed(app: &AppName, state: &AppState, wanted: &Wanted) -> Vec<Doomed> {
    let needed = needed(state);
    let older = state.served.iter().rev().skip(wanted.keep as usize);
    let goes = |s: &&kiln_model::Served| {
        !needed.contains(&s.release) && wanted.before.is_none_or(|before| s.came.at < before)
    };
    let doomed =
        |s: &kiln_model::Served| Doomed { came: s.came.at, app: app.clone(), release: s.release.clone() };
    older.filter(goes).map(doomed).collect()
}

fn bytes_of(swept: &Swept) -> u64 {
    swept.amounts.values().map(|a| a.bytes).sum()
}

fn unrecorded(trouble: &Trouble) -> Failure {
    Failure::new(
        kiln_model::ExitCode::Host,
        "what goes could not be written into the log; nothing was removed",
    )
    .because(trouble.to_string())
}
