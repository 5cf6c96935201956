//! What the engine says exists, and what becomes of instances that belong to no fleet.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{
    Exit, Fleet, FleetId, FleetPhase, InstanceId, InstanceState, InstanceStatus, Record, Shortage, Timestamp,
};
use kiln_store::boundary::between;

use super::{Core, Past};
use crate::world::Trouble;

/// Whether the engine has said what exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acquaintance {
    /// It has not, and this core is new: whatever is no member was left by the one before.
    First,
    /// It has not: another process works there.
    Again,
    /// It has; members it does not know have yet to be given other ids.
    Listed,
    /// It has.
    Known,
}

/// Instances that belong to no fleet any more.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// They run, and are to be ended when the edge has let go of them.
    running: BTreeSet<InstanceId>,
    /// They have ended; nobody asks how any more.
    ended: BTreeSet<InstanceId>,
}

impl Strays {
    /// Takes note of one that is no member of a fleet. Those of checks are somebody else's; they come to their end there.
    fn note(&mut self, status: InstanceStatus, past: &Past) {
        if status.state.pid().is_none() {
            self.running.remove(&status.id);
            self.ended.insert(status.id);
        } else if past.had_member(&status.id) {
            self.running.insert(status.id);
        }
    }

    pub(super) fn extend(&mut self, ids: impl IntoIterator<Item = InstanceId>) {
        self.running.extend(ids);
    }
}

impl Core {
    /// Takes account of changes, in the order in which the engine tells of them.
    pub fn observe(&mut self, changes: Vec<InstanceStatus>) {
        for change in &changes {
            if let Some(known) = self.statuses.get_mut(&change.id).filter(|k| k.state == change.state) {
                known.shortage = change.shortage.clone();
            }
        }
        self.meet(changes);
    }

    /// Takes account of what the engine answers, in whatever order that arrives: changes since may have been told before.
    pub(super) fn meet(&mut self, statuses: Vec<InstanceStatus>) {
        let (members, now) = (self.member_ids(), self.now());
        for mut status in statuses {
            // The engine has a clock of its own, and the host's may have been set in between.
            status.since = status.since.min(now);
            if !members.contains(&status.id) {
                self.note_stray(status);
            } else if self
                .statuses
                .get(&status.id)
                .is_none_or(|known| status.state.is_later_than(&known.state))
            {
                self.statuses.insert(status.id.clone(), status);
            }
        }
    }

    /// One that finishes what it has is not ended for being no member any more.
    pub(super) fn note_stray(&mut self, status: InstanceStatus) {
        if status.state.pid().is_none() || !self.parting().contains(&status.id) {
            self.strays.note(status, &self.past);
        }
    }

    /// Forgets what was believed of instances: another keeper works now.
    pub fn engine_is_new(&mut self) {
        self.acquaintance = Acquaintance::Again;
    }

    /// Whether the engine has said what exists since it was last in doubt.
    pub(super) fn knows_what_exists(&self) -> bool {
        self.acquaintance == Acquaintance::Known
    }

    /// Every instance that should exist: members of fleets, and those in which hooks run.
    pub(super) fn member_ids(&self) -> BTreeSet<InstanceId> {
        self.members().map(|(_, id)| id).chain(self.hook_instances()).collect()
    }

    /// Learns what exists. What is not there any more has ended, nobody knows how; what belongs to no fleet is left
    /// over from something that was given up.
    pub(super) fn get_acquainted(&mut self) -> Result<(), Trouble> {
        match self.acquaintance {
            Acquaintance::Known | Acquaintance::Listed => return Ok(()),
            Acquaintance::First | Acquaintance::Again => {}
        }
        let listed = self.world.engine.list().map_err(|e| Trouble::of(&e))?;
        let there: BTreeSet<InstanceId> = listed.iter().map(|s| s.id.clone()).collect();
        let now = self.now();
        for (id, status) in self.statuses.iter_mut().filter(|(id, _)| !there.contains(*id)) {
            let state = InstanceState::Ended { exit: Exit::Unknown };
            *status = InstanceStatus { id: id.clone(), state, since: now, shortage: Shortage::default() };
        }
        let members = self.member_ids();
        let (ours, strays): (Vec<_>, Vec<_>) = listed.into_iter().partition(|s| members.contains(&s.id));
        for stray in strays {
            match self.acquaintance {
                // Those of checks, too: whoever waited for them is dead.
                Acquaintance::First if stray.state.pid().is_some() => {
                    if !self.adopt_parting(&stray.id) {
                        self.strays.extend([stray.id]);
                    }
                }
                _ => self.note_stray(stray),
            }
        }
        match self.acquaintance {
            Acquaintance::First => self.presume(&ours),
            _ => self.presumed_healthy.retain(|id| there.contains(id)),
        }
        self.meet(ours);
        self.write_off();
        self.acquaintance = Acquaintance::Listed;
        Ok(())
    }

