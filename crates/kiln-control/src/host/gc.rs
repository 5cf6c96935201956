//! `kiln gc`: which releases may go.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{
    Answer, AppName, AppState, ByteSize, Failure, GcAnswer, ImageDigest, InstanceId, Millis, Record,
    ReleaseId, Swept, Timestamp,
};
use kiln_store::boundary::stored;
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
    /// What it is made of; nothing where its document is damaged or gone.
    images: BTreeSet<ImageDigest>,
}

impl LocalHost {
    pub(crate) fn gc(&self, wanted: &Wanted, by: &Caller) -> Result<Answer, Failure> {
        // From here on nobody bakes, deploys or rolls back: what is decided stays true.
        let sweeper = self.store.sweeper().map_err(|e| failure::store(&e))?;
        let apps: BTreeMap<AppName, AppState> = lock(&self.driver.core).apps().clone();
        if apps.is_empty() {
            self.has_its_history()?;
        }
        let mut doomed: Vec<Doomed> =
            apps.iter().flat_map(|(app, state)| doomed(app, state, wanted)).collect();
        doomed.sort_by_key(|d| d.came);
        for one in &mut doomed {
            let document = self.store.release(&one.release).ok();
            one.images = document.iter().flat_map(|d| d.services.values()).map(|s| s.image).collect();
        }
        let size = self.store.size().map_err(|e| failure::store(&e))?;
        let present = self.present(&apps)?;
        if let Some(limit) = wanted.bytes {
            let most = size.saturating_sub(limit.0);
            doomed.truncate(fewest(&sweeper, &present, &doomed, wanted, most)?);
        }
        let keep = present.keep(&doomed, wanted);
        // What keeps a sweep from its end is found before anything goes.
        let mut swept = sweeper.sweep(&keep, true).map_err(|e| failure::not_swept(&e))?;
        if !wanted.dry_run {
            // The history first: a release that is still listed is still there.
            self.note_collected(doomed, by)?;
            let sweep = || sweeper.sweep(&keep, false);
            swept = stored(|| self.store.root().join("objects"), sweep).map_err(|e| failure::store(&e))?;
        }
        let bytes = bytes_of(&swept);
        let (kept, remaining) = (keep.releases, size.saturating_sub(bytes));
        Ok(Answer::Gc(GcAnswer { dry_run: wanted.dry_run, kept, bytes, remaining, swept }))
    }

    /// Refuses to go on where there are releases and the log tells of no app. It has been lost, and all of them would go with
    /// it; or a host died before its first entry, and the next one makes it.
    fn has_its_history(&self) -> Result<(), Failure> {
        let releases = self.store.releases().map_err(|e| failure::store(&e))?;
        if releases.is_empty() { Ok(()) } else { Err(failure::no_history(releases.len(), self.store.root())) }
    }

    /// All that decides on what stays, as nobody changes it any more.
    fn present(&self, apps: &BTreeMap<AppName, AppState>) -> Result<Present, Failure> {
        let lineage = self.lineage()?;
        let existing = self.engine.list().map_err(|e| failure::cannot_end(&Trouble::of(&e)))?;
        let existing: BTreeSet<InstanceId> = existing.into_iter().map(|s| s.id).collect();
        let release_of = |id: &InstanceId| match existing.contains(id) {
            true => Output::OfAnInstance,
            false => lineage.origin(id).map_or(Output::OfNobody, |o| Output::Of(o.release.clone())),
        };
        let outputs = self.store.outputs().map_err(|e| failure::store(&e))?;
        Ok(Present {
            releases: self.store.releases().map_err(|e| failure::store(&e))?,
            held: apps.values().flat_map(AppState::held).collect(),
            outputs: outputs.into_iter().map(|id| (id.clone(), release_of(&id))).collect(),
        })
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
}

/// Whose output it is.
enum Output {
    OfAnInstance,
    Of(ReleaseId),
    OfNobody,
}

/// What is here, and what of it may serve.
struct Present {
    releases: Vec<ReleaseId>,
    held: BTreeSet<ReleaseId>,
    outputs: Vec<(InstanceId, Output)>,
}

impl Present {
    /// What stays when the doomed go.
    fn keep(&self, doomed: &[Doomed], wanted: &Wanted) -> Keep {
        let goes: BTreeSet<&ReleaseId> = doomed.iter().map(|d| &d.release).collect();
        let stays = |id: &&ReleaseId| self.held.contains(*id) && !goes.contains(*id);
        let releases: BTreeSet<ReleaseId> = self.releases.iter().filter(stays).cloned().collect();
        let is_kept = |(_, output): &&(InstanceId, Output)| match output {
            Output::OfAnInstance => true,
            Output::Of(release) => releases.contains(release),
            Output::OfNobody => false,
        };
        let outputs = self.outputs.iter().filter(is_kept).map(|(id, _)| id.clone()).collect();
        let grace = wanted.images_older_than.map_or(kiln_store::GRACE, Millis::duration);
        let served = doomed.iter().flat_map(|d| &d.images).copied().collect();
        Keep { releases, outputs, grace, served, caches: wanted.caches }
    }
}

/// How many of the doomed, from the first on, have to go to free so many bytes; all if that is not enough.
fn fewest(
    sweeper: &Sweeper,
    present: &Present,
    doomed: &[Doomed],
    wanted: &Wanted,
    bytes: u64,
) -> Result<usize, Failure> {
    let (mut least, mut most) = (0, doomed.len());
    while least < most {
        let middle = least.midpoint(most);
        let keep = present.keep(&doomed[..middle], wanted);
        let freed = bytes_of(&sweeper.sweep(&keep, true).map_err(|e| failure::not_swept(&e))?);
        if freed >= bytes { most = middle } else { least = middle + 1 }
    }
    Ok(least)
}

/// The releases of an app that may go: neither needed, nor among the newest, nor too young.
fn doomed(app: &AppName, state: &AppState, wanted: &Wanted) -> Vec<Doomed> {
    let needed = state.needed();
    let older = state.kept.iter().rev().skip(wanted.keep as usize);
    let goes = |s: &&kiln_model::KeptRelease| {
        !needed.contains(&s.release) && wanted.before.is_none_or(|before| s.came.at < before)
    };
    let doomed = |s: &kiln_model::KeptRelease| Doomed {
        came: s.came.at,
        app: app.clone(),
        release: s.release.clone(),
        images: BTreeSet::new(),
    };
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
