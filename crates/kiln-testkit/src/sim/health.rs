//! Fake health: every instance that is watched is well, but those that are said to be sick.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use kiln_control::{Clock, Condition, Health, Watch};
use kiln_model::InstanceId;

use super::{FakeClock, lock};

/// Cloneable handle: all clones are the same.
#[derive(Debug, Clone)]
pub struct FakeHealth {
    clock: FakeClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    conditions: BTreeMap<InstanceId, Condition>,
    sick: BTreeSet<String>,
    changed: bool,
}

impl FakeHealth {
    /// Everybody is well.
    pub fn new(clock: FakeClock) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// Instances whose id begins with this do not answer from now on.
    pub fn make_sick(&self, prefix: &str) {
        lock(&self.state).sick.insert(prefix.into());
        self.judge();
    }

    /// They answer again.
    pub fn make_well(&self, prefix: &str) {
        lock(&self.state).sick.remove(prefix);
        self.judge();
    }

    /// Nobody has been asked anything yet.
    pub(super) fn forget(&self) {
        lock(&self.state).conditions.clear();
    }

    /// Whether a condition has changed since the last call.
    pub(super) fn settle(&self) -> bool {
        std::mem::take(&mut lock(&self.state).changed)
    }

    fn judge(&self) {
        let now = self.clock.now();
        let State { conditions, sick, changed } = &mut *lock(&self.state);
        for (id, condition) in conditions {
            let healthy = !sick.iter().any(|prefix| id.as_str().starts_with(prefix));
            if healthy != condition.healthy {
                let last_problem = (!healthy).then(|| "no answer".to_owned());
                let was_healthy = condition.was_healthy || healthy;
                *condition = Condition { was_healthy, last_problem, ..Condition::presumed(healthy, now) };
                *changed = true;
            }
        }
    }
}

impl Health for FakeHealth {
    fn watch(&self, watches: &BTreeMap<InstanceId, Watch>) {
        let since = self.clock.now();
        {
            let conditions = &mut lock(&self.state).conditions;
            conditions.retain(|id, _| watches.contains_key(id));
            for (id, watch) in watches {
                let healthy = watch.presumed_healthy.is_some();
                let last_problem = Some("no answer".into());
                let new = Condition { last_problem, ..Condition::presumed(healthy, since) };
                conditions.entry(id.clone()).or_insert(new);
            }
        }
        self.judge();
    }

    fn conditions(&self) -> BTreeMap<InstanceId, Condition> {
        lock(&self.state).conditions.clone()
    }
}
