//! The one loop: observe, keep fleets whole, tell the edge, carry plans on, begin new ones.
//!
//! [`Core`] is a state machine without threads. [`Core::turn`] does everything that can be done now and says when it
//! wants to be called again; whoever drives it calls earlier when something has happened. All it decides on is the
//! fold of the operation log and what it observes, so that a new `Core` over the same log goes on where this one
//! ended.

mod begin;
mod canary;
mod carry_out;
mod hook;
mod news;
mod past;
mod pause;
mod problem;
mod publish;
mod report;
mod stand_in;
mod strays;
mod touched;
mod upkeep;
mod will;

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{
    AppName, ExecOrder, FleetId, Generation, HealthView, InstanceId, InstanceStatus, Record, Release,
    ReleaseId, RouteTable, Timestamp,
};
use kiln_store::boundary::between;

pub use begin::{Precedence, Refusal, Request};
pub use news::{News, NewsSender};
pub use past::Past;
pub use report::{Bygone, InstanceReport};
pub use will::Will;

use crate::condition::Condition;
use crate::world::{Trouble, World};
use begin::Pending;
use strays::{Acquaintance, Strays};
use upkeep::BackOff;

/// The state machine; see the module's description.
pub struct Core {
    world: World,
    past: Past,
    releases: BTreeMap<ReleaseId, Release>,
    /// When this core was made: nobody could be asked how he is before.
    started: Timestamp,
    statuses: BTreeMap<InstanceId, InstanceStatus>,
    conditions: BTreeMap<InstanceId, Condition>,
    /// Members that were running when this core was made: healthy until they say otherwise.
    presumed_healthy: BTreeSet<InstanceId>,
    published: Option<RouteTable>,
    pending: BTreeMap<AppName, Pending>,
    listeners: BTreeMap<Generation, news::Audience>,
    cancelled: BTreeMap<Generation, String>,
    /// Of those who have asked for what is under way, as long as they can call it off.
    wills: BTreeMap<Generation, Will>,
    watches: BTreeMap<AppName, canary::Watch>,
    /// What was cut at fleets the edge has let go of, until it is written down.
    cuts: BTreeMap<FleetId, u64>,
    /// What was served at fleets the edge has let go of since this core was made.
    bygone: BTreeMap<AppName, Bygone>,
    back_off: BTreeMap<FleetId, BackOff>,
    /// Members of retiring fleets that have been asked to end by this core.
    asked_to_end: BTreeSet<InstanceId>,
    announced: BTreeSet<InstanceId>,
    /// What asks the members of a fleet how they are, where that is a command.
    commands: BTreeMap<FleetId, ExecOrder>,
    /// How many commands people run in which instances.
    sessions: BTreeMap<InstanceId, u32>,
    parting: touched::Parting,
    strays: Strays,
    acquaintance: Acquaintance,
    trouble: Option<(Timestamp, String)>,
    /// Apps whose next step could not be done.
    held_up: BTreeSet<AppName>,
}

impl Core {
    /// A core that goes on where `past` ends.
    ///
    /// # Errors
    /// If the engine does not say what exists, or a release that is in use is not there.
    pub fn new(world: World, past: Past) -> Result<Self, Trouble> {
        let started = world.clock.now();
        let mut core = Self {
            world,
            started,
            past,
            releases: BTreeMap::new(),
            statuses: BTreeMap::new(),
            conditions: BTreeMap::new(),
            presumed_healthy: BTreeSet::new(),
            published: None,
            pending: BTreeMap::new(),
            listeners: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            wills: BTreeMap::new(),
            watches: BTreeMap::new(),
            cuts: BTreeMap::new(),
            bygone: BTreeMap::new(),
            back_off: BTreeMap::new(),
            asked_to_end: BTreeSet::new(),
            announced: BTreeSet::new(),
            commands: BTreeMap::new(),
            sessions: BTreeMap::new(),
            parting: touched::Parting::default(),
            strays: Strays::default(),
            acquaintance: Acquaintance::First,
            trouble: None,
            held_up: BTreeSet::new(),
        };
        core.load_releases()?;
        core.get_acquainted()?;
        Ok(core)
    }

    /// Does everything that can be done now. Returns when it wants to be called again at the latest.
    pub fn turn(&mut self) -> Option<Timestamp> {
        let mended = self.world.history.mend();
        let (wake, result) = match self.get_acquainted().and_then(|()| self.renumber()) {
            Ok(()) => self.go_on(),
            Err(trouble) => (None, Err(trouble)),
        };
        let now = self.now();
        match result.and(mended) {
            Ok(()) => {
                self.trouble = None;
                wake
            }
            Err(trouble) => {
                // Nothing is lost by trying again: every step can be repeated.
                let since = self.trouble.take().map_or(now, |(since, _)| since);
                self.trouble = Some((since, trouble.0));
                self.tell_trouble(now);
                earlier(wake, Some(now.after(kiln_model::Millis(500))))
            }
        }
    }

    fn go_on(&mut self) -> (Option<Timestamp>, Result<(), Trouble>) {
        self.conditions = self.world.health.conditions();
        self.announce();
        // One fleet's or one app's trouble is not the others'.
        let kept = self.keep_whole();
        let (wake, carried) = self.carry_on();
        let (look, parted) = match self.part() {
            Ok(look) => (look, Ok(())),
            Err(trouble) => (None, Err(trouble)),
        };
        let ended = self.end_strays();
        let watched = self.watch();
        (earlier(wake, look), kept.and(carried).and(parted).and(ended).and(watched))
    }

    /// Forgets what was believed of the edge: another process serves now.
    pub fn edge_is_new(&mut self) {
        self.published = None;
    }

    /// The present moment, as the world has it.
    pub fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    fn carry_on(&mut self) -> (Option<Timestamp>, Result<(), Trouble>) {
        let mut result = self.publish();
        let mut wake = None;
        self.held_up.clear();
        let apps: BTreeSet<AppName> = self.past.apps.keys().chain(self.pending.keys()).cloned().collect();
        for app in apps {
            match self.carry_app_on(&app) {
                Ok(wants) => wake = earlier(wake, wants),
                Err(trouble) => {
                    self.held_up.insert(app);
                    result = result.and(Err(trouble));
                }
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
        between("append", || self.world.history.append(record))?;
        self.past.learn(record);
        Ok(())
    }

    /// Writes down something that is no operation, and takes account of it.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn note(&mut self, record: &Record) -> Result<(), Trouble> {
        self.record(record)
    }

    /// Keeps at hand every release that a fleet or a route needs.
    fn load_releases(&mut self) -> Result<(), Trouble> {
        let needed: BTreeSet<ReleaseId> = self.past.apps.values().flat_map(|state| state.up()).collect();
        self.releases.retain(|id, _| needed.contains(id));
        for id in needed {
            if !self.releases.contains_key(&id) {
                let release = self.world.shelf.release(&id)?;
                self.releases.insert(id, release);
            }
        }
        Ok(())
    }

    /// Every instance that should exist.
    fn members(&self) -> impl Iterator<Item = (FleetId, InstanceId)> {
        let fleets = self.past.apps.values().flat_map(|s| s.fleets.values());
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
