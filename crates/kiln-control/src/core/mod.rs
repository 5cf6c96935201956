//! The one loop: observe, keep fleets whole, tell the edge, carry plans on, begin new ones.
//!
//! [`Core`] is a state machine without threads. [`Core::turn`] does everything that can be done now and says when it
//! wants to be called again; whoever drives it calls earlier when something has happened. All it decides on is the
//! fold of the operation log and what it observes, so that a new `Core` over the same log goes on where this one
//! ended.

mod begin;
mod carry_out;
mod news;
mod publish;
mod report;
mod touched;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{
    AppName, AppState, FleetId, Generation, HealthView, InstanceId, InstanceStatus, Record, Release,
    ReleaseId, RouteTable, Timestamp,
};

pub use begin::{Refusal, Request};
pub use news::{News, NewsSender};
pub use report::InstanceReport;

use crate::world::{Condition, Trouble, World};
use begin::Pending;
use upkeep::BackOff;

/// The state machine; see the module's description.
pub struct Core {
    world: World,
    apps: BTreeMap<AppName, AppState>,
    releases: BTreeMap<ReleaseId, Release>,
    generation: Generation,
    statuses: BTreeMap<InstanceId, InstanceStatus>,
    conditions: BTreeMap<InstanceId, Condition>,
    /// Members that were running when this core was made: healthy until they say otherwise.
    presumed_healthy: BTreeSet<InstanceId>,
    published: Option<RouteTable>,
    pending: BTreeMap<AppName, Pending>,
    listeners: BTreeMap<Generation, news::Listener>,
    cancelled: BTreeMap<Generation, String>,
    back_off: BTreeMap<FleetId, BackOff>,
    /// Fleets whose instances have been asked to end by this core.
    asked_to_end: BTreeSet<FleetId>,
    announced: BTreeSet<InstanceId>,
    /// Ended instances that belong to no fleet any more.
    strays: Vec<InstanceId>,
    /// How many commands people run in which instances.
    sessions: BTreeMap<InstanceId, u32>,
    parting: touched::Parting,
    trouble: Option<(Timestamp, String)>,
}

impl Core {
    /// A core that goes on where `records` end.
    ///
    /// # Errors
    /// If the engine does not say what exists, or a release that is in use is not there.
    pub fn new(world: World, records: &[Record]) -> Result<Self, Trouble> {
        let mut core = Self {
            world,
            apps: BTreeMap::new(),
            releases: BTreeMap::new(),
            generation: Generation::default(),
            statuses: BTreeMap::new(),
            conditions: BTreeMap::new(),
            presumed_healthy: BTreeSet::new(),
            published: None,
            pending: BTreeMap::new(),
            listeners: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            back_off: BTreeMap::new(),
            asked_to_end: BTreeSet::new(),
            announced: BTreeSet::new(),
            strays: Vec::new(),
            sessions: BTreeMap::new(),
            parting: touched::Parting::default(),
            trouble: None,
        };
        for record in records {
            core.fold(record);
        }
        core.load_releases()?;
        core.adopt()?;
        Ok(core)
    }

    /// Does everything that can be done now. Returns when it wants to be called again at the latest.
    pub fn turn(&mut self) -> Option<Timestamp> {
        self.conditions = self.world.health.conditions();
        self.announce();
        self.forget_strays();
        // One fleet's or one app's trouble is not the others'.
        let kept = self.keep_whole();
        let (wake, carried) = self.carry_on();
        let (look, parted) = match self.part() {
            Ok(look) => (look, Ok(())),
            Err(trouble) => (None, Err(trouble)),
        };
        let (wake, carried) = (earlier(wake, look), carried.and(parted));
        self.watch();
        let now = self.now();
        match kept.and(carried) {
            Ok(()) => {
                self.trouble = None;
                wake
            }
            Err(trouble) => {
                // Nothing is lost by trying again: every step can be repeated.
                let since = self.trouble.take().map_or(now, |(since, _)| since);
                self.trouble = Some((since, trouble.0));
                earlier(wake, Some(now.after(kiln_model::Millis(500))))
            }
        }
    }

    /// Nobody asks for the ends of instances that were replaced any more.
    fn forget_strays(&mut self) {
        let strays = std::mem::take(&mut self.strays);
        if !strays.is_empty() && self.world.engine.forget(&strays).is_err() {
            self.strays = strays;
        }
    }

    /// Takes account of what the engine says. Of instances that belong to no fleet any more there is nothing to know.
    pub fn observe(&mut self, statuses: Vec<InstanceStatus>) {
        let members: BTreeSet<InstanceId> = self.members().map(|(_, id)| id).collect();
        let (ours, strays): (Vec<_>, Vec<_>) = statuses.into_iter().partition(|s| members.contains(&s.id));
        self.strays.extend(strays.into_iter().filter(|s| s.state.pid().is_none()).map(|s| s.id));
        for status in ours {
            self.statuses.insert(status.id.clone(), status);
        }
    }

    /// Forgets what was believed of the edge: another process serves now.
    pub fn edge_is_new(&mut self) {
        self.published = None;
    }

    /// Takes account of another keeper, where instances are that this one does not know: they are gone.
    pub fn engine_is_new(&mut self, there: &[InstanceStatus]) {
        let there: BTreeSet<&InstanceId> = there.iter().map(|status| &status.id).collect();
        let missing: Vec<InstanceId> =
            self.members().map(|(_, id)| id).filter(|id| !there.contains(id)).collect();
        let now = self.now();
        if !missing.is_empty() {
            self.presumed_healthy.clear();
        }
        for id in missing {
            let state = kiln_model::InstanceState::Ended { exit: kiln_model::Exit::Unknown };
            self.statuses.insert(id.clone(), InstanceStatus { id, state, since: now, full: Vec::new() });
        }
    }

