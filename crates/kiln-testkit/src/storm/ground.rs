//! What is really there, whatever the core believes: instances, the edge's table, the disk, the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use kiln_control::{Condition, Watch};
use kiln_model::{
    Evidence, Exit, FleetCount, FleetId, InstanceId, InstanceOrder, InstanceState, InstanceStatus, Record,
    Release, ReleaseId, RouteTable, Shortage, Timestamp,
};

use super::disk::StormDisk;
use super::judge::Judge;
use super::{Chance, Sabotage, Weather};
use crate::sim::lock;

/// A handle to what is really there; all clones are the same.
#[derive(Clone)]
pub(super) struct Ground(pub(super) Arc<Mutex<Truth>>);

/// What is really there.
pub(super) struct Truth {
    pub(super) now: Timestamp,
    pub(super) chance: Chance,
    pub(super) weather: Weather,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) judge: Judge,
    pub(super) machines: BTreeMap<InstanceId, Machine>,
    /// Every id that was ever ordered.
    pub(super) used: BTreeSet<InstanceId>,
    /// What has changed and was not told yet.
    pub(super) reports: Vec<InstanceStatus>,
    pub(super) keeper_is_up: bool,
    /// How many keepers have died, and with them what they remembered.
    pub(super) keepers: u32,
    pub(super) edge: EdgeTruth,
    /// Ports that other programs have.
    pub(super) taken: BTreeSet<u16>,
    pub(super) watched: BTreeMap<InstanceId, Watch>,
    pub(super) conditions: BTreeMap<InstanceId, Condition>,
    /// Instances that do not answer, whatever they were made from.
    pub(super) sick: BTreeSet<InstanceId>,
    /// What the ids of those begin with that do not answer whenever they are made.
    pub(super) sick_fleets: BTreeSet<String>,
    pub(super) disk: StormDisk,
    /// Everything that is known to be on it.
    pub(super) written: Vec<Record>,
    pub(super) shelf: BTreeMap<ReleaseId, Release>,
    /// Orders of a control plane that is dead, still on their way.
    pub(super) late: Vec<Late>,
    /// What has happened, if somebody wants to read it.
    pub(super) trace: Option<Vec<String>>,
    next_pid: u32,
}

/// One instance as it really is.
pub(super) struct Machine {
    pub(super) status: InstanceStatus,
    /// When it answers for the first time.
    pub(super) well_from: Option<Timestamp>,
    /// When it ends by itself.
    pub(super) ends_at: Option<Timestamp>,
    /// How it does.
    ends_with: Exit,
}

/// The edge as it really is.
#[derive(Default)]
pub(super) struct EdgeTruth {
    pub(super) is_up: bool,
    pub(super) table: RouteTable,
    pub(super) in_flight: BTreeMap<InstanceId, u64>,
    /// What it has seen of fleets.
    pub(super) seen: BTreeMap<FleetId, Evidence>,
    /// When a fleet was targeted last.
    pub(super) left: BTreeMap<FleetId, Timestamp>,
}

/// An order that arrives when whoever gave it is dead.
pub(super) enum Late {
    Create(Vec<InstanceOrder>),
    Stop(Vec<InstanceId>),
    Table(RouteTable),
}

impl Ground {
    pub(super) fn new(seed: u64, sabotage: Option<Sabotage>, trace: bool) -> Self {
        let mut chance = Chance::new(seed);
        let weather = Weather::of(&mut chance);
        Self(Arc::new(Mutex::new(Truth {
            now: Timestamp(1_000_000),
            chance,
            weather,
            sabotage,
            judge: Judge::default(),
            machines: BTreeMap::new(),
            used: BTreeSet::new(),
            reports: Vec::new(),
            keeper_is_up: true,
            keepers: 0,
            edge: EdgeTruth { is_up: true, ..EdgeTruth::default() },
            taken: BTreeSet::new(),
            watched: BTreeMap::new(),
            conditions: BTreeMap::new(),
            sick: BTreeSet::new(),
            sick_fleets: BTreeSet::new(),
            disk: StormDisk::new(seed),
            written: Vec::new(),
            shelf: BTreeMap::new(),
            late: Vec::new(),
            trace: trace.then(Vec::new),
            next_pid: 1000,
        })))
    }

    /// Looks at, or changes, what is there.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Truth) -> T) -> T {
        look(&mut lock(&self.0))
    }
}

