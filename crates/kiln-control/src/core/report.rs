//! What a core tells of itself.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{
    Action, AppName, AppState, FleetId, InstanceId, InstancePhase, InstanceState, Release, ReleaseId,
    RouteTable, Timestamp, Waiting,
};

use super::Core;

/// One instance and all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceReport {
    /// Its id.
    pub id: InstanceId,
    /// Its fleet.
    pub fleet: FleetId,
    /// Its release.
    pub release: ReleaseId,
    /// Where it is in its life.
    pub phase: InstancePhase,
    /// Since when.
    pub since: Timestamp,
    /// Its main process.
    pub pid: Option<u32>,
    /// What is wrong with it, if anything.
    pub problem: Option<String>,
}

/// Requests at fleets that are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bygone {
    /// Those that were answered.
    pub served: u64,
    /// Of these, by no instance.
    pub failed: u64,
}

impl Core {
    /// What was served at fleets of an app that the edge has let go of since this core was made.
    pub fn bygone(&self, app: &AppName) -> Bygone {
        self.bygone.get(app).copied().unwrap_or_default()
    }

    /// All apps.
    pub fn apps(&self) -> &BTreeMap<AppName, AppState> {
        &self.past.apps
    }

    /// A release in use.
    pub fn release(&self, id: &ReleaseId) -> Option<&Release> {
        self.releases.get(id)
    }

    /// The table the edge has acknowledged, if it has.
    pub fn published(&self) -> Option<&RouteTable> {
        self.published.as_ref()
    }

    /// Every instance that runs or should.
    pub fn instances(&self) -> Vec<InstanceReport> {
        let fleets = self.past.apps.values().flat_map(|s| s.fleets.values());
        fleets
            .flat_map(|f| f.instances().map(move |(_, id)| (f, id)))
            .filter_map(|(fleet, id)| {
                let status = self.statuses.get(&id)?;
                let (phase, since) = self.phase(&id, &status.state, status.since)?;
                let (pid, release) = (status.state.pid(), fleet.release.clone());
                let touch = fleet.serial_of(&id).and_then(|s| fleet.touched.get(&s)).map(ToString::to_string);
                let problem = self.problem(&id).or_else(|| status.shortage.words()).or(touch);
                Some(InstanceReport { id, fleet: fleet.id.clone(), release, phase, since, pid, problem })
            })
            .collect()
    }

    /// Every instance that the engine has told of, and that is not known to be gone.
    pub fn known(&self) -> BTreeSet<InstanceId> {
        self.statuses.keys().cloned().collect()
    }

    /// The hooks that run, with what each of them runs.
    pub fn hooks(&self) -> Vec<(InstanceReport, Vec<String>)> {
        let under_way = self.past.apps.values().filter_map(|s| s.under_way.as_ref());
        let running = under_way.filter_map(|u| {
            let Some(Action::RunHook { hook, release, run, .. }) = u.step() else { return None };
            let status = self.statuses.get(&hook.instance())?;
            let (pid, phase, problem) = (Some(status.state.pid()?), InstancePhase::Hook, None);
            let (id, fleet, release) = (hook.instance(), hook.fleet(), release.clone());
            let report = InstanceReport { id, fleet, release, phase, since: status.since, pid, problem };
            Some((report, run.clone()))
        });
        running.collect()
    }

    /// What was wrong with its last answer, of an instance that is not healthy.
    fn problem(&self, id: &InstanceId) -> Option<String> {
        self.conditions.get(id).filter(|c| !c.healthy)?.last_problem.clone()
    }

    fn phase(
        &self,
        id: &InstanceId,
        state: &InstanceState,
        since: Timestamp,
    ) -> Option<(InstancePhase, Timestamp)> {
        let condition = self.conditions.get(id);
        match state {
            InstanceState::Ended { .. } => None,
            InstanceState::Stopping { .. } => Some((InstancePhase::Stopping, since)),
            InstanceState::Running { .. } => Some(match condition {
                Some(c) if c.healthy => (InstancePhase::Ready, c.since),
                Some(c) if c.was_healthy => (InstancePhase::Unhealthy, c.since),
                None if self.presumed_healthy.contains(id) => (InstancePhase::Ready, since),
                _ => (InstancePhase::Starting, since),
            }),
        }
    }

    /// What the core waits for, for an app.
    pub fn waiting(&self, app: &AppName) -> Vec<Waiting> {
        let mut waiting = Vec::new();
        if let Some(under_way) = self.past.apps.get(app).and_then(|s| s.under_way.as_ref())
            && let (Some(action), Some(since)) = (under_way.step(), under_way.intent)
        {
            let until = match action {
                kiln_model::Action::AwaitHealthy { within, .. }
                | kiln_model::Action::RunHook { within, .. }
                | kiln_model::Action::AwaitDrained { within, .. } => Some(since.after(*within)),
                kiln_model::Action::Observe { terms, .. } => Some(since.after(terms.within)),
                _ => None,
            };
            let figures = self.figures(app).map_or_else(String::new, |figures| format!("; so far {figures}"));
            waiting.push(Waiting { what: format!("{action}{figures}"), since, until });
        }
        if let Some(pause) = self.past.apps.get(app).and_then(|s| s.paused.as_ref()) {
            let what = format!(
                "`kiln resume`: requests wait at the edge, {} at most; paused by {}",
                pause.wait, pause.by
            );
            waiting.push(Waiting { what, since: pause.since, until: None });
        }
        let fleets = || self.past.apps.get(app).into_iter().flat_map(|s| s.fleets.values());
        waiting.extend(fleets().filter(|f| f.phase.is_in_table()).filter_map(|f| self.unwell(f)));
        let fleets = fleets();
        let held_back = fleets.filter_map(|f| self.back_off.get(&f.id)?.waiting(f, self.now()));
        waiting.extend(held_back);
        if let Some((since, trouble)) = &self.trouble {
            waiting.push(Waiting {
                what: format!("trying again after trouble: {trouble}"),
                since: *since,
                until: None,
            });
        }
        waiting
    }
}
