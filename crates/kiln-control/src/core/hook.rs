//! Running hooks: each once, whatever dies meanwhile.
//!
//! ```text
//!   intent, with the engine's memory ── the instance ── its end ── outcome ── forgotten
//! ```
//! The instance's id follows from the plan, and the engine remembers how it ended until the outcome is in the log: a
//! control plane that comes after one that died finds the instance running, or its end, and goes on from there. One
//! that the engine does not know was never made, as long as the engine has the memory it had; if it has another one
//! (the machine was started anew), nobody can tell whether the hook ran, and that is what is told.

use kiln_model::{
    Action, AppName, Event, Exit, HookId, HookMoment, InstanceId, InstanceOrder, InstanceState, Millis,
    ReleaseId, ReleaseService, Timestamp,
};
use kiln_store::boundary::between;

use super::Core;
use super::carry_out::Came;
use crate::world::Trouble;

impl Core {
    /// The instances of hooks that have begun and not ended, as far as is known.
    pub(super) fn hook_instances(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.past.apps.values().filter_map(|s| s.under_way.as_ref()?.hook()).map(|(hook, _)| hook.instance())
    }

    /// The memory the engine has, for the intent of a step that depends on it.
    pub(super) fn memory_for(&self, action: &Action) -> Result<Option<String>, Trouble> {
        match action {
            Action::RunHook { .. } => self.world.engine.memory().map(Some).map_err(|e| Trouble::of(&e)),
            _ => Ok(None),
        }
    }

    pub(super) fn run_hook(
        &mut self,
        hook: &HookId,
        (release, run): (&ReleaseId, &[String]),
        begun: Timestamp,
        within: Millis,
    ) -> Result<Came, Trouble> {
        if !self.knows_what_exists() {
            return Ok(Came::Waits(None));
        }
        let (id, until) = (hook.instance(), begun.after(within));
        if !self.statuses.contains_key(&id)
            && let Err(cause) = self.make_hook_instance(hook, release, run)?
        {
            return Ok(self.hook_ended(hook, Err(cause)));
        }
        if self.end_of(&id).is_none() && self.now() < until {
            return Ok(Came::Waits(Some(until)));
        }
        if self.end_of(&id).is_none() {
            // It may have ended long ago, and whoever would have said so stood still: what is done is not to count as
            // undone.
            let listed = self.world.engine.list().map_err(|e| Trouble::of(&e))?;
            self.meet(listed.into_iter().filter(|status| status.id == id).collect());
        }
        Ok(match self.end_of(&id) {
            Some(exit) if exit.is_success() => self.hook_ended(hook, Ok(())),
            Some(exit) => self.hook_ended(hook, Err(format!("it {exit}"))),
            // What is left of it is ended when the step is no more.
            None => self.hook_ended(hook, Err(format!("it had not ended after {within}"))),
        })
    }

    fn end_of(&self, id: &InstanceId) -> Option<Exit> {
        match &self.statuses.get(id)?.state {
            InstanceState::Ended { exit } => Some(exit.clone()),
            _ => None,
        }
    }

    /// Makes the only instance a hook is ever run in, or tells why there cannot be one.
    fn make_hook_instance(
        &mut self,
        hook: &HookId,
        release: &ReleaseId,
        run: &[String],
    ) -> Result<Result<(), String>, Trouble> {
        let memory = self.world.engine.memory().map_err(|e| Trouble::of(&e))?;
        let before = self.past.apps.get(&hook.app).and_then(|s| s.under_way.as_ref()?.memory.clone());
        if before.is_some_and(|before| before != memory) {
            let why = "whether it was run is not known: this machine was started anew meanwhile";
            return Ok(Err(why.to_owned()));
        }
        let Some(service) = self.releases.get(release).and_then(|r| r.services.get(&hook.service)) else {
            return Ok(Err(format!("there is no service {} in {release}", hook.service)));
        };
        let order = match self.hook_order(hook, (release, service), run) {
            Ok(order) => order,
            Err(trouble) => return Ok(Err(trouble.0)),
        };
        match between("create", || self.world.engine.create(&[order])) {
            Ok(made) => self.meet(made),
            Err(error) => {
                // It may exist: the engine is asked before anything else is decided.
                self.engine_is_new();
                return Err(Trouble::of(&error));
            }
        }
        Ok(Ok(()))
    }

    fn hook_order(
        &self,
        hook: &HookId,
        (release, service): (&ReleaseId, &ReleaseService),
        run: &[String],
    ) -> Result<InstanceOrder, Trouble> {
        let mut order = self.order(&hook.instance(), &hook.fleet(), (release, service))?;
        order.run.argv = run.to_vec();
        Ok(order)
    }

    /// One before the switch decides; one after it is told of.
    fn hook_ended(&mut self, hook: &HookId, how: Result<(), String>) -> Came {
        let instance = hook.instance();
        let problem = how.as_ref().err().cloned();
        let (service, moment) = (hook.service.clone(), hook.moment);
        self.tell(hook.generation, Event::HookEnded { instance: instance.clone(), service, moment, problem });
        match (how, hook.moment) {
            (Ok(()), _) => Came::Done(None),
            (Err(cause), HookMoment::Before) => Came::Failed(format!("{instance}: {cause}")),
            (Err(cause), HookMoment::After) => Came::Done(Some(format!("hook {instance} failed: {cause}"))),
        }
    }

    /// The instance of a hook whose step is over is nobody's: what is left of it is ended and forgotten.
    pub(super) fn let_go_of_hook(&mut self, app: &AppName, action: Option<&Action>) {
        let Some(Action::RunHook { hook, .. }) = action else { return };
        debug_assert!(hook.app == *app, "a plan is about one app");
        if let Some(status) = self.statuses.remove(&hook.instance()) {
            self.note_stray(status);
        }
    }
}
