//! What a host is to do for one app: a fold over the operation log.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Action, Ending, Fleet, FleetId, FleetPhase, Generation, History, HookId, HookMoment, Millis, Occasion,
    OperationKind, Plan, Record, ReleaseId, Share, Timestamp, Touch, Traffic,
};

/// An operation that has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderWay {
    /// Its plan.
    pub plan: Plan,
    /// Who asked for it.
    pub by: String,
    /// How many of the plan's steps are done.
    pub done: usize,
    /// When the step after these was begun, if it was.
    pub intent: Option<Timestamp>,
    /// Which memory the engine had then, where that matters.
    pub memory: Option<String>,
}

impl UnderWay {
    /// The step to be done, or being done.
    pub fn step(&self) -> Option<&Action> {
        self.plan.steps.get(self.done).map(|s| &s.action)
    }

    /// The hook that has been begun and has not ended, as far as is known, with the release it is one of.
    pub fn hook(&self) -> Option<(&HookId, &ReleaseId)> {
        match self.step() {
            Some(Action::RunHook { hook, release, .. }) if self.intent.is_some() => Some((hook, release)),
            _ => None,
        }
    }

    /// Whether somebody waits for it: what cleans up is nobody's.
    pub fn is_for_people(&self) -> bool {
        self.plan.kind.leads_to_a_release() || self.plan.kind == OperationKind::Down
    }

    /// Whether new requests already go to the release the plan leads to.
    pub fn has_switched(&self) -> bool {
        self.plan.steps[..self.done].iter().any(|s| matches!(s.action, Action::Switch { .. }))
    }
}

/// The edge holds requests back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Who asked for it.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// How long a request waits before it is refused.
    pub wait: Millis,
}

/// What a host is to do for one app.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppState {
    /// Where new requests go.
    pub traffic: Traffic,
    /// All fleets that exist or are to.
    pub fleets: BTreeMap<FleetId, Fleet>,
    /// What is being done, if anything. Two at once cannot be written down.
    pub under_way: Option<UnderWay>,
    /// The release that served before the live one.
    pub previous: Option<ReleaseId>,
    /// All releases that can be gone back to, oldest first.
    pub kept: History,
    /// Why the last deploy or rollback failed, if none has succeeded since.
    pub last_failure: Option<String>,
    /// The version of its schema that the data has, as the last release that cared has left it.
    pub schema: Option<u32>,
    /// Releases somebody wants to be kept.
    pub pinned: BTreeSet<ReleaseId>,
    /// Whether requests wait at the edge.
    pub paused: Option<Pause>,
    /// A plan that failed and has not been cleaned up after yet.
    pub to_abandon: Option<Generation>,
}

impl AppState {
    /// What it is as soon as what is under way has been superseded.
    pub fn when_superseded(&self) -> Self {
        let mut state = Self { under_way: None, ..self.clone() };
        state.shift_back();
        state
    }

    /// Whether anything has come of the app: something serves, is up, is under way, or can be gone back to.
    pub fn is_here(&self) -> bool {
        self.traffic.live().is_some()
            || self.under_way.is_some()
            || !self.fleets.is_empty()
            || !self.kept.is_empty()
    }

