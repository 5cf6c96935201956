//! Who took the place of instances that are no more, as far as anybody knows.
//!
//! The log says who is to, and before he is made his fleet may have been given up. That he was made follows from what the
//! log says later, or from his being there now.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{Action, Ending, FleetId, Generation, InstanceId, Loss, Plan, Record};

/// What became of the place of an instance that is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Succession {
    /// Nobody was to take it.
    Vacant,
    /// He was made, and has it.
    Taken(InstanceId),
    /// He is to be made.
    Promised(InstanceId),
    /// He was to be made when the operation that made the fleet failed or was superseded.
    GivenUp(InstanceId),
    /// He was to be made, and the fleet has gone since: nobody wrote down whether he was.
    Gone(InstanceId),
}

/// Who was to take whose place, and what is known of him.
#[derive(Debug, Default)]
pub(super) struct Successors {
    /// Of those under way.
    plans: BTreeMap<Generation, Plan>,
    switched: BTreeSet<Generation>,
    given_up: BTreeSet<Generation>,
    gone: BTreeSet<FleetId>,
    heirs: BTreeMap<(FleetId, u32), u32>,
    made: BTreeSet<(FleetId, u32)>,
    lost: BTreeSet<(FleetId, u32)>,
}

impl Successors {
    /// What became of the place that `serial` had in `fleet`, if these are `there` now.
    pub(super) fn place(&self, fleet: &FleetId, serial: u32, there: &BTreeSet<InstanceId>) -> Succession {
        let Some(heir) = self.heirs.get(&(fleet.clone(), serial)).copied() else { return Succession::Vacant };
        let id = fleet.instance(heir);
        if there.contains(&id) || self.made.contains(&(fleet.clone(), heir)) {
            Succession::Taken(id)
        } else if self.given_up.contains(&fleet.generation) {
            Succession::GivenUp(id)
        } else if self.gone.contains(fleet) {
            Succession::Gone(id)
        } else {
            Succession::Promised(id)
        }
    }

    /// Takes account of the next entry.
    pub(super) fn learn(&mut self, record: &Record) {
        match record {
            Record::Begun { plan, .. } => drop(self.plans.insert(plan.generation, plan.clone())),
            Record::Outcome { generation, step, .. } => self.step_done(*generation, *step),
            Record::Ended { generation, ending, .. } => self.ended(*generation, ending),
            Record::Replaced { fleet, lost, new, .. } => self.replaced(fleet, lost, new),
            Record::Reinforced { fleet, touched, new, .. } => {
                let stand_ins = touched.iter().zip(new);
                self.heirs.extend(stand_ins.map(|(serial, new)| ((fleet.clone(), *serial), *new)));
            }
            Record::Renumbered { fleet, gone, new, .. } => self.renumbered(fleet, gone, new),
            _ => {}
        }
    }

    fn ended(&mut self, generation: Generation, ending: &Ending) {
        self.plans.remove(&generation);
        if !matches!(ending, Ending::Done) && !self.switched.contains(&generation) {
            self.given_up.insert(generation);
        }
    }

    fn step_done(&mut self, generation: Generation, step: usize) {
        let plan = self.plans.get(&generation);
        match plan.and_then(|plan| plan.steps.get(step)).map(|step| step.action.clone()) {
            Some(Action::Provision { fleet, .. }) => self.is_whole(&fleet),
            Some(Action::AwaitHealthy { fleets, .. }) => fleets.iter().for_each(|f| self.is_whole(f)),
            Some(Action::Switch { fleets, .. }) => {
                self.switched.insert(generation);
                fleets.iter().for_each(|f| self.is_whole(f));
            }
            Some(Action::Retire { fleets }) => self.gone.extend(fleets),
            _ => {}
        }
    }

    /// Every member of a fleet is there.
    fn is_whole(&mut self, fleet: &FleetId) {
        let heirs = self.heirs.range((fleet.clone(), 0)..=(fleet.clone(), u32::MAX));
        self.made.extend(heirs.map(|(_, heir)| (fleet.clone(), *heir)));
    }

    /// Who has a stand-in already gets no other successor.
    fn replaced(&mut self, fleet: &FleetId, lost: &[Loss], new: &[u32]) {
        let mut new = new.iter();
        for loss in lost {
            let place = (fleet.clone(), loss.serial);
            // Nobody can be lost who was never made.
            self.made.insert(place.clone());
            if !self.heirs.contains_key(&place) {
                match new.next() {
                    Some(heir) => {
                        self.heirs.insert(place.clone(), *heir);
                    }
                    // A stand-in of one who stays.
                    None => {
                        let lost = &self.lost;
                        self.heirs
                            .retain(|of, heir| of.0 != *fleet || *heir != loss.serial || lost.contains(of));
                    }
                }
            }
            self.lost.insert(place);
        }
    }

