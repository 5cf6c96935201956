//! Fleets of which no member is well: is it the program, which another instance would mend, or the probe, which none would?
//!
//! ```text
//!   all unwell for start_timeout ── a stand-in is made for one ──┬─ it is healthy: that one goes, then the others
//!                                                                ├─ it is not within start_timeout: it goes itself; again later
//!                                                                └─ that one is healthy again: it goes itself
//! ```
//! So nobody is ended for a probe that fails everywhere, and a fleet that hangs as a whole is replaced all the same.

use kiln_model::{
    Event, Fleet, FleetId, FleetPhase, InstanceId, InstanceState, Loss, Millis, Record, StandIn, Timestamp,
    Waiting,
};

use super::{Core, earlier};
use crate::world::Trouble;

/// The longest time between two attempts.
const LONGEST: Millis = Millis(600_000);

impl Core {
    /// Makes a stand-in where no member is well, and lets it go if it is of no use. What it is good for is done where members
    /// are replaced that are lost: as soon as it is well, the others are.
    pub(super) fn try_stand_in(&mut self, id: &FleetId) -> Result<(), Trouble> {
        let fleet = self.past.apps.get(&id.app).and_then(|s| s.fleets.get(id)).cloned();
        match fleet.map(|fleet| (fleet.stand_in, fleet)) {
            Some((Some(stand_in), fleet)) => self.judge_stand_in(&fleet, stand_in),
            Some((None, fleet)) => self.make_stand_in(&fleet),
            None => Ok(()),
        }
    }

    fn judge_stand_in(&mut self, fleet: &Fleet, stand_in: StandIn) -> Result<(), Trouble> {
        let (member, id) = (fleet.id.instance(stand_in.member), fleet.id.instance(stand_in.serial));
        let cause = match self.loss(fleet, &id) {
            _ if self.health_view().0.contains(&member) => {
                format!("{member}, which it stood in for, is healthy again")
            }
            Some(cause) => {
                format!("{cause}; nor was {member}, so the health check is at fault, or the release")
            }
            None => return Ok(()),
        };
        let (at, new) = (self.now(), Vec::new());
        let lost = vec![Loss { serial: stand_in.serial, cause: cause.clone() }];
        self.record(&Record::Replaced { at, fleet: fleet.id.clone(), lost, new })?;
        self.tell_app(&fleet.id.app, Event::InstanceLost { instance: id.clone(), cause });
        // It may have had requests, if it was well.
        if self.statuses.remove(&id).is_some() {
            self.begin_parting(&fleet.id, &fleet.release, id);
        }
        Ok(())
    }

    fn make_stand_in(&mut self, fleet: &Fleet) -> Result<(), Trouble> {
        let now = self.now();
        if self.next_stand_in(fleet).is_none_or(|at| at > now) {
            return Ok(());
        }
        let Some(member) = self.first_unwell(fleet) else { return Ok(()) };
        let new = vec![fleet.last_serial + 1];
        self.record(&Record::Reinforced { at: now, fleet: fleet.id.clone(), touched: vec![member], new })
    }

    /// The member a stand-in is made for: nobody who is being touched or goes anyway.
    fn first_unwell(&self, fleet: &Fleet) -> Option<u32> {
        let is_free =
            |serial: &u32| !fleet.touched.contains_key(serial) && !fleet.reinforced.contains(serial);
        let mut running = fleet.instances().filter(|(_, id)| self.runs(id)).map(|(serial, _)| serial);
        running.find(is_free)
    }

    fn runs(&self, id: &InstanceId) -> bool {
        self.statuses.get(id).is_some_and(|s| matches!(s.state, InstanceState::Running { .. }))
    }

