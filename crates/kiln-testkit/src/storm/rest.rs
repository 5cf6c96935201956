//! After the storm: what must be so when nothing goes wrong any more.

use std::collections::{BTreeMap, BTreeSet};

use kiln_control::Core;
use kiln_model::{AppName, AppState, InstanceId, Record, Waiting};

use super::Breach;
use super::disk::Found;
use super::ground::Truth;
use super::life::Storm;

/// An hour passes in at most so many turns.
const TURNS: usize = 1_500;
const HOUR: u64 = 3_600_000;

impl Storm {
    /// Lets the weather clear and time pass; then everything is as it should be, and nothing is left over.
    pub(super) fn come_to_rest(&mut self) -> Result<(), Breach> {
        self.ground.with(|truth| {
            truth.note(|| "the weather clears".into());
            truth.weather.clear();
            truth.disk.clear();
            truth.sick.clear();
            truth.sick_fleets.clear();
            truth.taken.clear();
            truth.arrive_late();
        });
        self.revive();
        if self.core.is_none() {
            self.start();
        }
        let end = self.ground.with(|truth| truth.now.0 + HOUR);
        let mut turns = 0;
        while self.ground.with(|truth| truth.now.0) < end {
            self.ground.with(|truth| {
                truth.edge.in_flight.clear();
                truth.probe(true);
            });
            self.deliver(true);
            self.turn();
            self.look()?;
            turns += 1;
            if turns > TURNS {
                return Err(self.breach("the core does not come to rest".into()));
            }
            self.sleep();
        }
        match self.what_is_left() {
            Some(what) => Err(self.breach(format!("at rest: {what}"))),
            None => Ok(()),
        }
    }

    /// Time passes until something is due.
    fn sleep(&mut self) {
        let (now, next, news) = self.ground.with(|truth| {
            let due = truth.machines.values().filter(|m| m.status.state.pid().is_some());
            let due = due.flat_map(|m| [m.ends_at, m.well_from]).flatten().filter(|at| *at > truth.now);
            (truth.now, due.min(), !truth.reports.is_empty())
        });
        let next = [self.wake, next].into_iter().flatten().min();
        let span = next.map_or(120_000, |at| now.until(at).0.clamp(1, 120_000));
        self.pass(if news { 1 } else { span });
    }

    fn what_is_left(&self) -> Option<String> {
        let Some(core) = &self.core else { return Some("no control plane could be started".into()) };
        // Asked first: the core may ask the clock, which is part of what is looked at below.
        let waiting = core.apps().keys().map(|app| (app.clone(), core.waiting(app))).collect();
        self.ground
            .with(|truth| {
                truth
                    .not_at_rest(core, &waiting)
                    .or_else(|| truth.left_over(core))
                    .or_else(|| truth.forgotten(core))
            })
            .or_else(|| self.who_waits())
    }
}

impl Truth {
    fn not_at_rest(&self, core: &Core, waiting: &BTreeMap<AppName, Vec<Waiting>>) -> Option<String> {
        for (app, state) in core.apps() {
            let waits = &waiting[app];
            if let Some(under_way) = &state.under_way {
                return Some(format!(
                    "plan {} of {app} is still under way: {waits:?}",
                    under_way.plan.generation
                ));
            }
            if let Some(waits) = waits.first() {
                return Some(format!("{app} waits for {}", waits.what));
            }
            if state.to_abandon.is_some() {
                return Some(format!("a failed plan of {app} was never cleaned up after"));
            }
            if let Some(wrong) = self.wrong_fleets(app, state) {
                return Some(wrong);
            }
        }
        None
    }

    fn wrong_fleets(&self, app: &AppName, state: &AppState) -> Option<String> {
        let live = state.traffic.live();
        if live != self.judge.apps.get(app).and_then(|l| l.live.as_ref()) {
            return Some(format!("{app} is believed to be served by {live:?}"));
        }
        let wanted: BTreeMap<_, _> = live
            .map(|id| self.shelf[id].services.iter().map(|(n, s)| (n.clone(), s.instances)).collect())
            .unwrap_or_default();
        let found: BTreeMap<_, _> = state.fleets.values().map(|f| (f.id.service.clone(), f.size())).collect();
        let all_of_it = state.fleets.values().all(|f| Some(&f.release) == live);
        (wanted != found || !all_of_it || state.fleets.len() != wanted.len()).then(|| {
            format!("{app} should have the fleets {wanted:?} of {live:?} and has {:?}", state.fleets)
        })
    }

    fn left_over(&self, core: &Core) -> Option<String> {
        let members = core.apps().values().flat_map(|s| s.fleets.values());
        let members: BTreeSet<InstanceId> = members.flat_map(|f| f.instances().map(|(_, id)| id)).collect();
        let there: BTreeSet<InstanceId> = self.machines.keys().cloned().collect();
        if members != there {
            let (left, missing) = (there.difference(&members), members.difference(&there));
            let (left, missing): (Vec<_>, Vec<_>) = (left.collect(), missing.collect());
            return Some(format!("left over: {left:?}; missing: {missing:?}"));
        }
        let served: BTreeSet<InstanceId> =
            self.edge.table.fleets.iter().flat_map(|f| f.instances.clone()).collect();
        (members != served)
            .then(|| format!("the edge sends requests to {served:?} and there are {members:?}"))
    }

    /// What is on the disk is what is believed, and can be read again.
    fn forgotten(&self, core: &Core) -> Option<String> {
        if !matches!(self.disk.compare(&self.written), Found::All) {
            return Some("the log does not hold what was written".into());
        }
        let mut apps: BTreeMap<AppName, AppState> = BTreeMap::new();
        for record in &self.written {
            let text = serde_json::to_string(record).expect("records are plain data");
            let Ok(read) = serde_json::from_str::<Record>(&text) else {
                return Some(format!("{text} cannot be read again"));
            };
            if read != *record {
                return Some(format!("{text} is read as something else"));
            }
            apps.entry(read.app().clone()).or_default().apply(&read);
        }
        (apps != *core.apps()).then(|| "the disk tells another story than the core believes".into())
    }
}
