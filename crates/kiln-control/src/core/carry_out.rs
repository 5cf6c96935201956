//! Carrying plans out, one step at a time: write the intent, act, write the outcome.
//!
//! Nothing is chosen here. Every action can be repeated, so a step whose intent is in the log and whose outcome is
//! not is simply done again.

use kiln_model::{
    Action, AppName, AppState, Ending, Event, FleetId, FleetPhase, Generation, Healthy, Millis, NotHealthy,
    OperationKind, Plan, Record, ReleaseId, Step, Timestamp,
};
use kiln_store::boundary::between;

use super::{Core, News, Wake, Will};
use crate::world::Trouble;

/// How far a step has come.
pub(super) enum Came {
    /// It is done; what is worth noting of it.
    Done(Option<String>),
    /// It waits, at most until then.
    Waits(Option<Timestamp>),
    /// It cannot be done.
    Failed(String),
}

impl Core {
    /// Does the next step of what is under way for `app`. `None` if it is done and there may be more to do.
    pub(super) fn carry_out(&mut self, app: &AppName) -> Result<Option<Wake>, Trouble> {
        let Some(under_way) = self.past.apps.get(app).and_then(|s| s.under_way.clone()) else {
            return Ok(Some(Wake::WhenWoken));
        };
        let plan = &under_way.plan;
        let Some(action) = under_way.step() else {
            self.complete(app, plan)?;
            return Ok(None);
        };
        if let Some(why) = self.wills.get(&plan.generation).and_then(Will::given_up) {
            self.cancelled.entry(plan.generation).or_insert(why);
        }
        if let Some(why) = self.cancelled.get(&plan.generation).cloned()
            && !under_way.has_switched()
        {
            self.take_back(action)?;
            self.fail(app, plan, action, why)?;
            return Ok(None);
        }
        let begun = match under_way.intent {
            // Written down by a control plane whose clock was ahead of this one's.
            Some(at) if at > self.now() => self.started,
            Some(at) => at,
            None if !self.has_let_go(action)? => return Ok(Some(Wake::At(self.now().after(Millis(100))))),
            None => self.begin_step(app, plan.generation, under_way.done, action)?,
        };
        let will =
            self.wills.get(&plan.generation).filter(|_| matches!(action, Action::Switch { .. })).cloned();
        if will.as_ref().is_some_and(|will| !will.put_in_force()) {
            // Since it was looked at above.
            return Ok(None);
        }
        let came = self.act(app, action, begun);
        if let (Some(will), Err(_) | Ok(Came::Waits(_) | Came::Failed(_))) = (will, &came) {
            will.is_not_in_force();
        }
        match came? {
            Came::Done(note) => self.step_done(app, plan, under_way.done, begun, note).map(|()| None),
            Came::Waits(until) => Ok(Some(until.map_or(Wake::WhenWoken, Wake::At))),
            Came::Failed(cause) => self.fail(app, plan, action, cause).map(|()| None),
        }
    }

    /// Before a plan is given up at a switch of which nobody knows whether it is in force, or that is in force and could
    /// not be written down: the table is again what it was.
    pub(super) fn take_back(&mut self, action: &Action) -> Result<(), Trouble> {
        match action {
            Action::Switch { .. } | Action::Shift { .. } => {
                let table = self.compose(&self.past.apps);
                self.put_in_force(table)
            }
            _ => Ok(()),
        }
    }

    fn begin_step(
        &mut self,
        app: &AppName,
        generation: Generation,
        step: usize,
        action: &Action,
    ) -> Result<Timestamp, Trouble> {
        let memory = self.memory_for(action)?;
        let at = self.now();
        self.record(&Record::Intent { at, app: app.clone(), generation, step, memory })?;
        self.tell(generation, Event::StepBegun { step: action.to_string() });
        Ok(at)
    }

    fn step_done(
        &mut self,
        app: &AppName,
        plan: &Plan,
        step: usize,
        begun: Timestamp,
        note: Option<String>,
    ) -> Result<(), Trouble> {
        let (at, generation) = (self.now(), plan.generation);
        self.record(&Record::Outcome { at, app: app.clone(), generation, step, note: note.clone() })?;
        let action = &plan.steps[step].action;
        self.tell(generation, Event::StepDone { step: action.to_string(), millis: begun.until(at).0 });
        self.let_go_of_hook(app, Some(action));
        if let Action::Retire { fleets } = action {
            self.forget_fleets(fleets);
        }
        if let Action::Switch { release, .. } = action {
            self.tell(generation, Event::Switched { release: release.clone() });
        }
        if let (Action::RunHook { .. }, Some(listener)) = (action, self.listeners.get_mut(&generation)) {
            listener.warnings.extend(note);
        }
        self.tell_if_it_serves(plan, step + 1);
        Ok(())
    }