    /// Members of fleets that are being ended, and that are not there, have ended: a report from before that is
    /// still on its way must not bring them back.
    fn write_off(&mut self) {
        let ending = self
            .past
            .apps
            .values()
            .flat_map(|s| s.fleets.values())
            .filter(|f| f.phase == FleetPhase::Retiring);
        let ids: Vec<InstanceId> = ending.flat_map(|f| f.instances().map(|(_, id)| id)).collect();
        let since = self.now();
        for id in ids {
            let state = InstanceState::Ended { exit: Exit::Unknown };
            self.statuses.entry(id.clone()).or_insert(InstanceStatus {
                id,
                state,
                since,
                shortage: Shortage::default(),
            });
        }
    }

    /// Gives members the engine does not know other ids: they may have been made and be gone, and no id is used
    /// twice.
    pub(super) fn renumber(&mut self) -> Result<(), Trouble> {
        if self.acquaintance == Acquaintance::Known {
            return Ok(());
        }
        let unknown = |id: &InstanceId| !self.statuses.contains_key(id);
        let kept =
            self.past.apps.values().flat_map(|s| s.fleets.values()).filter(|f| f.phase.is_kept_whole());
        let renumbered: Vec<(FleetId, Vec<u32>, u32)> = kept
            .map(|f| {
                let gone: Vec<u32> =
                    f.instances().filter(|(_, id)| unknown(id)).map(|(serial, _)| serial).collect();
                let gaps = f.gaps(gone.iter().copied()).len();
                (f.id.clone(), gone, u32::try_from(gaps).unwrap_or(u32::MAX))
            })
            .filter(|(_, gone, _)| !gone.is_empty())
            .collect();
        for (fleet, gone, count) in renumbered {
            let last = self
                .past
                .apps
                .get(&fleet.app)
                .and_then(|s| s.fleets.get(&fleet))
                .map_or(0, |f| f.last_serial);
            let (at, new) = (self.now(), (last + 1..=last + count).collect());
            self.record(&Record::Renumbered { at, fleet, gone, new })?;
        }
        self.acquaintance = Acquaintance::Known;
        Ok(())
    }

    /// Of those that serve, the ones that were healthy at the switch, or have run for so long that they would have
    /// been given up if they were not, count as healthy until they say otherwise. Of a fleet that has yet to prove
    /// itself, of one that gets no new requests and may have to prove itself again before it does, and of members that
    /// were made just now, nothing is presumed.
    fn presume(&mut self, ours: &[InstanceStatus]) {
        let running = ours.iter().filter(|s| s.state.pid().is_some());
        let running: BTreeMap<&InstanceId, Timestamp> = running.map(|s| (&s.id, s.since)).collect();
        let mut presumed = BTreeSet::new();
        let serves = |f: &&Fleet| matches!(f.phase, FleetPhase::Live | FleetPhase::Canary);
        for fleet in self.past.apps.values().flat_map(|s| s.fleets.values()).filter(serves) {
            // Traffic is being switched to it, and was not yet: all of it is to be proved. Or none was well when the log was
            // last written.
            if fleet.proven.is_empty() || fleet.stand_in.is_some() {
                continue;
            }
            let Some(patience) = self.service(&fleet.id).map(|s| s.start_timeout) else { continue };
            // Whether anybody looked at it while no control plane was there is not known. Who has no release to fall
            // back on gets the benefit of the doubt; for a canary's users the old release answers.
            let tried =
                |since| fleet.phase != FleetPhase::Canary && Timestamp::after(since, patience) < self.now();
            let healthy = |serial, id: &InstanceId| {
                running.get(id).is_some_and(|since| fleet.proven.contains(&serial) || tried(*since))
            };
            presumed.extend(fleet.instances().filter(|(s, id)| healthy(*s, id)).map(|(_, id)| id));
        }
        self.announced.clone_from(&presumed);
        self.presumed_healthy = presumed;
    }

    /// Ends what belongs to no fleet, once the edge sends nothing there any more, and forgets what has ended.
    pub(super) fn end_strays(&mut self) -> Result<(), Trouble> {
        if !self.strays.running.is_empty() && !self.a_switch_is_due() {
            self.publish()?;
            let ids: Vec<InstanceId> = self.strays.running.iter().cloned().collect();
            between("stop", || self.world.engine.stop(&ids)).map_err(|e| Trouble::of(&e))?;
            // How they end is told by the engine; what has ended already is forgotten now.
            self.strays.running.clear();
            self.strays.ended.extend(ids);
        }
        if !self.strays.ended.is_empty() {
            let ids: Vec<InstanceId> = self.strays.ended.iter().cloned().collect();
            between("forget", || self.world.engine.forget(&ids)).map_err(|e| Trouble::of(&e))?;
            self.strays.ended.clear();
        }
        Ok(())
    }
}