    /// When a stand-in is due, if none of those that run is well: when all have had the time there is to become it again,
    /// and the last stand-ins that were of no use are long enough ago.
    fn next_stand_in(&self, fleet: &Fleet) -> Option<Timestamp> {
        if fleet.phase != FleetPhase::Live || fleet.stand_in.is_some() || self.health_view().ready(fleet) > 0
        {
            return None;
        }
        let patience = self.service(&fleet.id)?.start_timeout;
        let running = fleet.instances().filter(|(_, id)| self.runs(id));
        let due = running.map(|(_, id)| Some(self.unwell_since(&id)?.after(patience)));
        let due = due.collect::<Option<Vec<_>>>()?.into_iter().max()?;
        let again = fleet.futile.as_ref().map(|futile| futile.at.after(wait(patience, futile.count)));
        Some(again.map_or(due, |again| again.max(due)))
    }

    /// When the next one is due of all fleets, if that is to come.
    pub(super) fn stand_ins_due(&self) -> Option<Timestamp> {
        let now = self.now();
        let fleets = self.past.apps.values().flat_map(|s| s.fleets.values());
        let due = fleets.filter_map(|fleet| self.next_stand_in(fleet)).filter(|at| *at > now);
        due.fold(None, |next, at| earlier(next, Some(at)))
    }

    /// Why members of a fleet that serves are not ready: those that answer, and not well; and what is done about it.
    pub(super) fn unwell(&self, fleet: &Fleet) -> Option<Waiting> {
        let is_member = |serial: &u32| fleet.stand_in.is_none_or(|stand_in| stand_in.serial != *serial);
        let unwell = |id: InstanceId| {
            let condition = self.conditions.get(&id).filter(|c| !c.healthy)?;
            Some((id, condition.since, condition.last_problem.clone()?))
        };
        let members = fleet.instances().filter(|(serial, _)| is_member(serial));
        let unwell: Vec<_> = members.filter_map(|(_, id)| unwell(id)).collect();
        let (id, since, problem) = unwell.first()?;
        let (done, until) = self.done_about(fleet).unzip();
        let what = format!(
            "{} of {} instances of {} to be healthy again; {id}: {problem}{}",
            unwell.len(),
            fleet.size(),
            fleet.id.service,
            done.map_or_else(String::new, |done| format!("; {done}")),
        );
        Some(Waiting { what, since: *since, until })
    }

    /// What is done about a fleet of which no member is well, and when that is decided or begins.
    fn done_about(&self, fleet: &Fleet) -> Option<(String, Timestamp)> {
        if let Some(stand_in) = fleet.stand_in {
            let (id, member) = (fleet.id.instance(stand_in.serial), fleet.id.instance(stand_in.member));
            let since = self.unwell_since(&id).unwrap_or_else(|| self.now());
            let until = since.after(self.service(&fleet.id)?.start_timeout);
            return Some((format!("{id} takes the place of {member} if it is healthy"), until));
        }
        let at = self.next_stand_in(fleet)?;
        let Some(futile) = &fleet.futile else {
            return Some((
                "none of them is, so a stand-in is made to see whether another one would be".into(),
                at,
            ));
        };
        let tried = match futile.count {
            1 => "a stand-in was no better off".to_owned(),
            count => format!("{count} stand-ins were no better off, the last one"),
        };
        let next =
            "nobody is ended for that; correct the health check, or `kiln rollback`; the next one is made";
        Some((format!("{tried} ({}); {next}", futile.cause), at))
    }
}

/// How long after that many stand-ins that were no better off the next one is made.
fn wait(patience: Millis, count: u32) -> Millis {
    let longer = patience.0.max(1_000).saturating_mul(1 << count.saturating_sub(1).min(16));
    Millis(longer.min(LONGEST.0.max(patience.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_become_rarer_and_never_cease() {
        let waits: Vec<u64> = (1..=7).map(|count| wait(Millis(30_000), count).0 / 1000).collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600]);
        assert_eq!(wait(Millis(900_000), u32::MAX), Millis(900_000));
        assert_eq!(wait(Millis(0), 1), Millis(1_000));
    }
}