    /// Others are to be made in the place of members of whom nobody knows whether they were.
    fn renumbered(&mut self, fleet: &FleetId, gone: &[u32], new: &[u32]) {
        let place = |serial: u32| (fleet.clone(), serial);
        let alone = gone.iter().filter(|serial| !self.heirs.contains_key(&place(**serial)));
        let others: BTreeMap<u32, u32> = alone.copied().zip(new.iter().copied()).collect();
        for (_, heir) in self.heirs.range_mut(place(0)..=place(u32::MAX)) {
            *heir = others.get(heir).copied().unwrap_or(*heir);
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::{AppName, Author, OperationKind, Step, Timestamp};

    use super::*;

    const AT: Timestamp = Timestamp(1);

    fn app() -> AppName {
        "shop".parse().unwrap()
    }

    fn fleet() -> FleetId {
        FleetId { app: app(), service: "web".parse().unwrap(), generation: Generation(7) }
    }

    fn release() -> kiln_model::ReleaseId {
        "r-00000000000000000000000000000000".parse().unwrap()
    }

    fn begun() -> Record {
        let actions = [
            Action::Provision { fleet: fleet(), release: release(), size: 2 },
            Action::Switch { release: release(), fleets: vec![fleet()] },
        ];
        planned(7, OperationKind::Deploy, actions.into())
    }

    fn planned(generation: u64, kind: OperationKind, actions: Vec<Action>) -> Record {
        let steps = actions.into_iter().map(|action| Step { action, why: String::new() }).collect();
        let (generation, to) = (Generation(generation), Some(release()));
        let (from, parent, leaves) = (None, None, None);
        let plan = Plan { generation, parent, app: app(), kind, from, to, steps, leaves };
        Record::Begun { at: AT, by: Author::kiln(), plan }
    }

    fn done(step: usize) -> Record {
        done_of(7, step)
    }

    fn done_of(generation: u64, step: usize) -> Record {
        Record::Outcome { at: AT, app: app(), generation: Generation(generation), step, note: None }
    }

    fn replaced(lost: &[u32], new: &[u32]) -> Record {
        let lost = lost.iter().map(|serial| Loss { serial: *serial, cause: "it fell".into() }).collect();
        Record::Replaced { at: AT, fleet: fleet(), lost, new: new.into() }
    }

    fn failed() -> Record {
        let ending = Ending::Failed { step: "provision".into(), cause: "of all".into() };
        Record::Ended { at: AT, app: app(), generation: Generation(7), ending }
    }

    fn place(records: &[Record], serial: u32) -> Succession {
        place_beside(records, serial, BTreeSet::new())
    }

    fn place_beside(records: &[Record], serial: u32, there: BTreeSet<InstanceId>) -> Succession {
        let mut successors = Successors::default();
        records.iter().for_each(|record| successors.learn(record));
        successors.place(&fleet(), serial, &there)
    }

    fn member(serial: u32) -> InstanceId {
        fleet().instance(serial)
    }

    #[test]
    fn who_was_to_come_when_all_was_given_up_took_nobodys_place() {
        let mut log = vec![begun(), replaced(&[1, 2], &[3, 4]), replaced(&[3], &[5])];
        assert_eq!(place(&log, 1), Succession::Taken(member(3)), "he was lost himself, so he was there");
        assert_eq!(place(&log, 3), Succession::Promised(member(5)));
        assert_eq!(place(&log, 4), Succession::Vacant, "he is not lost");
        let there = place_beside(&log, 3, [member(5)].into());
        assert_eq!(there, Succession::Taken(member(5)), "he is there");
        log.push(failed());
        assert_eq!(place(&log, 3), Succession::GivenUp(member(5)));
        assert_eq!(place(&log, 2), Succession::GivenUp(member(4)));
        assert_eq!(place(&log, 1), Succession::Taken(member(3)));
    }

    #[test]
    fn who_serves_was_made() {
        let mut log = vec![begun(), replaced(&[1], &[3]), done(0), replaced(&[2], &[4])];
        assert_eq!(
            [place(&log, 1), place(&log, 2)],
            [Succession::Taken(member(3)), Succession::Promised(member(4))]
        );
        log.push(done(1));
        assert_eq!(place(&log, 2), Succession::Taken(member(4)));
        let by = Generation(8);
        let ending = Ending::Superseded { by };
        log.push(replaced(&[3], &[5]));
        log.push(Record::Ended { at: AT, app: app(), generation: Generation(7), ending });
        assert_eq!(place(&log, 3), Succession::Promised(member(5)), "it serves on");
        log.push(planned(8, OperationKind::Retire, vec![Action::Retire { fleets: vec![fleet()] }]));
        log.push(done_of(8, 0));
        assert_eq!(place(&log, 3), Succession::Gone(member(5)));
    }

    #[test]
    fn a_stand_in_that_was_no_better_off_takes_nobodys_place() {
        let reinforced = Record::Reinforced { at: AT, fleet: fleet(), touched: vec![1], new: vec![3] };
        let log = [begun(), reinforced, replaced(&[3], &[]), replaced(&[1], &[4])];
        assert_eq!([place(&log, 3), place(&log, 1)], [Succession::Vacant, Succession::Promised(member(4))]);
    }

    #[test]
    fn who_has_a_stand_in_needs_no_other() {
        let fleet = fleet();
        let reinforced = Record::Reinforced { at: AT, fleet: fleet.clone(), touched: vec![1], new: vec![3] };
        let mut log = vec![begun(), reinforced, replaced(&[1, 2], &[4])];
        assert_eq!(
            [place(&log, 1), place(&log, 2)],
            [Succession::Promised(member(3)), Succession::Promised(member(4))]
        );
        log.push(Record::Renumbered { at: AT, fleet, gone: vec![3, 4], new: vec![5, 6] });
        assert_eq!(
            [place(&log, 1), place(&log, 2)],
            [Succession::Promised(member(5)), Succession::Promised(member(6))]
        );
    }
}
