//! What keeps a host from going on with what runs, before anything of that is touched.

use kiln_engine::Engine;
use kiln_model::{Failure, InstanceId};
use kiln_store::Store;

use super::{checks, failure};
use crate::core::Past;
use crate::world::Trouble;

/// Refuses to begin where a release is damaged that something runs of.
pub(super) fn is_described(store: &Store, past: &Past) -> Result<(), Failure> {
    for (app, state) in past.apps() {
        for release in state.up() {
            let cannot = |e| failure::cannot_start(app, &release, store.root(), &e);
            store.release(&release).map_err(cannot)?;
        }
    }
    Ok(())
}

/// Refuses to begin where something runs that is newer than the operation log: a plan is in the log before anything of it is
/// made, so the end of the log is missing. All of it would be taken for strays, and what serves with them.
pub(super) fn is_in_the_log(store: &Store, engine: &dyn Engine, past: &Past) -> Result<(), Failure> {
    let there = engine.list().map_err(|e| failure::cannot_go_on(&Trouble::of(&e)))?;
    let runs = there.into_iter().filter(|status| status.state.pid().is_some()).map(|status| status.id);
    let newer: Vec<InstanceId> =
        runs.filter(|id| past.ends_before(id) && !checks::is_throwaway(id)).collect();
    match newer.first() {
        None => Ok(()),
        Some(first) => Err(failure::log_ends_before(first, newer.len() - 1, store.root())),
    }
}
