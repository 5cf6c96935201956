//! A fake history: it keeps what it is told to keep, and refuses when it is told to.

use std::sync::{Arc, Mutex};

use kiln_control::{History, Trouble};
use kiln_model::Record;

use super::lock;

/// Cloneable handle to a history that survives the core that writes it; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct FakeHistory(Arc<Mutex<Pages>>);

/// What a disk does with what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskState {
    /// It keeps it.
    #[default]
    Writes,
    /// It has no room: nothing is kept.
    Full,
    /// It reports an error, and what it refused last is found there when the control plane has died.
    Broken,
}

#[derive(Debug, Default)]
struct Pages {
    records: Vec<Record>,
    state: DiskState,
    refused: Option<Record>,
}

impl FakeHistory {
    /// What is kept.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.0).records.clone()
    }

    /// From now on the disk is so.
    pub fn set_disk(&self, state: DiskState) {
        lock(&self.0).state = state;
    }

    /// What the next control plane finds.
    pub(super) fn after_death(&self) -> Vec<Record> {
        let mut pages = lock(&self.0);
        let found = pages.refused.take();
        pages.records.extend(found);
        pages.records.clone()
    }
}

impl History for FakeHistory {
    fn append(&mut self, record: &Record) -> Result<(), Trouble> {
        let mut pages = lock(&self.0);
        // Whatever was there, this is written in its place.
        pages.refused = None;
        match pages.state {
            DiskState::Writes => pages.records.push(record.clone()),
            DiskState::Full => return Err(Trouble("no space is left on the disk".into())),
            DiskState::Broken => {
                pages.refused = Some(record.clone());
                return Err(Trouble("the disk is broken".into()));
            }
        }
        Ok(())
    }

    fn mend(&mut self) -> Result<(), Trouble> {
        let mut pages = lock(&self.0);
        match (pages.state, &pages.refused) {
            (DiskState::Broken, Some(_)) => Err(Trouble("the disk is broken".into())),
            _ => {
                pages.refused = None;
                Ok(())
            }
        }
    }
}