    /// Whoever asked has what was asked for once the release serves and its hooks are through; draining the old fleet
    /// is nobody's wait.
    pub(super) fn tell_if_it_serves(&mut self, plan: &Plan, done: usize) {
        let is_hook = |step: Option<&Step>| matches!(step, Some(Step { action: Action::RunHook { .. }, .. }));
        let switched = plan.steps[..done].iter().find_map(|s| match &s.action {
            Action::Switch { release, .. } => Some(release.clone()),
            _ => None,
        });
        if let (Some(release), false) = (switched, is_hook(plan.steps.get(done))) {
            self.tell_serves(plan.generation, release);
        }
    }

    pub(super) fn tell_serves(&mut self, generation: Generation, release: ReleaseId) {
        if let Some(listener) = self.listeners.get_mut(&generation) {
            let warnings = std::mem::take(&mut listener.warnings);
            self.tell_last(generation, News::Serves { release, unchanged: false, warnings });
        }
    }

    fn complete(&mut self, app: &AppName, plan: &Plan) -> Result<(), Trouble> {
        if plan.kind == OperationKind::Abandon {
            // It is told that nothing is left: what ran for a hook is nobody's, and goes as strays do.
            self.end_strays()?;
        }
        self.end(app, plan.generation, Ending::Done)?;
        self.tell_last(plan.generation, News::Ended);
        if let (OperationKind::Abandon, Some(parent)) = (plan.kind, plan.parent)
            && let Some((step, cause)) = self.listeners.get(&parent).and_then(|l| l.failed.clone())
        {
            self.tell_last(parent, News::Failed { step, cause });
        }
        self.load_releases()
    }

    fn fail(&mut self, app: &AppName, plan: &Plan, action: &Action, cause: String) -> Result<(), Trouble> {
        let step = action.to_string();
        let ending = Ending::Failed { step: step.clone(), cause: cause.clone() };
        self.end(app, plan.generation, ending)?;
        self.let_go_of_hook(app, Some(action));
        if let Some(listener) = self.listeners.get_mut(&plan.generation) {
            listener.failed = Some((step, cause));
        }
        Ok(())
    }

    fn act(&mut self, app: &AppName, action: &Action, begun: Timestamp) -> Result<Came, Trouble> {
        match action {
            Action::Provision { fleet, .. } => self.provision(app, fleet),
            Action::RunHook { hook, release, run, within } => {
                self.run_hook(hook, (release, run), begun, *within)
            }
            Action::AwaitHealthy { fleets, within } => {
                Ok(self.await_healthy(app, fleets, begun.max(self.started).after(*within)))
            }
            Action::Shift { release, fleets, share } => self.switch(app, fleets, begun, |state, green| {
                kiln_model::shifted(state, release, green, *share)
            }),
            Action::Observe { fleets, terms, .. } => Ok(self.observe_canary(app, fleets, terms, begun)),
            Action::Switch { release, fleets } => {
                self.switch(app, fleets, begun, |state, green| kiln_model::switched(state, release, green))
            }
            Action::AwaitDrained { fleets, within } => self.await_drained(fleets, begun.after(*within)),
            Action::KeepWarm { .. } => Ok(Came::Done(None)),
            Action::Unroute => self.unroute(app),
            Action::Retire { fleets } => self.retire(fleets),
        }
    }

    pub(super) fn state(&self, app: &AppName) -> &AppState {
        &self.past.apps[app]
    }

    fn provision(&mut self, app: &AppName, fleet: &FleetId) -> Result<Came, Trouble> {
        if let Err(trouble) = self.is_at_hand(fleet) {
            return Ok(Came::Failed(trouble.0));
        }
        self.keep_fleet_whole(fleet)?;
        let Some(fleet) = self.state(app).fleets.get(fleet) else { return Ok(Came::Done(None)) };
        if let Some(cause) = self.budget_spent(fleet) {
            return Ok(Came::Failed(cause));
        }
        let made = fleet.instances().all(|(_, id)| self.statuses.contains_key(&id));
        // Members that wait for their turn after losses wake the core themselves.
        Ok(if made { Came::Done(None) } else { Came::Waits(None) })
    }

    pub(super) fn observe_fleets(
        &self,
        app: &AppName,
        fleets: &[FleetId],
    ) -> Result<Vec<Healthy<FleetId>>, NotHealthy> {
        let (state, view) = (self.state(app), self.health_view());
        let existing = fleets.iter().filter_map(|id| state.fleets.get(id));
        existing.map(|fleet| Healthy::observe(fleet, &view)).collect()
    }

    fn await_healthy(&mut self, app: &AppName, fleets: &[FleetId], until: Timestamp) -> Came {
        let not = match self.observe_fleets(app, fleets) {
            Ok(_) => return Came::Done(None),
            Err(not) => not,
        };
        let state = self.state(app);
        let spent = fleets.iter().filter_map(|id| state.fleets.get(id)).find_map(|f| self.budget_spent(f));
        if let Some(cause) = spent {
            return Came::Failed(cause);
        }
        if self.now() < until {
            return Came::Waits(Some(until));
        }
        let fleet = &state.fleets[&not.fleet];
        let problem = self.last_problem(fleet).map_or_else(String::new, |p| format!("; last: {p}"));
        Came::Failed(format!("{not} after all the time they had{problem}"))
    }

