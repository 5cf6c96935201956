//! From the observed world to the desired one: [`plan`] is pure and makes every choice there is to make.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::{
    Action, AppName, AppState, Fleet, FleetId, FleetPhase, Generation, Hook, HookId, HookMoment, Millis,
    OperationKind, Plan, Release, ReleaseId, ServiceName, Step, Timestamp,
};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Desired<'a> {
    /// This release is to serve; `kind` says whether it is new or an earlier one.
    Serve {
        /// The release.
        release: &'a Release,
        /// [`OperationKind::Deploy`] or [`OperationKind::Rollback`].
        kind: OperationKind,
    },
    /// What the plan of this generation has made is to go.
    Abandoned {
        /// The plan that failed.
        failed: Generation,
        /// How long what is in flight may go on, should it have been given requests.
        drain: Millis,
    },
    /// Warm fleets whose time is over at this moment are to go, and what an operation that was superseded has left
    /// is to be finished.
    Tidy {
        /// Now.
        at: Timestamp,
        /// How long what is in flight at a fleet that still drains may go on.
        drain: Millis,
        /// How long such a fleet stays warm then.
        keep_warm: Millis,
    },
    /// Nothing of the app is to be left, but its history.
    Absent {
        /// How long what is in flight may go on.
        drain: Millis,
    },
}

/// Why there is nothing to plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NothingToDo {
    /// The release serves already.
    AlreadyLive(ReleaseId),
    /// There is no fleet to be removed.
    NothingThere,
}

impl fmt::Display for NothingToDo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyLive(release) => write!(f, "{} serves already", release.short()),
            Self::NothingThere => write!(f, "there is no fleet to be removed"),
        }
    }
}

/// Plans the way from `state` to what is desired, as the plan numbered `generation`.
///
/// # Errors
/// [`NothingToDo`], with the reason, if the state is the desired one.
pub fn plan(
    app: &AppName,
    state: &AppState,
    desired: &Desired<'_>,
    generation: Generation,
) -> Result<Plan, NothingToDo> {
    let (kind, to, parent, steps) = match desired {
        Desired::Serve { release, kind } => {
            let steps = serve(app, state, (release, *kind), generation)?;
            (*kind, Some(release.id()), None, steps)
        }
        Desired::Abandoned { failed, drain } => {
            let to = state.traffic.live().cloned();
            (OperationKind::Abandon, to, Some(*failed), abandon(state, *failed, *drain))
        }
        Desired::Tidy { at, drain, keep_warm } => {
            let to = state.traffic.live().cloned();
            (OperationKind::Retire, to, None, tidy(state, *at, *drain, *keep_warm)?)
        }
        Desired::Absent { drain } => (OperationKind::Down, None, None, absent(state, *drain)?),
    };
    let from = state.traffic.live().cloned();
    let leaves = match desired {
        Desired::Serve { release, .. } => release.schema.map(|range| range.newest),
        _ => None,
    };
    Ok(Plan { generation, parent, app: app.clone(), kind, from, to, steps, leaves })
}

fn step(action: Action, why: impl Into<String>) -> Step {
    Step { action, why: why.into() }
}

fn serve(
    app: &AppName,
    state: &AppState,
    (release, kind): (&Release, OperationKind),
    generation: Generation,
) -> Result<Vec<Step>, NothingToDo> {
    let id = release.id();
    if state.traffic.live() == Some(&id) {
        return Err(NothingToDo::AlreadyLive(id));
    }
    let (mut steps, left) = leftover(state);
    let hooks = Hooked { app, release, id: &id, generation, runs: kind == OperationKind::Deploy };
    let up = warm(state, &id);
    let mut green = Vec::new();
    let (layers, needed_by) = (release.in_order(), release.needed_by());
    for (depth, layer) in layers.iter().enumerate() {
        steps.extend(layer.iter().flat_map(|service| hooks.of(service, HookMoment::Before)));
        let fleets: Vec<FleetId> = layer
            .iter()
            .map(|service| match up.get(service) {
                Some(fleet) => (*fleet).clone(),
                None => {
                    bring_up(app, (release, &id, service), generation, needed_by.get(service), &mut steps)
                }
            })
            .collect();
        if depth + 1 < layers.len() {
            let await_healthy =
                Action::AwaitHealthy { fleets: fleets.clone(), within: health_deadline(release) };
            steps.push(step(await_healthy, "those that need it come up when it is there"));
        }
        green.extend(fleets);
    }
    let within = health_deadline(release);
    steps.push(step(
        Action::AwaitHealthy { fleets: green.clone(), within },
        "only a fleet observed healthy may receive traffic",
    ));
    if let (OperationKind::Deploy, Some(live)) = (kind, state.traffic.live()) {
        steps.extend(in_steps(release, live, &green));
    }
    steps.push(step(
        Action::Switch { release: id.clone(), fleets: green.clone() },
        match state.traffic.live() {
            Some(live) => format!("{} serves until this moment", live.short()),
            None => "nothing serves yet".to_owned(),
        },
    ));
    steps.extend(layers.iter().flatten().flat_map(|service| hooks.of(service, HookMoment::After)));
    let done_with: BTreeSet<&FleetId> = green.iter().chain(&left).collect();
    steps.extend(replace(state, release, &done_with));
    Ok(steps)
}

