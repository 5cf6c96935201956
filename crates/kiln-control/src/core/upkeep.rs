//! Keeping fleets whole: what is lost is replaced, never repaired.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::odds::loss_budget;
use kiln_model::{
    Event, ExecOrder, Fleet, FleetId, FleetPhase, ImageHandle, InstanceId, InstanceOrder, InstanceState,
    Loss, Millis, Probe, Record, ReleaseId, ReleaseService, Timestamp, Waiting,
};
use kiln_store::boundary::between;

use super::{Core, earlier};
use crate::world::{Trouble, Watch};

/// How long a fleet that keeps losing members waits before it gets the next ones.
///
/// What counts is how often one was lost that had been made in the place of another that was lost: of a thousand
/// members more are lost than of three, and that says nothing of the program.
#[derive(Debug, Clone, Default)]
pub(super) struct BackOff {
    /// Of members that were made in the place of others, by serial number.
    chains: BTreeMap<u32, Chain>,
    last: Option<Timestamp>,
    /// When members were lost lately.
    lately: Vec<Timestamp>,
    /// No member is made before this moment.
    pub(super) until: Option<Timestamp>,
}

/// Those that one member was made in the place of, one after another.
#[derive(Debug, Clone, Copy, Default)]
struct Chain {
    /// Lost since the fleet was last whole.
    losses: u32,
    /// Lost one soon after the other, whether it was whole in between or not: a program that is well for a moment
    /// each time and then dies would otherwise be started again and again without a pause.
    in_a_row: u32,
}

impl BackOff {
    const FIRST: u64 = 100;
    const LONGEST: u64 = 30_000;

    /// Losses with less time than this between them are in a row.
    const ROW: Millis = Millis(60_000);
    /// So many in a row are made good at once if the fleet was whole in between.
    const MOST_IN_A_ROW: u32 = 30;
    /// After so many in a row whoever looks is told.
    const WORTH_TELLING: u32 = 3;

    /// A member is lost, and the one with the serial number `successor`, if any, takes its place. The first loss is made
    /// good at once: most losses are the only one.
    fn lose(&mut self, serial: u32, successor: Option<u32>, now: Timestamp) {
        let soon = self.last.is_some_and(|last| last.after(Self::ROW) > now);
        let before = self.chains.remove(&serial).unwrap_or_default();
        let chain = Chain { losses: before.losses + 1, in_a_row: if soon { before.in_a_row + 1 } else { 1 } };
        let too_many = (chain.losses - 1).max(chain.in_a_row.saturating_sub(Self::MOST_IN_A_ROW));
        if let Some(n) = too_many.checked_sub(1) {
            let wait = Millis((Self::FIRST << n.min(10)).min(Self::LONGEST));
            self.until = self.until.max(Some(now.after(wait)));
        }
        self.chains.extend(successor.map(|successor| (successor, chain)));
        self.last = Some(now);
        self.lately.retain(|at| at.after(Self::ROW) > now);
        self.lately.push(now);
    }

    /// Whole again, and well.
    fn settle(&mut self) {
        self.chains.values_mut().for_each(|chain| chain.losses = 0);
        self.until = None;
    }

    /// Why members are not made, if they are not, for people.
    pub(super) fn waiting(&self, fleet: &Fleet, now: Timestamp) -> Option<Waiting> {
        let cause = fleet.last_loss.as_deref().unwrap_or("it was lost");
        let Some(until) = self.until.filter(|until| *until > now) else {
            return self.keeps_losing(fleet, now, cause);
        };
        let what = format!(
            "the next attempt at what {} lacks, after {} losses; the last one: {cause}",
            fleet.id, fleet.losses
        );
        Some(Waiting { what, since: self.last?, until: Some(until) })
    }

    /// A fleet that is made whole again and again looks well at any moment.
    fn keeps_losing(&self, fleet: &Fleet, now: Timestamp, cause: &str) -> Option<Waiting> {
        let lately = || self.lately.iter().filter(|at| at.after(Self::ROW) > now);
        let (count, since) = (lately().count(), *lately().next()?);
        let what = format!(
            "{} to stay up: {count} of its instances were lost in the last minute; the last one: {cause}",
            fleet.id
        );
        let worth = self.chains.values().any(|chain| chain.in_a_row >= Self::WORTH_TELLING);
        worth.then_some(Waiting { what, since, until: None })
    }
}

