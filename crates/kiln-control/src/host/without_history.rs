//! What can be done where the operation log is not what was appended: its processes can be ended, and it can be repaired.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use kiln_model::{Failure, Record};
use kiln_store::{HostLock, OperationLog, Repair, Store};

use super::driver::Waker;
use super::processes::Processes;
use super::{HostConfig, LocalHost, failure};
use crate::contract::Caller;
use crate::shelf::SystemClock;
use crate::world::Clock;

impl LocalHost {
    /// Ends instances, keeper and edge of a host that has no control plane and cannot have one. Its log says nothing of
    /// that: what it says is to run is brought up again by the next control plane that can read it.
    ///
    /// # Errors
    /// If another control plane runs there, or something could not be ended.
    pub fn end_without_history(config: &HostConfig) -> Result<(), Failure> {
        let store = Store::open(&config.root).map_err(|e| failure::store(&e))?;
        let _held = HostLock::take(&store).map_err(|e| failure::store(&e))?;
        let processes = Processes::start(config, &store, Arc::new(Waker::default()))?;
        processes.end().map_err(|trouble| failure::cannot_end(&trouble))
    }
}

/// Puts the operation log in `root` together again from what can be read of it, if it is damaged; the damaged one is kept.
/// The log says so, for each app it knows.
///
/// # Errors
/// If a control plane runs there, or it cannot be written.
pub fn repair_log(root: &Path, by: &Caller) -> Result<Option<Repair>, Failure> {
    let store = Store::open(root).map_err(|e| failure::store(&e))?;
    let held = HostLock::take(&store).map_err(|e| {
        let hint = "`kiln log --repair` is for a log that no control plane works with: end `kiln serve` first; what it \
                    runs serves on meanwhile";
        failure::store(&e).hint(hint)
    })?;
    let note = |repair: &Repair, entries: &[Record]| {
        let apps: BTreeSet<_> = entries.iter().map(Record::app).cloned().collect();
        let kept_as = file_name(&repair.kept_as);
        let (at, by) = (SystemClock.now(), by.author());
        let entry = |app| {
            let (by, kept_as, damage) = (by.clone(), kept_as.clone(), repair.damage.clone());
            Record::Repaired { at, by, app, kept_as, damage }
        };
        apps.into_iter().map(entry).collect()
    };
    OperationLog::repair(&store, &held, note).map_err(|e| failure::store(&e))
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    format!("log/{}", name.display())
}
