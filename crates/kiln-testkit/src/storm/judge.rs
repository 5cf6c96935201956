//! The judge: believes nothing of what the core says of itself, and looks only at what is really there.
//!
//! It follows the disk record by record, and is asked at every table the edge takes, at every instance that is
//! ordered or ended, at every word to those who asked for something, and after every step of the storm.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{
    Action, AppName, Audience, EdgeRoute, Ending, Exit, FleetId, Generation, HookMoment, InstanceId,
    InstanceOrder, Millis, OperationKind, Plan, Record, Release, ReleaseId, RouteTable, Share,
};

use super::ground::{EdgeTruth, Truth};
use super::world::prefix;

/// What the judge knows.
#[derive(Default)]
pub(super) struct Judge {
    /// The first promise that was broken.
    pub(super) breach: Option<String>,
    pub(super) apps: BTreeMap<AppName, Ledger>,
    pub(super) ends: BTreeMap<Generation, Ended>,
    /// Members that answered well at least once, as they were asked.
    pub(super) proved: BTreeSet<InstanceId>,
    /// Members made because no member of their fleet was well, and whom for, while those are there.
    pub(super) stand_ins: BTreeMap<InstanceId, InstanceId>,
    /// Members that were given up for good reasons.
    pub(super) lost: BTreeSet<InstanceId>,
    pub(super) figures: Figures,
    /// Instances that ended by themselves and said that all went well.
    succeeded: BTreeSet<InstanceId>,
    fleets: BTreeMap<FleetId, ReleaseId>,
    newest: Generation,
    drains: BTreeMap<FleetId, Millis>,
}

/// How often what happened, so that a storm in which nothing happens is noticed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Figures {
    /// Plans begun.
    pub plans: u64,
    /// Switches of traffic written down.
    pub switches: u64,
    /// Users given to a canary.
    pub shifts: u64,
    /// Plans that failed.
    pub failures: u64,
    /// Plans superseded.
    pub superseded: u64,
    /// Deaths of the control plane.
    pub crashes: u64,
    /// Instances replaced.
    pub replaced: u64,
    /// Instances made because no member of their fleet was well.
    pub stand_ins: u64,
    /// Hooks that went well.
    pub hooks: u64,
    /// Tables that the edge could not have served.
    pub lacks: u64,
}

/// How an operation ended, as the disk has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Switched,
    Done,
    Failed,
    Superseded,
}

/// One app as the disk has it.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) live: Option<ReleaseId>,
    pub(super) under_way: Option<Plan>,
    done: usize,
    begun: bool,
    /// The release that may have some of the users, and how many.
    canary: Option<(ReleaseId, BTreeSet<Share>)>,
    /// The one before it, as long as the edge may not know better.
    lingering: Option<(ReleaseId, BTreeSet<Share>)>,
}

impl Ledger {
    /// The step that is being done.
    fn doing(&self) -> Option<&Action> {
        let plan = self.under_way.as_ref().filter(|_| self.begun)?;
        plan.steps.get(self.done).map(|s| &s.action)
    }

    /// The release that traffic is being switched to right now.
    fn switching(&self) -> Option<&ReleaseId> {
        match self.doing() {
            Some(Action::Switch { release, .. }) => Some(release),
            _ => None,
        }
    }

    /// What may be seen from outside: the releases that may serve, and whether nobody may.
    fn may_serve(&self) -> (Vec<&ReleaseId>, bool) {
        let dark = self.live.is_none() || matches!(self.doing(), Some(Action::Unroute));
        (self.live.iter().chain(self.switching()).collect(), dark)
    }
}

impl Judge {
    pub(super) fn find(&mut self, breach: impl Into<String>) {
        self.breach.get_or_insert(breach.into());
    }