impl Core {
    /// Replaces what is lost and makes what is missing, in every fleet, whatever becomes of the others.
    pub(super) fn keep_whole(&mut self) -> Result<(), Trouble> {
        let fleets: Vec<FleetId> = self.past.apps.values().flat_map(|s| s.fleets.keys()).cloned().collect();
        let mut all = Ok(());
        for fleet in &fleets {
            let kept = self.keep_fleet_whole(fleet);
            all = all.and(kept);
        }
        all
    }

    /// The same for one fleet.
    pub(super) fn keep_fleet_whole(&mut self, id: &FleetId) -> Result<(), Trouble> {
        let fleet = self.past.apps.get(&id.app).and_then(|s| s.fleets.get(id)).cloned();
        let Some(fleet) = fleet.filter(|f| f.phase.is_kept_whole()) else { return Ok(()) };
        self.replace_lost(&fleet)?;
        self.replace_touched(id)?;
        self.try_stand_in(id)?;
        self.make_missing(id)
    }

    /// Whether what instances of a fleet are made from is at hand.
    pub(super) fn is_at_hand(&self, fleet: &FleetId) -> Result<(), Trouble> {
        self.image_of(fleet)?;
        let secrets = self.service(fleet).map(|service| self.world.shelf.secrets(&fleet.app, service));
        secrets.unwrap_or_else(|| Ok(Vec::new())).map(drop)
    }

    /// What instances of a fleet are made from.
    pub(super) fn image_of(&self, fleet: &FleetId) -> Result<ImageHandle, Trouble> {
        let Some(service) = self.service(fleet) else {
            return Err(Trouble(format!("there is no release that fleet {fleet} belongs to")));
        };
        self.world.shelf.image(&service.image)
    }

    /// When a fleet that waits gets its next members.
    pub(super) fn next_back_off(&self) -> Option<Timestamp> {
        let now = self.now();
        let waits = self.back_off.values().filter_map(|b| b.until).filter(|until| *until > now);
        let starts = self.start_deadlines().filter(|deadline| *deadline > now).min();
        earlier(earlier(waits.min(), starts), self.stand_ins_due())
    }

    /// Why a fleet that has never served cannot be expected to become healthy, if so: it has lost as many members as
    /// [`loss_budget`] allows it. A fleet that serves is kept up whatever it loses.
    pub(super) fn budget_spent(&self, fleet: &Fleet) -> Option<String> {
        let budget = loss_budget(u64::from(fleet.size()));
        let spent = fleet.phase == FleetPhase::Green && u64::from(fleet.losses) >= budget;
        let cause = fleet.last_loss.as_deref().unwrap_or("it was lost");
        spent.then(|| format!("{} of its instances were lost; the last one: {cause}", fleet.losses))
    }

    fn replace_lost(&mut self, fleet: &Fleet) -> Result<(), Trouble> {
        // What will be thrown away as a whole need not be mended first.
        if self.budget_spent(fleet).is_some() {
            return Ok(());
        }
        let lost = self.losses(fleet);
        if lost.is_empty() {
            return Ok(());
        }
        let at = self.now();
        let gaps = fleet.gaps(lost.iter().map(|loss| loss.serial));
        let count = u32::try_from(gaps.len()).unwrap_or(u32::MAX);
        let new: Vec<u32> = (fleet.last_serial + 1..=fleet.last_serial + count).collect();
        let successors: BTreeMap<u32, u32> = gaps.into_iter().zip(new.iter().copied()).collect();
        self.record(&Record::Replaced { at, fleet: fleet.id.clone(), lost: lost.clone(), new })?;
        for loss in &lost {
            let successor = successors.get(&loss.serial).copied();
            self.back_off.entry(fleet.id.clone()).or_default().lose(loss.serial, successor, at);
            let (instance, cause) = (fleet.id.instance(loss.serial), loss.cause.clone());
            self.tell_app(&fleet.id.app, Event::InstanceLost { instance, cause });
        }
        let ids: Vec<InstanceId> = lost.iter().map(|l| fleet.id.instance(l.serial)).collect();
        self.statuses.retain(|id, _| !ids.contains(id));
        // Ended when the edge has let go of them.
        self.strays.extend(ids);
        Ok(())
    }

