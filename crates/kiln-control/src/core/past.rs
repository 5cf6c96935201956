//! What a host has come to: a fold over its operation log, one entry after the other.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{Action, AppName, AppState, FleetId, Generation, InstanceId, Record};

/// All that a core needs to know of the entries there are. No entry is kept: a host that has lived for years has
/// hundreds of thousands of them.
#[derive(Debug, Default)]
pub struct Past {
    pub(super) apps: BTreeMap<AppName, AppState>,
    /// That of the newest plan.
    pub(super) generation: Generation,
    /// What the ids of all fleets there ever were begin with.
    fleets: BTreeSet<String>,
    /// Whether it was put together from what could be read, and nothing was planned since then.
    is_repaired: bool,
}

impl Past {
    /// Takes account of the next entry.
    pub fn learn(&mut self, record: &Record) {
        match record {
            // Secrets may be set before there is an app, and change nothing about one.
            Record::SecretSet { .. } | Record::SecretRemoved { .. } => return,
            Record::Begun { plan, .. } => {
                self.generation = self.generation.max(plan.generation);
                self.is_repaired = false;
                self.fleets.extend(plan.steps.iter().filter_map(|step| fleet_of(&step.action)));
            }
            Record::Repaired { .. } => self.is_repaired = true,
            _ => {}
        }
        match self.apps.get_mut(record.app()) {
            Some(state) => state.apply(record),
            None => self.apps.entry(record.app().clone()).or_default().apply(record),
        }
    }

    /// What each app has come to.
    pub(crate) fn apps(&self) -> &BTreeMap<AppName, AppState> {
        &self.apps
    }

    /// What an app has come to: nothing yet, if there is nothing about it.
    pub(crate) fn state_of(&self, app: &AppName) -> AppState {
        self.apps.get(app).cloned().unwrap_or_default()
    }

    /// Whether an instance was once a member of a fleet, or ran for a hook. Those of checks are neither.
    pub(super) fn had_member(&self, id: &InstanceId) -> bool {
        id.as_str().rsplit_once('-').is_some_and(|(fleet, _)| self.fleets.contains(fleet))
    }

    /// Whether an instance was made for a plan that is newer than all of these. Who repairs a log knows that entries are
    /// missing.
    pub(crate) fn ends_before(&self, id: &InstanceId) -> bool {
        let generation = id.as_str().rsplit('-').nth(1).and_then(|part| part.parse().ok());
        !self.is_repaired && generation.is_some_and(|generation| Generation(generation) > self.generation)
    }
}

impl<'a> FromIterator<&'a Record> for Past {
    fn from_iter<T: IntoIterator<Item = &'a Record>>(records: T) -> Self {
        let mut past = Self::default();
        records.into_iter().for_each(|record| past.learn(record));
        past
    }
}

/// What the ids of the instances begin with that a step makes.
fn fleet_of(action: &Action) -> Option<String> {
    let prefix = |fleet: &FleetId| format!("{}-{}-{}", fleet.app, fleet.service, fleet.generation);
    match action {
        Action::Provision { fleet, .. } => Some(prefix(fleet)),
        Action::RunHook { hook, .. } => Some(prefix(&hook.fleet())),
        _ => None,
    }
}