    /// One record more is on the disk.
    pub(super) fn recorded(&mut self, record: &Record, edge: &EdgeTruth) {
        match record {
            Record::Begun { plan, .. } => self.begun(plan),
            Record::Intent { app, generation, step, .. } => self.intended(app, *generation, *step),
            Record::Outcome { app, generation, step, .. } => self.done(app, *generation, *step, edge),
            Record::Ended { app, generation, ending, .. } => self.ended(app, *generation, ending),
            Record::Renumbered { .. }
            | Record::Touched { .. }
            | Record::Collected { .. }
            | Record::Imported { .. }
            | Record::Committed { .. }
            | Record::Pinned { .. }
            | Record::Unpinned { .. }
            | Record::SchemaSet { .. }
            | Record::SecretSet { .. }
            | Record::Paused { .. }
            | Record::Resumed { .. }
            | Record::Repaired { .. }
            | Record::SecretRemoved { .. } => {}
            Record::Replaced { fleet, lost, .. } => {
                self.figures.replaced += lost.len() as u64;
                // Whose member is gone stands in for nobody. Only now: what could not be written was not done.
                self.stand_ins.retain(|_, member| lost.iter().all(|l| fleet.instance(l.serial) != *member));
            }
            Record::Reinforced { fleet, touched, new, .. } => {
                self.figures.stand_ins += new.len() as u64;
                let of = |(new, member): (&u32, &u32)| (fleet.instance(*new), fleet.instance(*member));
                self.stand_ins.extend(new.iter().zip(touched).map(of));
            }
        }
    }

    fn begun(&mut self, plan: &Plan) {
        self.figures.plans += 1;
        if plan.generation <= self.newest {
            self.find(format!("plan {} begins after plan {}", plan.generation, self.newest));
        }
        self.newest = plan.generation;
        for step in &plan.steps {
            match &step.action {
                Action::Provision { fleet, release, .. } => self.provisioned(fleet, release),
                Action::AwaitDrained { fleets, within } => {
                    self.drains.extend(fleets.iter().map(|f| (f.clone(), *within)));
                }
                _ => {}
            }
        }
        let ledger = self.apps.entry(plan.app.clone()).or_default();
        let busy = ledger.under_way.replace(plan.clone());
        (ledger.done, ledger.begun) = (0, false);
        if let Some(busy) = busy {
            self.find(format!("plan {} begins while {} is under way", plan.generation, busy.generation));
        }
    }

    pub(super) fn release_of(&self, fleet: &FleetId) -> Option<&ReleaseId> {
        self.fleets.get(fleet)
    }

    fn provisioned(&mut self, fleet: &FleetId, release: &ReleaseId) {
        if self.fleets.insert(fleet.clone(), release.clone()).is_some() {
            self.find(format!("{fleet} is made twice"));
        }
    }

    fn current(&mut self, app: &AppName, generation: Generation, step: usize) -> Option<&mut Ledger> {
        let ledger = self.apps.entry(app.clone()).or_default();
        let fits = ledger.under_way.as_ref().is_some_and(|p| p.generation == generation);
        if !fits || ledger.done != step {
            self.find(format!("step {step} of plan {generation} is out of turn"));
            return None;
        }
        self.apps.get_mut(app)
    }

    fn intended(&mut self, app: &AppName, generation: Generation, step: usize) {
        let Some(ledger) = self.current(app, generation, step) else { return };
        ledger.begun = true;
        if let Some(Action::Shift { release, share, .. }) = ledger.doing().cloned() {
            // Until the edge has the new table it is as it was.
            let mut shares = BTreeSet::from([share]);
            match ledger.canary.take() {
                Some((id, before)) if id == release => shares.extend(before.into_iter().next_back()),
                before => ledger.lingering = before,
            }
            ledger.canary = Some((release, shares));
        }
    }

