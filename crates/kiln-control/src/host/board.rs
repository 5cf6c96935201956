//! Where everybody can see what the engine reports: the core has a say only in members of fleets, but throwaway
//! instances of checks end, too.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_model::{Exit, InstanceId, InstanceState, InstanceStatus};

use crate::sync::lock;

/// The ends of instances that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Board {
    ended: Mutex<BTreeMap<InstanceId, Option<Exit>>>,
    news: Condvar,
}

impl Board {
    /// From now on the end of `id` is kept until [`Board::forget`].
    pub(crate) fn expect(&self, id: &InstanceId) {
        lock(&self.ended).insert(id.clone(), None);
    }

    /// Drops what is kept of `id`.
    pub(crate) fn forget(&self, id: &InstanceId) {
        lock(&self.ended).remove(id);
    }

    /// Takes account of what the engine reports.
    pub(crate) fn post(&self, statuses: &[InstanceStatus]) {
        let mut ended = lock(&self.ended);
        for status in statuses {
            if let (InstanceState::Ended { exit }, Some(slot)) = (&status.state, ended.get_mut(&status.id)) {
                *slot = Some(exit.clone());
            }
        }
        self.news.notify_all();
    }

    /// How `id` ended, as soon as it has; `None` at the deadline or when `give_up` says so.
    pub(crate) fn wait(
        &self,
        id: &InstanceId,
        deadline: Instant,
        give_up: &dyn Fn() -> bool,
    ) -> Option<Exit> {
        const LOOK_UP: Duration = Duration::from_millis(100);
        let mut ended = lock(&self.ended);
        loop {
            if let Some(Some(exit)) = ended.get(id) {
                return Some(exit.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || give_up() {
                return None;
            }
            let waited = self.news.wait_timeout(ended, left.min(LOOK_UP));
            ended = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
