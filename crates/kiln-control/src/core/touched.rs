//! Instances somebody has laid hands on: replaced when they have let go, without anybody's noticing.
//!
//! ```text
//!   touched ── the session ends ── a stand-in is made ── it is healthy ── the edge lets go ── nothing in flight ── gone
//! ```

use std::collections::BTreeMap;

use kiln_engine::EngineError;
use kiln_model::{
    AppName, Author, Fleet, FleetId, InstanceId, Loss, Millis, Record, ReleaseService, Timestamp,
};
use kiln_store::boundary::between;

use super::{Core, earlier};
use crate::world::Trouble;

/// Instances that get no requests any more and may finish those they have.
#[derive(Debug, Default)]
pub(super) struct Parting(BTreeMap<InstanceId, Parted>);

#[derive(Debug)]
struct Parted {
    /// The port its requests come in by.
    port: u16,
    /// How long it may take.
    until: Timestamp,
}

/// How often it is asked whether an instance still has requests.
const LOOK: Millis = Millis(50);

impl Core {
    /// Writes down that somebody runs a command inside an instance; until [`Core::let_alone`] it is left as it is.
    /// Its app, and what its service says about processes; none if it is no running member of a fleet.
    ///
    /// # Errors
    /// If it could not be written down; then it must not be touched.
    pub fn touch(
        &mut self,
        id: &InstanceId,
        by: Author,
        command: &str,
    ) -> Result<Option<(AppName, ReleaseService)>, Trouble> {
        let runs = self.statuses.get(id).is_some_and(|s| s.state.pid().is_some());
        let of = |fleet: &&Fleet| fleet.instances().any(|(_, member)| member == *id);
        let fleet = self.past.apps.values().flat_map(|s| s.fleets.values()).find(of).filter(|_| runs);
        let Some((fleet, serial)) = fleet.and_then(|f| Some((f.id.clone(), f.serial_of(id)?))) else {
            return Ok(None);
        };
        let Some(service) = self.service(&fleet).cloned() else { return Ok(None) };
        let app = fleet.app.clone();
        let (at, command) = (self.now(), command.to_owned());
        self.record(&Record::Touched { at, fleet, serial, by, command })?;
        *self.sessions.entry(id.clone()).or_default() += 1;
        Ok(Some((app, service)))
    }

    /// One who has touched an instance is done with it.
    pub fn let_alone(&mut self, id: &InstanceId) {
        if let Some(sessions) = self.sessions.get_mut(id) {
            *sessions -= 1;
            if *sessions == 0 {
                self.sessions.remove(id);
            }
        }
    }

    /// Makes stand-ins for touched members that have been let alone, and parts with those whose stand-ins are well.
    pub(super) fn replace_touched(&mut self, id: &FleetId) -> Result<(), Trouble> {
        let Some(fleet) = self.past.apps.get(&id.app).and_then(|s| s.fleets.get(id)).cloned() else {
            return Ok(());
        };
        let is_over = |serial: &&u32| !self.sessions.contains_key(&fleet.id.instance(**serial));
        let over: Vec<u32> = fleet.touched.keys().filter(is_over).copied().collect();
        if over.is_empty() {
            return Ok(());
        }
        let alone: Vec<u32> = over.iter().filter(|s| !fleet.reinforced.contains(s)).copied().collect();
        if !alone.is_empty() {
            let count = u32::try_from(alone.len()).unwrap_or(u32::MAX);
            let new = (fleet.last_serial + 1..=fleet.last_serial + count).collect();
            return self.record(&Record::Reinforced {
                at: self.now(),
                fleet: id.clone(),
                touched: alone,
                new,
            });
        }
        let others = fleet.instances().filter(|(serial, _)| !over.contains(serial));
        let view = self.health_view();
        if !others.into_iter().all(|(_, member)| view.0.contains(&member)) {
            return Ok(());
        }
        self.part_with(&fleet, &over)
    }

    fn part_with(&mut self, fleet: &Fleet, serials: &[u32]) -> Result<(), Trouble> {
        let cause = |serial: &u32| {
            let touch = fleet.touched.get(serial);
            touch.map_or_else(|| "it was touched by hand".to_owned(), ToString::to_string)
        };
        let lost = serials.iter().map(|serial| Loss { serial: *serial, cause: cause(serial) }).collect();
        let (at, new) = (self.now(), Vec::new());
        self.record(&Record::Replaced { at, fleet: fleet.id.clone(), lost, new })?;
        let ids: Vec<InstanceId> = serials.iter().map(|serial| fleet.id.instance(*serial)).collect();
        self.statuses.retain(|id, _| !ids.contains(id));
        for id in ids {
            self.begin_parting(&fleet.id, &fleet.release, id);
        }
        self.publish()
    }

    /// Instances that are no members any more and finish what they have.
    pub fn parting(&self) -> Vec<InstanceId> {
        self.parting.0.keys().cloned().collect()
    }

    /// An instance that is no member any more: it gets nothing new, and what it has it may finish.
    pub(super) fn begin_parting(&mut self, fleet: &FleetId, release: &kiln_model::ReleaseId, id: InstanceId) {
        let release = self.releases.get(release);
        let port = release.and_then(|r| r.services.get(&fleet.service)).map_or(0, |s| s.port);
        let until = self.now().after(release.map_or(Millis(0), |r| r.drain));
        self.parting.0.insert(id, Parted { port, until });
    }

    /// Whether an instance was a member of a fleet that serves: it may still have something to finish.
    pub(super) fn adopt_parting(&mut self, id: &InstanceId) -> bool {
        let was_its = |f: &&Fleet| {
            let serial = id.as_str().rsplit_once('-').and_then(|(_, serial)| serial.parse().ok());
            f.phase.is_in_table() && serial.is_some_and(|s| s <= f.last_serial && f.id.instance(s) == *id)
        };
        let fleet = self.past.apps.values().flat_map(|s| s.fleets.values()).find(was_its);
        let Some((fleet, release)) = fleet.map(|f| (f.id.clone(), f.release.clone())) else { return false };
        self.begin_parting(&fleet, &release, id.clone());
        true
    }

    /// Ends those that have nothing left to finish, or no more time. When to look again.
    pub(super) fn part(&mut self) -> Result<Option<Timestamp>, Trouble> {
        // Only an edge that has acknowledged a table without them gives them nothing new.
        if self.parting.0.is_empty() || self.published.is_none() {
            return Ok(None);
        }
        let now = self.now();
        let has_finished = |id: &InstanceId, parted: &Parted| {
            match self.world.engine.connections(id, parted.port) {
                Ok(open) => open == 0,
                // It has ended by itself.
                Err(EngineError::NoSuchInstance(_)) => true,
                Err(_) => false,
            }
        };
        let is_done = |(id, parted): &(&InstanceId, &Parted)| now >= parted.until || has_finished(id, parted);
        let done: Vec<InstanceId> = self.parting.0.iter().filter(is_done).map(|(id, _)| id.clone()).collect();
        if !done.is_empty() {
            between("stop", || self.world.engine.stop(&done)).map_err(|e| Trouble::of(&e))?;
            self.parting.0.retain(|id, _| !done.contains(id));
            self.strays.extend(done);
        }
        let look = (!self.parting.0.is_empty()).then(|| now.after(LOOK));
        Ok(earlier(look, self.parting.0.values().map(|p| p.until).min()))
    }
}
