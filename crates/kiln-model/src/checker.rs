//! An independent look at a plan before anything is done: [`check`] shares no code with the planner, and runs on
//! every plan, in production and in every test.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Action, AppState, FleetId, FleetPhase, HookId, HookMoment, OperationKind, Plan, ReleaseId, Share,
};

/// Something wrong with a plan. A plan with findings is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step}: {problem}")]
pub struct Finding {
    /// The step's number, from 1; 0 for the plan as a whole.
    pub step: usize,
    /// What is wrong.
    pub problem: String,
}

/// What the checker believes of a fleet at a point of the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Belief {
    Up,
    Healthy,
    Canary,
    Serving,
    Draining,
    Idle,
    Gone,
}

/// Follows `plan` from `state` step by step and reports every promise it would break.
pub fn check(plan: &Plan, state: &AppState) -> Vec<Finding> {
    let live = state.traffic.live().cloned();
    let mut walk = Walk {
        plan,
        fleets: beliefs(state),
        serving: live,
        hooks: BTreeSet::new(),
        share: Share(0),
        findings: Vec::new(),
        step: 0,
    };
    if let Some(u) = &state.under_way {
        walk.find(format!("operation {} of this app is still under way", u.plan.generation));
    }
    let was_served = walk.serving.is_some();
    for (index, step) in plan.steps.iter().enumerate() {
        walk.step = index + 1;
        walk.follow(&step.action);
    }
    walk.step = 0;
    if was_served && walk.serving.is_none() && plan.kind != OperationKind::Down {
        walk.find("the app would be left without a fleet that serves".into());
    }
    if !walk.in_state(Belief::Canary).is_empty() {
        walk.find("a canary would never end".into());
    }
    if walk.serving != plan.to {
        walk.find("the release it leads to would not serve".into());
    }
    walk.findings
}

fn beliefs(state: &AppState) -> BTreeMap<FleetId, Belief> {
    let belief = |phase: &FleetPhase| match phase {
        FleetPhase::Green | FleetPhase::Warm { .. } => Belief::Up,
        FleetPhase::Canary => Belief::Canary,
        FleetPhase::Live => Belief::Serving,
        FleetPhase::Draining => Belief::Draining,
        // What was never begun can only be removed.
        FleetPhase::Planned | FleetPhase::Retiring => Belief::Idle,
    };
    state.fleets.iter().map(|(id, f)| (id.clone(), belief(&f.phase))).collect()
}

struct Walk<'a> {
    plan: &'a Plan,
    fleets: BTreeMap<FleetId, Belief>,
    serving: Option<ReleaseId>,
    hooks: BTreeSet<&'a HookId>,
    /// Of the users, at the canary.
    share: Share,
    findings: Vec<Finding>,
    step: usize,
}

impl<'a> Walk<'a> {
    fn find(&mut self, problem: String) {
        self.findings.push(Finding { step: self.step, problem });
    }

    /// Moves fleets on to `next`, each of which must be one of `from` now.
    fn advance(&mut self, fleets: &[FleetId], from: &[Belief], next: Belief, what: &str) {
        for id in fleets {
            match self.fleets.get(id).copied() {
                Some(now) if from.contains(&now) => {
                    self.fleets.insert(id.clone(), next);
                }
                Some(now) => self.find(format!("{id} would be {what} while it is {now:?}")),
                None => self.find(format!("{id} would be {what}, and does not exist")),
            }
        }
    }