/// What a plan that was superseded before it served has left: it goes first, to make room.
fn leftover(state: &AppState) -> (Vec<Step>, Vec<FleetId>) {
    let never_served = |f: &&Fleet| matches!(f.phase, FleetPhase::Planned | FleetPhase::Green);
    let left: Vec<FleetId> = state.fleets.values().filter(never_served).map(|f| f.id.clone()).collect();
    let why = "the plan that was to make it was superseded";
    let retire = (!left.is_empty()).then(|| step(Action::Retire { fleets: left.clone() }, why));
    (retire.into_iter().collect(), left)
}

/// The hooks of a release that takes over.
struct Hooked<'a> {
    app: &'a AppName,
    release: &'a Release,
    id: &'a ReleaseId,
    generation: Generation,
    /// Whether they are run: going back runs none.
    runs: bool,
}

impl Hooked<'_> {
    fn of(&self, service: &ServiceName, moment: HookMoment) -> Vec<Step> {
        let hooks = self.release.services.get(service).filter(|_| self.runs).map(|s| s.hooks.at(moment));
        let one = |(hook, number): (&Hook, u32)| {
            let (app, service, generation) = (self.app.clone(), service.clone(), self.generation);
            let id = HookId { app, service, generation, moment, number };
            let (release, run) = (self.id.clone(), hook.run.clone());
            let why = match moment {
                HookMoment::Before => {
                    "a fleet comes up over what this leaves; if it fails, nothing has changed hands"
                }
                HookMoment::After => "the release serves; if it fails, that is told and it serves on",
            };
            step(Action::RunHook { hook: id, release, run, within: hook.timeout }, why)
        };
        hooks.unwrap_or_default().iter().zip(1..).map(one).collect()
    }
}

/// The steps of a canary. What goes back goes back at once, and the first release has nobody to be held against.
fn in_steps(release: &Release, live: &ReleaseId, green: &[FleetId]) -> Vec<Step> {
    let Some(canary) = &release.canary else { return Vec::new() };
    let steps = canary.shares.iter().flat_map(|share| {
        let fleets = green.to_vec();
        let shift = Action::Shift { release: release.id(), fleets: fleets.clone(), share: *share };
        // Where chance sends nobody there is nothing to wait for.
        let within = if share.0 == 0 { canary.terms.hold } else { canary.terms.within };
        let terms = crate::Terms { within, ..canary.terms };
        let observe = Action::Observe { fleets, share: *share, terms };
        [
            step(shift, format!("{} serves the others", live.short())),
            step(observe, format!("it has to do as well as {} over the same time", live.short())),
        ]
    });
    steps.collect()
}

/// A step that makes a fleet for a service of `release`.
fn bring_up(
    app: &AppName,
    (release, id, service): (&Release, &ReleaseId, &ServiceName),
    generation: Generation,
    needed_by: Option<&Vec<&ServiceName>>,
    steps: &mut Vec<Step>,
) -> FleetId {
    let fleet = FleetId { app: app.clone(), service: service.clone(), generation };
    let size = release.services.get(service).map_or(0, |settings| settings.instances);
    let mut why = format!("no fleet of {} is up", id.short());
    if let Some(needed_by) = needed_by {
        let names: Vec<&str> = needed_by.iter().map(|s| s.as_str()).collect();
        why.push_str(&format!("; needed by {}", names.join(", ")));
    }
    steps.push(step(Action::Provision { fleet: fleet.clone(), release: id.clone(), size }, why));
    fleet
}

/// What becomes of the fleets that are not `done_with` once the switch is done: the one that served stays warm, those
/// from before it go.
fn replace(state: &AppState, release: &Release, done_with: &BTreeSet<&FleetId>) -> Vec<Step> {
    let others = |wanted: &dyn Fn(&FleetPhase) -> bool| -> Vec<FleetId> {
        let is_other = |f: &&Fleet| wanted(&f.phase) && !done_with.contains(&f.id);
        state.fleets.values().filter(is_other).map(|f| f.id.clone()).collect()
    };
    let in_table = others(&FleetPhase::is_in_table);
    let stays_warm = |phase: &FleetPhase| *phase == FleetPhase::Live && release.keep_warm.0 > 0;
    let old = others(&stays_warm);
    let older = others(&|phase| !stays_warm(phase));
    let mut steps = Vec::new();
    if !in_table.is_empty() {
        let within = release.drain;
        let why = "what is in flight there may go on for that long";
        steps.push(step(Action::AwaitDrained { fleets: in_table, within }, why));
    }
    if !old.is_empty() {
        let span = release.keep_warm;
        steps.push(step(Action::KeepWarm { fleets: old, span }, "going back is one switch for that long"));
    }
    if !older.is_empty() {
        steps.push(step(Action::Retire { fleets: older }, "only the release that served last is kept warm"));
    }
    steps
}