    /// The present moment, as the world has it.
    pub fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    fn carry_on(&mut self) -> (Option<Timestamp>, Result<(), Trouble>) {
        let mut result = self.publish();
        let mut wake = None;
        let apps: BTreeSet<AppName> = self.apps.keys().chain(self.pending.keys()).cloned().collect();
        for app in apps {
            match self.carry_app_on(&app) {
                Ok(wants) => wake = earlier(wake, wants),
                Err(trouble) => result = result.and(Err(trouble)),
            }
        }
        result = result.and(self.publish());
        (earlier(wake, self.next_back_off()), result)
    }

    /// Begins and carries out what can be, until the app waits for something.
    fn carry_app_on(&mut self, app: &AppName) -> Result<Option<Timestamp>, Trouble> {
        loop {
            if let Some(wake) = self.begin_next(app)? {
                return Ok(wake.at());
            }
            if let Some(wake) = self.carry_out(app)? {
                return Ok(wake.at());
            }
        }
    }

    /// Puts an entry into the history and takes account of it, in this order.
    fn record(&mut self, record: &Record) -> Result<(), Trouble> {
        self.world.history.append(record)?;
        self.fold(record);
        Ok(())
    }

    fn fold(&mut self, record: &Record) {
        let app = match record {
            // Secrets may be set before there is an app, and change nothing about one.
            Record::SecretSet { .. } | Record::SecretRemoved { .. } => return,
            Record::Begun { plan, .. } => &plan.app,
            Record::Intent { app, .. } | Record::Outcome { app, .. } | Record::Ended { app, .. } => app,
            Record::Replaced { fleet, .. }
            | Record::Touched { fleet, .. }
            | Record::Reinforced { fleet, .. } => &fleet.app,
        };
        if let Record::Begun { plan, .. } = record {
            self.generation = self.generation.max(plan.generation);
        }
        self.apps.entry(app.clone()).or_default().apply(record);
    }

    /// Keeps at hand every release that a fleet or a route needs.
    fn load_releases(&mut self) -> Result<(), Trouble> {
        let needed: BTreeSet<ReleaseId> = self
            .apps
            .values()
            .flat_map(|s| s.fleets.values().map(|f| f.release.clone()).chain(s.traffic.live().cloned()))
            .collect();
        self.releases.retain(|id, _| needed.contains(id));
        for id in needed {
            if !self.releases.contains_key(&id) {
                let release = self.world.shelf.release(&id)?;
                self.releases.insert(id, release);
            }
        }
        Ok(())
    }

    /// Learns what exists. Instances that belong to no fleet are left over from something that was given up.
    fn adopt(&mut self) -> Result<(), Trouble> {
        let listed = self.world.engine.list().map_err(|e| Trouble::of(&e))?;
        let members: BTreeSet<InstanceId> = self.members().map(|(_, id)| id).collect();
        let (ours, strays): (Vec<_>, Vec<_>) = listed.into_iter().partition(|s| members.contains(&s.id));
        let strays: Vec<InstanceId> = strays.into_iter().map(|s| s.id).collect();
        let strays: Vec<InstanceId> = strays.into_iter().filter(|id| !self.adopt_parting(id)).collect();
        self.world.engine.kill(&strays).map_err(|e| Trouble::of(&e))?;
        self.world.engine.forget(&strays).map_err(|e| Trouble::of(&e))?;
        // Those that serve were observed healthy before they did. Of a fleet that has yet to prove itself nothing is
        // presumed.
        let in_table = self.apps.values().flat_map(|s| s.fleets.values()).filter(|f| f.phase.is_in_table());
        let serving: BTreeSet<InstanceId> = in_table.flat_map(|f| f.instances().map(|(_, id)| id)).collect();
        let runs = |s: &&InstanceStatus| s.state.pid().is_some() && serving.contains(&s.id);
        self.presumed_healthy = ours.iter().filter(runs).map(|s| s.id.clone()).collect();
        self.announced = self.presumed_healthy.clone();
        self.observe(ours);
        Ok(())
    }

    /// Every instance that should exist.
    fn members(&self) -> impl Iterator<Item = (FleetId, InstanceId)> {
        let fleets = self.apps.values().flat_map(|s| s.fleets.values());
        fleets.flat_map(|f| f.instances().map(|(_, id)| (f.id.clone(), id)))
    }

    fn health_view(&self) -> HealthView {
        let well = |id: &&InstanceId| match self.conditions.get(*id) {
            Some(condition) => condition.healthy,
            None => self.presumed_healthy.contains(*id),
        };
        let runs = |s: &&InstanceStatus| matches!(s.state, kiln_model::InstanceState::Running { .. });
        HealthView(self.statuses.values().filter(runs).map(|s| &s.id).filter(well).cloned().collect())
    }
}

/// What an attempt to go on led to.
enum Wake {
    /// It waits for something that will wake it.
    WhenWoken,
    /// It waits, at most until this moment.
    At(Timestamp),
}

impl Wake {
    fn at(self) -> Option<Timestamp> {
        match self {
            Self::WhenWoken => None,
            Self::At(at) => Some(at),
        }
    }
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