    fn follow(&mut self, action: &'a Action) {
        match action {
            Action::Provision { fleet, size, .. } => {
                if *size == 0 {
                    self.find(format!("{fleet} would have no instance"));
                }
                if self.fleets.insert(fleet.clone(), Belief::Up).is_some_and(|b| b != Belief::Gone) {
                    self.find(format!("{fleet} exists already"));
                }
            }
            Action::RunHook { hook, release, run, .. } => self.run_hook(hook, release, run.is_empty()),
            Action::AwaitHealthy { fleets, .. } => {
                let up = [Belief::Up, Belief::Healthy, Belief::Draining];
                self.advance(fleets, &up, Belief::Healthy, "awaited");
            }
            Action::Shift { fleets, share, .. } => self.shift(fleets, *share),
            Action::Observe { fleets, share, terms } => {
                if *share != self.share {
                    self.find(format!("{share} would be observed while the canary has {}", self.share));
                }
                if terms.within < terms.hold {
                    self.find("it would have less time than it takes".into());
                }
                self.advance(fleets, &[Belief::Canary], Belief::Canary, "observed");
            }
            Action::Switch { release, fleets } => {
                self.switch(fleets);
                self.serving = Some(release.clone());
            }
            Action::AwaitDrained { fleets, .. } => {
                self.advance(fleets, &[Belief::Draining], Belief::Idle, "drained");
            }
            Action::KeepWarm { fleets, .. } => {
                self.advance(fleets, &[Belief::Idle], Belief::Idle, "kept warm")
            }
            Action::Unroute => {
                self.serving = None;
                let serving: Vec<FleetId> = self.in_state(Belief::Serving);
                self.advance(&serving, &[Belief::Serving], Belief::Draining, "unrouted");
            }
            Action::Retire { fleets } => {
                self.advance(fleets, &[Belief::Up, Belief::Healthy, Belief::Idle], Belief::Gone, "removed");
            }
        }
    }

    /// Hooks belong to the release a deploy leads to. What migrates comes before what is made to run on it, and both
    /// before the switch; what comes after must not come before.
    fn run_hook(&mut self, hook: &'a HookId, release: &ReleaseId, is_empty: bool) {
        let Plan { kind, app, generation, to, .. } = self.plan;
        let is_of_plan = *kind == OperationKind::Deploy && hook.app == *app && hook.generation == *generation;
        if !is_of_plan || to.as_ref() != Some(release) {
            self.find(format!("{} is no hook of this plan", hook.instance()));
        }
        if is_empty {
            self.find(format!("{} would run nothing", hook.instance()));
        }
        if !self.hooks.insert(hook) {
            self.find(format!("{} would be run twice", hook.instance()));
        }
        let serves = self.serving.as_ref() == Some(release);
        match hook.moment {
            HookMoment::Before if serves => self.find(format!("{} would come too late", hook.instance())),
            HookMoment::Before if self.fleets.contains_key(&hook.fleet()) => {
                self.find(format!("{} would come up before {} has run", hook.fleet(), hook.instance()));
            }
            HookMoment::After if !serves => self.find(format!("{} would come too early", hook.instance())),
            HookMoment::Before | HookMoment::After => {}
        }
    }

    fn in_state(&self, belief: Belief) -> Vec<FleetId> {
        self.fleets.iter().filter(|(_, b)| **b == belief).map(|(id, _)| id.clone()).collect()
    }

    fn shift(&mut self, fleets: &[FleetId], share: Share) {
        if self.serving.is_none() {
            self.find("users would be shifted away from nothing".into());
        }
        if share >= Share::WHOLE {
            self.find(format!("{share} of the users are no canary"));
        }
        let goes_on = self.in_state(Belief::Canary);
        if share < self.share || (share == self.share && !goes_on.is_empty()) {
            self.find(format!("users would be taken from the canary: {share} after {}", self.share));
        }
        if goes_on.iter().any(|id| !fleets.contains(id)) {
            self.find("there would be two canaries".into());
        }
        self.share = share;
        self.one_of_each(fleets);
        self.advance(fleets, &[Belief::Healthy, Belief::Canary], Belief::Canary, "given users");
    }

    fn one_of_each(&mut self, fleets: &[FleetId]) {
        if fleets.is_empty() {
            self.find("traffic would be switched to nothing".into());
        }
        let services: BTreeSet<_> = fleets.iter().map(|f| &f.service).collect();
        if services.len() != fleets.len() {
            self.find("traffic of one service would be switched to two fleets".into());
        }
    }

    fn switch(&mut self, fleets: &[FleetId]) {
        self.one_of_each(fleets);
        let serving: Vec<FleetId> = self.in_state(Belief::Serving);
        self.advance(&serving, &[Belief::Serving], Belief::Draining, "replaced");
        self.advance(fleets, &[Belief::Healthy, Belief::Canary], Belief::Serving, "switched to");
    }
}