    fn done(&mut self, app: &AppName, generation: Generation, step: usize, edge: &EdgeTruth) {
        let Some(ledger) = self.current(app, generation, step) else { return };
        let action = ledger.doing().cloned();
        (ledger.done, ledger.begun) = (step + 1, false);
        match action {
            None => self.find(format!("step {step} of plan {generation} is done and never was begun")),
            Some(Action::RunHook { hook, .. }) => {
                let succeeded = self.succeeded.contains(&hook.instance());
                self.figures.hooks += u64::from(succeeded);
                if hook.moment == HookMoment::Before && !succeeded {
                    self.find(format!("the log says that {} is done, and it is not", hook.instance()));
                }
            }
            Some(Action::Switch { release, .. }) => {
                ledger.live = Some(release.clone());
                ledger.canary = None;
                self.figures.switches += 1;
                self.ends.insert(generation, Ended::Switched);
                // An edge that died in this very moment has no table to be looked at.
                if edge.is_up && edge.table.version > 0 && !self.serves(app, &release, &edge.table) {
                    self.find(format!("the log says that {app} is switched, and the edge does otherwise"));
                }
            }
            Some(Action::Unroute) => (ledger.live, ledger.canary) = (None, None),
            // It is out of the table before its fleets are gone.
            Some(Action::Retire { .. }) => (ledger.canary, ledger.lingering) = (None, None),
            Some(Action::Shift { release, .. }) => {
                ledger.lingering = None;
                self.figures.shifts += 1;
                let is_there = edge.table.canaries.iter().any(|canary| canary.release == release);
                if edge.is_up && edge.table.version > 0 && !is_there {
                    self.find(format!("the log says that {app} has a canary, and the edge has none"));
                }
            }
            Some(_) => {}
        }
    }

    fn serves(&self, app: &AppName, release: &ReleaseId, table: &RouteTable) -> bool {
        let of_app = |f: &&FleetId| f.app == *app;
        let mut targets = table.routes.iter().flat_map(|r| &r.targets).map(|t| &t.fleet).filter(of_app);
        targets.all(|f| self.fleets.get(f) == Some(release))
    }

    fn ended(&mut self, app: &AppName, generation: Generation, ending: &Ending) {
        let ledger = self.apps.entry(app.clone()).or_default();
        let Some(plan) = ledger.under_way.take_if(|p| p.generation == generation) else {
            self.find(format!("plan {generation} ends and was not under way"));
            return;
        };
        let switches = plan.steps.iter().position(|s| matches!(s.action, Action::Switch { .. }));
        let has_switched = switches.is_some_and(|at| ledger.done > at);
        let unfinished = ledger.done < plan.steps.len();
        match ending {
            Ending::Done if unfinished => self.find(format!("plan {generation} is said to be done")),
            Ending::Done => drop(self.ends.insert(generation, Ended::Done)),
            Ending::Failed { .. } => {
                self.figures.failures += 1;
                self.ends.insert(generation, Ended::Failed);
                if has_switched {
                    self.find(format!("plan {generation} fails after its release serves"));
                }
            }
            Ending::Superseded { .. } => {
                self.figures.superseded += 1;
                self.ends.entry(generation).or_insert(Ended::Superseded);
                if plan.kind == OperationKind::Down && ledger.live.is_some() {
                    self.find(format!("plan {generation} (down) is superseded before it took effect"));
                }
            }
        }
    }

    /// An instance is ordered that does not exist: a new one, and exactly as its release has it.
    pub(super) fn ordered(
        &mut self,
        order: &InstanceOrder,
        shelf: &BTreeMap<ReleaseId, Release>,
        used: &BTreeSet<InstanceId>,
    ) {
        if used.contains(&order.id) {
            self.find(format!("the id {} is used a second time", order.id));
        }
        let service = order.release.as_ref().and_then(|id| shelf.get(id)).zip(order.service.as_ref());
        let service = service.and_then(|(release, name)| release.services.get(name));
        let hook = order.id.as_str().rsplit_once('-').filter(|(_, last)| last.starts_with(['a', 'b']));
        let run = service.map(|s| match hook {
            Some(_) => kiln_model::RunSettings { argv: order.run.argv.clone(), ..s.run.clone() },
            None => s.run.clone(),
        });
        let fits = service.zip(run).is_some_and(|(s, run)| {
            s.image == order.image.digest
                && s.env == order.env
                && run == order.run
                && s.limits == order.limits
                && s.volatile == order.volatile
                && crate::sim::opened(s) == order.secrets
        });
        if !fits {
            self.find(format!("{} is not what its release says", order.id));
        }
    }
}