    /// How long a switch may wait for a fleet that was healthy a moment ago to be so again.
    const SWITCH_PATIENCE: Millis = Millis(10_000);

    fn switch(
        &mut self,
        app: &AppName,
        fleets: &[FleetId],
        begun: Timestamp,
        next: impl FnOnce(&AppState, &[Healthy<FleetId>]) -> AppState,
    ) -> Result<Came, Trouble> {
        let green = match self.observe_fleets(app, fleets) {
            Ok(green) => green,
            Err(not) => {
                let until = begun.max(self.started).after(Self::SWITCH_PATIENCE);
                let waits = self.now() < until;
                return Ok(if waits { Came::Waits(Some(until)) } else { Came::Failed(not.to_string()) });
            }
        };
        let next = next(self.state(app), &green);
        let Some(table) = self.table_with(app, next) else { return Ok(Came::Done(None)) };
        // Until a table that was begun with is in force nobody else's is: it is not begun with in vain.
        if let Some(lack) = self.world.edge.lacks(&table) {
            return Ok(Came::Failed(lack));
        }
        self.put_in_force(table)?;
        Ok(Came::Done(None))
    }

    /// How long it is waited for another app's switch before it is looked again.
    const LOOK: Millis = Millis(50);

    fn await_drained(&mut self, fleets: &[FleetId], until: Timestamp) -> Result<Came, Trouble> {
        if self.a_switch_is_due() {
            return Ok(Came::Waits(Some(self.now().after(Self::LOOK))));
        }
        let counts = self.world.edge.counts()?;
        let in_flight: u64 =
            counts.fleets.iter().filter(|c| fleets.contains(&c.fleet)).map(|c| c.in_flight).sum();
        // Counts of an older table say nothing: the fleet may still be a target there.
        let acknowledged = self.published.as_ref().is_some_and(|p| counts.version >= p.version);
        if acknowledged && in_flight == 0 {
            return Ok(Came::Done(None));
        }
        if self.now() >= until {
            return self.cut(fleets, in_flight);
        }
        self.world.edge.wake_when_drained(fleets);
        Ok(Came::Waits(Some(until)))
    }

    /// Has the edge let go of fleets whose time is up, and tells what that cut.
    fn cut(&mut self, fleets: &[FleetId], in_flight: u64) -> Result<Came, Trouble> {
        let until = self.now();
        let Some(app) = fleets.first().map(|id| id.app.clone()) else { return Ok(Came::Done(None)) };
        let mut next = self.state(&app).clone();
        let all = next.fleets.values_mut();
        all.filter(|f| fleets.contains(&f.id)).for_each(|f| f.phase = FleetPhase::Warm { until });
        self.put_in_force_with(&app, next)?;
        let what = self.what_was_cut(fleets).map_or_else(
            || format!("{in_flight} in flight at the deadline, none of them cut"),
            |cut| format!("{cut} at the deadline"),
        );
        Ok(Came::Done(Some(what)))
    }

    fn unroute(&mut self, app: &AppName) -> Result<Came, Trouble> {
        let next = AppState { traffic: kiln_model::Traffic::Dark, ..self.state(app).clone() };
        self.put_in_force_with(app, next)?;
        Ok(Came::Done(None))
    }

    fn retire(&mut self, fleets: &[FleetId]) -> Result<Came, Trouble> {
        if !self.knows_what_exists() {
            return Ok(Came::Waits(None));
        }
        if self.a_switch_is_due() {
            return Ok(Came::Waits(Some(self.now().after(Self::LOOK))));
        }
        // The edge must have let go of them first; members that were replaced go with the others.
        self.publish()?;
        self.end_strays()?;
        let of_fleets = |(fleet, _): &(FleetId, _)| fleets.contains(fleet);
        let ids: Vec<_> = self.members().filter(of_fleets).map(|(_, id)| id).collect();
        let running: Vec<_> = ids
            .iter()
            .filter(|id| self.statuses.get(id).is_some_and(|s| s.state.pid().is_some()))
            .cloned()
            .collect();
        if !running.is_empty() {
            if !running.iter().all(|id| self.asked_to_end.contains(id)) {
                between("stop", || self.world.engine.stop(&running)).map_err(|e| Trouble::of(&e))?;
                self.asked_to_end.extend(running);
            }
            return Ok(Came::Waits(None));
        }
        between("forget", || self.world.engine.forget(&ids)).map_err(|e| Trouble::of(&e))?;
        Ok(Came::Done(self.what_was_cut(fleets)))
    }

    /// What was known of fleets that are gone. Not before the log says so: until then a late report would find
    /// nothing that it is older than.
    fn forget_fleets(&mut self, fleets: &[FleetId]) {
        let members = self.member_ids();
        self.statuses.retain(|id, _| members.contains(id));
        self.asked_to_end.retain(|id| members.contains(id));
        self.back_off.retain(|f, _| !fleets.contains(f));
    }
}