impl Truth {
    /// Notes what happens, if somebody wants to read it.
    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} ms  {}", now.0 - 1_000_000, what()));
        }
    }

    fn set(&mut self, id: &InstanceId, state: InstanceState) {
        let status = InstanceStatus { id: id.clone(), state, since: self.now, shortage: Shortage::default() };
        if let Some(machine) = self.machines.get_mut(id) {
            machine.status = status.clone();
            self.reports.push(status);
        }
    }

    /// Makes one instance, unless it is there.
    pub(super) fn make(&mut self, order: &InstanceOrder) -> InstanceStatus {
        if let Some(known) = self.machines.get(&order.id) {
            return known.status.clone();
        }
        self.judge.ordered(order, &self.shelf, &self.used);
        self.used.insert(order.id.clone());
        self.next_pid += 1;
        let (now, pid, kind) = (self.now, self.next_pid, order.run.argv[0].clone());
        let is_kind = |name: &str| kind.contains(name);
        let lag = self.chance.below(400);
        let well_from = match () {
            () if is_kind("sick") => None,
            () if is_kind("slow") => Some(now.after(kiln_model::Millis(2_000 + lag))),
            () => Some(now.after(kiln_model::Millis(lag))),
        };
        let ends = is_kind("brief") && self.chance.one_in(2) || is_kind("hook") && !is_kind("hangs");
        let ends_at = ends.then(|| Timestamp(now.0 + 500 + lag));
        let ends_with = Exit::Code { code: i32::from(is_kind("fails") && self.chance.one_in(2)) };
        let fails = (is_kind("faulty") && self.chance.one_in(3)) || self.chance.one_in(self.weather.starts);
        let state = if fails {
            InstanceState::Ended { exit: Exit::NotStarted { cause: "bad luck".into() } }
        } else {
            InstanceState::Running { pid }
        };
        let status = InstanceStatus {
            id: order.id.clone(),
            state: state.clone(),
            since: now,
            shortage: Shortage::default(),
        };
        let machine = Machine { status: status.clone(), well_from, ends_at, ends_with };
        self.machines.insert(order.id.clone(), machine);
        self.note(|| format!("the engine makes {}: {state:?}", order.id));
        self.reports.push(status.clone());
        status
    }

    /// Ends one instance, if it runs.
    pub(super) fn end(&mut self, id: &InstanceId, exit: Exit) {
        if self.machines.get(id).is_some_and(|m| m.status.state.pid().is_some()) {
            self.note(|| format!("{id} ends: it {exit}"));
            self.judge.has_ended(id, &exit);
            self.set(id, InstanceState::Ended { exit });
            self.edge.in_flight.remove(id);
        }
    }

    /// Asks one instance to end; it takes its time, sometimes.
    pub(super) fn ask_to_end(&mut self, id: &InstanceId) {
        let Some(pid) = self.machines.get(id).and_then(|m| m.status.state.pid()) else { return };
        if self.chance.one_in(3) {
            let at = self.now.0 + 1 + self.chance.below(5_000);
            self.set(id, InstanceState::Stopping { pid });
            if let Some(machine) = self.machines.get_mut(id) {
                machine.ends_at = Some(Timestamp(at));
            }
        } else {
            self.end(id, Exit::Signal { signal: 15 });
        }
    }

    /// Lets those end whose time has come.
    pub(super) fn pass_away(&mut self) {
        let now = self.now;
        let due = |m: &&Machine| m.ends_at.is_some_and(|at| at <= now) && m.status.state.pid().is_some();
        let ending = self.machines.values().filter(due).map(|m| (m.status.id.clone(), m.ends_with.clone()));
        let ending: Vec<(InstanceId, Exit)> = ending.collect();
        ending.into_iter().for_each(|(id, exit)| self.end(&id, exit));
    }

    /// Whether an instance would answer.
    pub(super) fn is_well(&self, id: &InstanceId) -> bool {
        let well = |m: &Machine| {
            matches!(m.status.state, InstanceState::Running { .. })
                && m.well_from.is_some_and(|from| from <= self.now)
        };
        let sick =
            self.sick.contains(id) || self.sick_fleets.iter().any(|fleet| id.as_str().starts_with(fleet));
        !sick && self.machines.get(id).is_some_and(well)
    }

    /// Puts a table in force, if it is newer than the one that is.
    pub(super) fn take_table(&mut self, table: &RouteTable) -> Result<Vec<FleetCount>, String> {
        if table.version <= self.edge.table.version {
            return Err(format!("the edge has a table as new as {} already", table.version));
        }
        let now = self.now;
        let targets = self.edge.table.routes.iter().flat_map(|r| &r.targets);
        for target in targets.filter(|t| t.weight > 0) {
            self.edge.left.insert(target.fleet.clone(), now);
        }
        let before = std::mem::replace(&mut self.edge.table, table.clone());
        let named: BTreeSet<&InstanceId> = table.fleets.iter().flat_map(|f| &f.instances).collect();
        let fleets: BTreeSet<&FleetId> = table.fleets.iter().map(|f| &f.id).collect();
        let leaving = before.fleets.iter().filter(|f| !fleets.contains(&f.id)).flat_map(|f| &f.instances);
        // A fleet that leaves the table is cut; a member that leaves it may end what it has begun.
        let cut: Vec<InstanceId> = leaving.filter(|id| !named.contains(id)).cloned().collect();
        let findings: Vec<String> = cut.iter().filter_map(|id| self.too_early(id)).collect();
        findings.into_iter().for_each(|finding| self.judge.find(finding));
        let gone = before.fleets.iter().filter(|f| !fleets.contains(&f.id)).map(|f| FleetCount {
            fleet: f.id.clone(),
            in_flight: 0,
            served: 0,
            failed: 0,
            cut: f.instances.iter().filter_map(|id| self.edge.in_flight.get(id)).sum(),
        });
        let gone = gone.collect();
        self.edge.in_flight.retain(|id, _| !cut.contains(id));
        self.note(|| {
            let targets: BTreeSet<String> = table
                .routes
                .iter()
                .flat_map(|r| &r.targets)
                .map(|t| format!("{}×{}", t.fleet, t.weight))
                .collect();
            format!("the edge takes table {}: {targets:?}", table.version)
        });
        Ok(gone)
    }
}