    /// Takes account of one entry of the log. Entries of other apps must not be given.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Begun { by, plan, .. } => self.begin(plan, &by.name),
            Record::Intent { at, generation, step, memory, .. } => {
                self.step_begun(*at, *generation, *step, memory.as_ref());
            }
            Record::Outcome { at, generation, step, .. } => self.step_done(*at, *generation, *step),
            Record::Ended { generation, ending, .. } => self.end(*generation, ending),
            Record::Collected { releases, .. } => self.kept.forget(releases),
            Record::Pinned { release, .. } => drop(self.pinned.insert(release.clone())),
            Record::Unpinned { release, .. } => drop(self.pinned.remove(release)),
            Record::SchemaSet { schema, .. } => self.schema = Some(*schema),
            Record::Imported { at, by, release, .. } => {
                self.kept.imported(release, Occasion { at: *at, by: by.name.clone() });
            }
            Record::SecretSet { .. }
            | Record::SecretRemoved { .. }
            | Record::Committed { .. }
            | Record::Repaired { .. } => {}
            Record::Paused { at, by, wait, .. } => {
                self.paused = Some(Pause { by: by.name.clone(), since: *at, wait: *wait });
            }
            Record::Resumed { .. } => self.paused = None,
            Record::Replaced { at, fleet, lost, new } => {
                if let Some(fleet) = self.fleets.get_mut(fleet) {
                    lost.iter().for_each(|loss| fleet.lose(*at, loss));
                    fleet.gain(new);
                }
            }
            Record::Touched { fleet, serial, by, command, .. } => {
                if let Some(fleet) = self.fleets.get_mut(fleet).filter(|f| f.members.contains(serial)) {
                    let touch = Touch { by: by.name.clone(), command: command.clone() };
                    fleet.touched.entry(*serial).or_insert(touch);
                }
            }
            Record::Reinforced { fleet, touched, new, .. } => {
                if let Some(fleet) = self.fleets.get_mut(fleet) {
                    fleet.reinforce(touched, new);
                }
            }
            Record::Renumbered { fleet, gone, new, .. } => {
                if let Some(fleet) = self.fleets.get_mut(fleet) {
                    gone.iter().for_each(|serial| fleet.give_up(*serial));
                    fleet.gain(new);
                }
            }
        }
    }

    fn current(&mut self, generation: Generation) -> Option<&mut UnderWay> {
        self.under_way.as_mut().filter(|u| u.plan.generation == generation)
    }

    fn begin(&mut self, plan: &Plan, by: &str) {
        if plan.parent.is_some() && plan.parent == self.to_abandon {
            self.to_abandon = None;
        }
        self.under_way =
            Some(UnderWay { plan: plan.clone(), by: by.to_owned(), done: 0, intent: None, memory: None });
        // A fleet exists from the moment its plan does: a crash before its first instance leaves no question open.
        for step in &plan.steps {
            if let Action::Provision { fleet, release, size } = &step.action {
                self.provision(fleet, release, *size);
            }
        }
    }

    fn step_begun(&mut self, at: Timestamp, generation: Generation, step: usize, memory: Option<&String>) {
        let Some(under_way) = self.current(generation) else { return };
        under_way.intent = Some(at);
        under_way.memory = memory.cloned();
        match under_way.plan.steps.get(step).map(|s| s.action.clone()) {
            Some(Action::Provision { fleet, .. }) => self.set_phase(&[fleet], &FleetPhase::Green),
            Some(Action::Retire { fleets }) => self.set_phase(&fleets, &FleetPhase::Retiring),
            Some(Action::Shift { fleets, .. }) => self.set_phase(&fleets, &FleetPhase::Canary),
            Some(Action::Switch { fleets, .. }) if !self.traffic.is_shifting() => {
                self.set_phase(&fleets, &FleetPhase::Draining);
            }
            _ => {}
        }
    }

    fn provision(&mut self, id: &FleetId, release: &ReleaseId, size: u32) {
        self.fleets.entry(id.clone()).or_insert_with(|| Fleet::planned(id, release, size));
    }

    fn set_phase(&mut self, fleets: &[FleetId], phase: &FleetPhase) {
        for id in fleets {
            if let Some(fleet) = self.fleets.get_mut(id) {
                fleet.phase = phase.clone();
            }
        }
    }

    fn step_done(&mut self, at: Timestamp, generation: Generation, step: usize) {
        let Some(under_way) = self.current(generation) else { return };
        let (by, leaves) = (under_way.by.clone(), under_way.plan.leaves);
        let Some(action) = under_way.plan.steps.get(step).map(|s| s.action.clone()) else { return };
        under_way.done = step + 1;
        under_way.intent = None;
        match action {
            // It may have been what brings the data to the release's schema: not known, so it counts.
            Action::RunHook { hook, .. } => {
                if hook.moment == HookMoment::Before {
                    self.schema = leaves.or(self.schema);
                }
            }
            Action::Provision { .. } | Action::AwaitHealthy { .. } | Action::Observe { .. } => {}
            Action::Shift { release, fleets, share } => self.shifted(&release, &fleets, share),
            Action::Switch { release, fleets } => {
                self.switched(at, &release, &fleets, by);
                self.schema = leaves.or(self.schema);
            }
            Action::AwaitDrained { fleets, .. } => self.set_phase(&fleets, &FleetPhase::Warm { until: at }),
            Action::KeepWarm { fleets, span } => {
                self.set_phase(&fleets, &FleetPhase::Warm { until: at.after(span) });
            }
            Action::Unroute => {
                self.paused = None;
                self.previous = self.traffic.live().cloned().or(self.previous.take());
                self.traffic = Traffic::Dark;
                for fleet in self.fleets.values_mut() {
                    if fleet.phase == FleetPhase::Live {
                        fleet.phase = FleetPhase::Draining;
                    }
                }
            }
            Action::Retire { fleets } => self.fleets.retain(|id, _| !fleets.contains(id)),
        }
    }

    fn shifted(&mut self, release: &ReleaseId, fleets: &[FleetId], share: Share) {
        for fleet in self.fleets.values_mut().filter(|f| fleets.contains(&f.id)) {
            fleet.phase = FleetPhase::Canary;
            fleet.proven.clone_from(&fleet.members);
        }
        if let Some(from) = self.traffic.live().cloned() {
            self.traffic = Traffic::Shifting { from, to: release.clone(), share };
        }
    }

    /// The canary gets no more users; those it has are served to the end.
    fn shift_back(&mut self) {
        if let Some(live) = self.traffic.live().cloned() {
            self.traffic = Traffic::Settled { live };
        }
        for fleet in self.fleets.values_mut().filter(|f| f.phase == FleetPhase::Canary) {
            fleet.phase = FleetPhase::Draining;
        }
    }

    fn switched(&mut self, at: Timestamp, release: &ReleaseId, fleets: &[FleetId], by: String) {
        for fleet in self.fleets.values_mut() {
            if fleets.contains(&fleet.id) {
                fleet.phase = FleetPhase::Live;
                fleet.proven.clone_from(&fleet.members);
            } else if fleet.phase == FleetPhase::Live {
                fleet.phase = FleetPhase::Draining;
            }
        }
        match self.traffic.live() {
            Some(live) if live == release => {}
            Some(live) => self.previous = Some(live.clone()),
            // After `down` the release that served last is not the one before: it is the same one again.
            None if self.previous.as_ref() == Some(release) => {
                let tried = self.kept.iter().rev().filter(|s| s.first.is_some());
                self.previous = tried.map(|s| &s.release).find(|r| *r != release).cloned();
            }
            None => {}
        }
        self.traffic = Traffic::Settled { live: release.clone() };
        self.last_failure = None;
        self.kept.serves(release, Occasion { at, by });
    }

    fn end(&mut self, generation: Generation, ending: &Ending) {
        let Some(under_way) = self.under_way.take_if(|u| u.plan.generation == generation) else { return };
        match ending {
            Ending::Done => {}
            Ending::Superseded { .. } => self.shift_back(),
            Ending::Failed { cause, .. } => {
                self.shift_back();
                if under_way.plan.kind.leads_to_a_release() {
                    self.last_failure = Some(cause.clone());
                }
                self.to_abandon = Some(generation);
            }
        }
    }
}