    /// The members that are to be replaced now. Those that ended are; of those that are unwell, one at a time where
    /// the fleet serves, and none when all are: a probe that fails everywhere at once is no reason to end everything
    /// ([`Core::try_stand_in`] finds out whether it is the probe).
    fn losses(&self, fleet: &Fleet) -> Vec<Loss> {
        let serves = fleet.phase.is_in_table();
        let any_well = self.health_view().ready(fleet) > 0;
        let mut unwell = match (serves, any_well) {
            (false, _) => usize::MAX,
            (true, true) => 1,
            (true, false) => 0,
        };
        let mut lost = Vec::new();
        for (serial, id) in fleet.instances() {
            let has_ended = self.statuses.get(&id).is_some_and(|s| s.state.pid().is_none());
            let Some(cause) = self.loss(fleet, &id) else { continue };
            if has_ended || unwell > 0 {
                unwell -= usize::from(!has_ended);
                lost.push(Loss { serial, cause });
            }
        }
        lost
    }

    /// Why a member counts as lost, if it does.
    pub(super) fn loss(&self, fleet: &Fleet, id: &InstanceId) -> Option<String> {
        let status = self.statuses.get(id)?;
        if let Some(end) = status.end() {
            return Some(end);
        }
        let since = self.unwell_since(id)?;
        let condition = &self.conditions[id];
        let patience = self.service(&fleet.id)?.start_timeout;
        if since.after(patience) > self.now() {
            return None;
        }
        let problem = condition.last_problem.as_deref().unwrap_or("no answer");
        let wanting = status.shortage.words().map_or_else(String::new, |wanting| format!("; {wanting}"));
        Some(format!("it was not healthy within {patience}: {problem}{wanting}"))
    }

    /// From when on one that runs and is not healthy has had time to become it: from its start, or, as one that was healthy
    /// once has the same time again to recover, from then; without the time in which it could not be asked.
    pub(super) fn unwell_since(&self, id: &InstanceId) -> Option<Timestamp> {
        let status = self.statuses.get(id).filter(|s| matches!(s.state, InstanceState::Running { .. }))?;
        let condition = self.conditions.get(id).filter(|c| !c.healthy)?;
        Some(status.since.max(condition.counts_from()?))
    }