/// The fleets of `release` that are still up.
fn warm<'a>(state: &'a AppState, release: &ReleaseId) -> BTreeMap<&'a ServiceName, &'a FleetId> {
    let is_up = |f: &&Fleet| matches!(f.phase, FleetPhase::Warm { .. } | FleetPhase::Draining);
    let of_release = state.fleets.values().filter(|f| f.release == *release).filter(is_up);
    // The first of two is as good as the second.
    of_release.rev().map(|f| (&f.id.service, &f.id)).collect()
}

/// An instance that fails is made again, so a fleet gets the time of three starts of its slowest service.
fn health_deadline(release: &Release) -> Millis {
    let slowest = release.services.values().map(|s| s.start_timeout.0).max().unwrap_or(0);
    Millis(slowest.saturating_mul(3))
}

fn abandon(state: &AppState, failed: Generation, drain: Millis) -> Vec<Step> {
    let of_the_failed = |wanted: &[FleetPhase]| -> Vec<FleetId> {
        let made = state.fleets.values().filter(|f| f.id.generation == failed && wanted.contains(&f.phase));
        made.map(|f| f.id.clone()).collect()
    };
    let draining = of_the_failed(&[FleetPhase::Draining]);
    let never_served = of_the_failed(&[FleetPhase::Planned, FleetPhase::Green]);
    let fleets: Vec<FleetId> = never_served.into_iter().chain(draining.clone()).collect();
    let mut steps = Vec::new();
    if !draining.is_empty() {
        let why = "the switch to it was begun: it may have had requests";
        steps.push(step(Action::AwaitDrained { fleets: draining, within: drain }, why));
    }
    if !fleets.is_empty() {
        steps.push(step(Action::Retire { fleets }, format!("plan {failed} failed before it could serve")));
    }
    steps
}

fn tidy(state: &AppState, at: Timestamp, drain: Millis, keep_warm: Millis) -> Result<Vec<Step>, NothingToDo> {
    let those = |wanted: &dyn Fn(&FleetPhase) -> bool| -> Vec<FleetId> {
        state.fleets.values().filter(|f| wanted(&f.phase)).map(|f| f.id.clone()).collect()
    };
    let left = those(&|phase| *phase == FleetPhase::Draining);
    let never_served = those(&|phase| matches!(phase, FleetPhase::Planned | FleetPhase::Green));
    let over = those(&|phase| match phase {
        FleetPhase::Warm { until } => *until <= at,
        phase => *phase == FleetPhase::Retiring,
    });
    let mut steps = Vec::new();
    if !left.is_empty() {
        let why = "the operation that began to drain it was superseded";
        steps.push(step(Action::AwaitDrained { fleets: left.clone(), within: drain }, why));
        steps.push(step(Action::KeepWarm { fleets: left, span: keep_warm }, why));
    }
    if !never_served.is_empty() {
        let why = "the plan that was to make it was superseded";
        steps.push(step(Action::Retire { fleets: never_served }, why));
    }
    if !over.is_empty() {
        steps.push(step(Action::Retire { fleets: over }, "its time as a warm fleet is over"));
    }
    if steps.is_empty() { Err(NothingToDo::NothingThere) } else { Ok(steps) }
}

fn absent(state: &AppState, drain: Millis) -> Result<Vec<Step>, NothingToDo> {
    let all: Vec<FleetId> = state.fleets.keys().cloned().collect();
    if all.is_empty() && state.traffic.live().is_none() {
        return Err(NothingToDo::NothingThere);
    }
    let live: Vec<FleetId> =
        state.fleets.values().filter(|f| f.phase.is_in_table()).map(|f| f.id.clone()).collect();
    let mut steps = vec![step(Action::Unroute, "the app leaves this host")];
    if !live.is_empty() {
        let await_drained = Action::AwaitDrained { fleets: live, within: drain };
        steps.push(step(await_drained, "what is in flight there may go on for that long"));
    }
    if !all.is_empty() {
        steps.push(step(Action::Retire { fleets: all }, "the app leaves this host"));
    }
    Ok(steps)
}