impl Judge {
    /// An instance has ended by itself, or was ended.
    pub(super) fn has_ended(&mut self, id: &InstanceId, exit: &Exit) {
        if exit.is_success() {
            self.succeeded.insert(id.clone());
        }
    }

    /// The core that lives orders an instance. One for a hook only while the plan that has it is at that very step;
    /// a member of a fleet only when the hooks its plan has for the service before it have done well.
    pub(super) fn called_for(&mut self, order: &InstanceOrder) {
        let Some(plan) = self.apps.get(&order.app).map(|ledger| (ledger.under_way.as_ref(), ledger.doing()))
        else {
            return;
        };
        let is_hook =
            order.id.as_str().rsplit_once('-').is_some_and(|(_, last)| last.starts_with(['a', 'b']));
        let finding = match plan {
            (_, Some(Action::RunHook { hook, .. })) if is_hook && hook.instance() == order.id => None,
            _ if is_hook => Some(format!("{} is made, and no plan is at that step", order.id)),
            (Some(plan), _) => plan.steps.iter().find_map(|step| match &step.action {
                Action::RunHook { hook, .. }
                    if hook.moment == HookMoment::Before
                        && order.id.as_str().starts_with(&format!("{}-", prefix(&hook.fleet())))
                        && !self.succeeded.contains(&hook.instance()) =>
                {
                    Some(format!("{} is made before {} has done well", order.id, hook.instance()))
                }
                _ => None,
            }),
            (None, _) => None,
        };
        if let Some(finding) = finding {
            self.find(finding);
        }
    }
}

impl Truth {
    /// Looks at the table in force.
    pub(super) fn judge_table(&mut self) {
        if !self.edge.is_up || self.edge.table.version == 0 {
            return;
        }
        let findings: Vec<String> = self.judge.apps.keys().filter_map(|app| self.wrong_with(app)).collect();
        findings.into_iter().for_each(|finding| self.judge.find(finding));
    }

    fn wrong_with(&self, app: &AppName) -> Option<String> {
        let ledger = &self.judge.apps[app];
        let (releases, dark) = ledger.may_serve();
        let host = super::workload::host(app);
        let routes: Vec<_> =
            self.edge.table.routes.iter().filter(|r| r.host.as_ref() == Some(&host)).collect();
        if routes.is_empty() {
            return (!dark).then(|| format!("{app} has no route at the edge, and {releases:?} should serve"));
        }
        let (canary, routes): (Vec<_>, Vec<_>) =
            routes.into_iter().partition(|r| matches!(r.audience, Audience::At(_)));
        if let Some(wrong) = self.wrong_with_canary(app, &canary) {
            return Some(wrong);
        }
        let one = match self.release_behind(app, &routes) {
            Ok(one) => one,
            Err(wrong) => return Some(wrong),
        };
        if !releases.contains(&one) {
            return Some(format!("{app} is served by {one}, and {releases:?} should"));
        }
        let first = ledger.live.as_ref() != Some(one);
        first.then(|| self.not_whole(app, one, &self.shelf[one])).flatten()
    }

    /// The one release that these routes lead to, all of them and exactly as it has them.
    fn release_behind(&self, app: &AppName, routes: &[&EdgeRoute]) -> Result<&ReleaseId, String> {
        let seen: BTreeSet<&ReleaseId> = routes
            .iter()
            .flat_map(|r| &r.targets)
            .filter(|t| t.weight > 0)
            .filter_map(|t| self.judge.fleets.get(&t.fleet))
            .collect();
        let [one] = seen.iter().copied().collect::<Vec<_>>()[..] else {
            return Err(format!("{app} is served by {seen:?} at the same time"));
        };
        let release = &self.shelf[one];
        let wanted: BTreeSet<_> = release.routes.values().map(|r| (&r.path, &r.service)).collect();
        let found: BTreeSet<_> = routes.iter().map(|r| (&r.path, &r.service)).collect();
        if wanted != found || routes.iter().any(|r| r.targets.len() != 1) {
            return Err(format!("{app} is served by {one} with the routes {found:?}"));
        }
        Ok(one)
    }