    fn start_deadlines(&self) -> impl Iterator<Item = Timestamp> + '_ {
        let deadline = |(fleet, id)| Some(self.unwell_since(&id)?.after(self.service(&fleet)?.start_timeout));
        self.members().filter_map(deadline)
    }

    pub(super) fn service(&self, fleet: &FleetId) -> Option<&ReleaseService> {
        let release = &self.past.apps.get(&fleet.app)?.fleets.get(fleet)?.release;
        self.releases.get(release)?.services.get(&fleet.service)
    }

    /// Instances made in one call of the engine: enough to keep it busy, few enough for one message.
    const BATCH: usize = 32;

    fn make_missing(&mut self, fleet: &FleetId) -> Result<(), Trouble> {
        let Some(state) = self.past.apps.get(&fleet.app).and_then(|s| s.fleets.get(fleet)) else {
            return Ok(());
        };
        let now = self.now();
        if self.budget_spent(state).is_some() {
            return Ok(());
        }
        if self.back_off.get(fleet).and_then(|b| b.until).is_some_and(|until| until > now) {
            return Ok(());
        }
        let missing: Vec<InstanceId> =
            state.instances().map(|(_, id)| id).filter(|id| !self.statuses.contains_key(id)).collect();
        if missing.is_empty() {
            self.settle(fleet);
            return Ok(());
        }
        let orders = self.orders(state, &missing)?;
        for batch in orders.chunks(Self::BATCH) {
            match between("create", || self.world.engine.create(batch)) {
                Ok(made) => self.meet(made),
                Err(error) => {
                    // Some of them may exist: the engine is asked before anything else is decided.
                    self.engine_is_new();
                    return Err(Trouble::of(&error));
                }
            }
        }
        Ok(())
    }

    /// A fleet that is whole and well has no losses to be held against it.
    fn settle(&mut self, fleet: &FleetId) {
        let whole = self.members().filter(|(f, _)| f == fleet).all(|(_, id)| self.announced.contains(&id));
        if let (true, Some(back_off)) = (whole, self.back_off.get_mut(fleet)) {
            back_off.settle();
        }
    }

    fn orders(&self, fleet: &Fleet, ids: &[InstanceId]) -> Result<Vec<InstanceOrder>, Trouble> {
        let Some(service) = self.service(&fleet.id) else {
            return Err(Trouble(format!("release {} has no service {}", fleet.release, fleet.id.service)));
        };
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let model = self.order(first, &fleet.id, (&fleet.release, service))?;
        Ok(ids.iter().map(|id| InstanceOrder { id: id.clone(), ..model.clone() }).collect())
    }

    /// The order for an instance of a service: a member of its fleet, or one in which a hook of it is run.
    pub(super) fn order(
        &self,
        id: &InstanceId,
        fleet: &FleetId,
        (release, service): (&ReleaseId, &ReleaseService),
    ) -> Result<InstanceOrder, Trouble> {
        Ok(InstanceOrder {
            id: id.clone(),
            app: fleet.app.clone(),
            service: Some(fleet.service.clone()),
            release: Some(release.clone()),
            image: self.world.shelf.image(&service.image)?,
            run: service.run.clone(),
            env: service.env.clone(),
            limits: service.limits,
            volatile: service.volatile.clone(),
            capabilities: service.capabilities.clone(),
            secrets: self.world.shelf.secrets(&fleet.app, service)?,
            needs: kiln_model::inside(&service.needs, service.port),
        })
    }

    /// Has every running member asked how it is.
    pub(super) fn watch(&mut self) -> Result<(), Trouble> {
        let learned = self.learn_commands();
        let mut watches = BTreeMap::new();
        for (fleet, id) in self.members() {
            let status = self.statuses.get(&id);
            let runs = status.filter(|s| matches!(s.state, InstanceState::Running { .. }));
            if let (Some(status), Some(service)) = (runs, self.service(&fleet)) {
                let exec = self.commands.get(&fleet).cloned();
                if exec.is_none() && matches!(service.probe, Probe::Exec { .. }) {
                    continue;
                }
                // When it became healthy nobody wrote down; it was not long after it began to run.
                let presumed_healthy = self.presumed_healthy.contains(&id).then_some(status.since);
                watches.insert(id, watch(service, exec, presumed_healthy));
            }
        }
        self.world.health.watch(&watches);
        learned
    }

    /// The commands by which members are asked how they are, with the secrets that are variables of theirs: opened
    /// once for each fleet, not once for each look.
    fn learn_commands(&mut self) -> Result<(), Trouble> {
        let fleets: BTreeSet<FleetId> = self.members().map(|(fleet, _)| fleet).collect();
        self.commands.retain(|fleet, _| fleets.contains(fleet));
        let mut result = Ok(());
        for fleet in fleets.into_iter().filter(|f| !self.commands.contains_key(f)).collect::<Vec<_>>() {
            let Some(service) = self.service(&fleet) else { continue };
            let Probe::Exec { argv } = &service.probe else { continue };
            match self.world.shelf.secrets(&fleet.app, service) {
                Ok(secrets) => {
                    let command = service.command(argv.clone(), secrets);
                    self.commands.insert(fleet, command);
                }
                Err(trouble) => result = Err(trouble),
            }
        }
        result
    }
}

fn watch(service: &ReleaseService, exec: Option<ExecOrder>, presumed_healthy: Option<Timestamp>) -> Watch {
    Watch {
        port: service.port,
        probe: service.probe.clone(),
        interval: service.probe_interval,
        timeout: service.probe_timeout,
        healthy_after: service.healthy_after,
        unhealthy_after: service.unhealthy_after,
        exec,
        presumed_healthy,
    }
}