    /// What is wrong with the part of the table that some of the users are served by.
    fn wrong_with_canary(&self, app: &AppName, routes: &[&EdgeRoute]) -> Option<String> {
        let Audience::At(number) = routes.first()?.audience else { return None };
        let one = match self.release_behind(app, routes) {
            Ok(one) => one,
            Err(wrong) => return Some(wrong),
        };
        let ledger = &self.judge.apps[app];
        let told = self.edge.table.canaries.get(number).map(|c| (&c.release, c.share));
        let fits = |may: &(ReleaseId, BTreeSet<Share>)| {
            may.0 == *one && told.is_some_and(|(release, share)| release == one && may.1.contains(&share))
        };
        if ledger.lingering.as_ref().is_some_and(fits) {
            return None;
        }
        let may = ledger.canary.as_ref();
        if !may.is_some_and(fits) {
            return Some(format!("{app} has the canary {told:?}, and {may:?} is what the log says"));
        }
        let first = may.is_some_and(|(_, shares)| shares.len() == 1);
        let shifting = matches!(ledger.doing(), Some(Action::Shift { .. }));
        (first && shifting).then(|| self.not_whole(app, one, &self.shelf[one])).flatten()
    }

    /// Why a release that is about to serve for the first time must not.
    fn not_whole(&self, app: &AppName, id: &ReleaseId, release: &Release) -> Option<String> {
        for (name, service) in &release.services {
            let mut fleets = self.edge.table.fleets.iter().filter(|f| {
                f.id.app == *app && f.id.service == *name && self.judge.fleets.get(&f.id) == Some(id)
            });
            let (Some(fleet), None) = (fleets.next(), fleets.next()) else {
                return Some(format!("{id} serves, and there is not one fleet of {name}"));
            };
            if fleet.instances.len() != service.instances as usize {
                return Some(format!("{id} serves, and {} is not whole", fleet.id));
            }
            if let Some(id) = fleet.instances.iter().find(|id| !self.judge.proved.contains(*id)) {
                return Some(format!("{id} gets traffic and never answered well"));
            }
        }
        None
    }

    /// Instances are about to be ended.
    pub(super) fn judge_end(&mut self, ids: &[InstanceId]) {
        if !self.edge.is_up {
            return;
        }
        let findings: Vec<String> = ids.iter().filter_map(|id| self.must_not_end(id)).collect();
        findings.into_iter().for_each(|finding| self.judge.find(finding));
    }

    pub(super) fn runs(&self, id: &InstanceId) -> bool {
        self.machines.get(id).is_some_and(|m| m.status.state.pid().is_some())
    }

    pub(super) fn seems_unwell(&self, id: &InstanceId) -> bool {
        !self.runs(id) || self.conditions.get(id).is_some_and(|c| !c.healthy)
    }

    fn must_not_end(&self, id: &InstanceId) -> Option<String> {
        if !self.runs(id) {
            return None;
        }
        let table = &self.edge.table;
        let targeted =
            |f: &FleetId| table.routes.iter().flat_map(|r| &r.targets).any(|t| t.fleet == *f && t.weight > 0);
        if let Some(fleet) = table.fleets.iter().find(|f| f.instances.contains(id))
            && targeted(&fleet.id)
        {
            return Some(format!("{id} is ended while the edge sends requests there"));
        }
        self.too_early(id)
    }

    /// Why what is in flight at an instance must not be cut yet.
    pub(super) fn too_early(&self, id: &InstanceId) -> Option<String> {
        let in_flight = self.edge.in_flight.get(id).copied().unwrap_or(0);
        // One that does not answer may be thrown away whatever it has begun.
        let unwell = self.judge.lost.contains(id) || self.seems_unwell(id);
        let of = |f: &&FleetId| id.as_str().rsplit_once('-').is_some_and(|(p, _)| p == prefix(f));
        let fleet = self.judge.fleets.keys().find(of)?;
        let deadline = self.edge.left.get(fleet)?.after(*self.judge.drains.get(fleet)?);
        (in_flight > 0 && !unwell && self.now < deadline)
            .then(|| format!("{id} is cut with {in_flight} requests in flight before {deadline}"))
    }
}
