//! Whether members of fleets are given up for good reasons.

use kiln_model::{FleetId, InstanceId, Record};

use super::ground::Truth;
use super::world::prefix;

impl Truth {
    /// Members are given up: those that ended or did not answer, and nobody else but a stand-in that is not needed any
    /// more. For a probe that fails everywhere nobody is given up who was there before.
    pub(super) fn judge_loss(&mut self, record: &Record) {
        let Record::Replaced { fleet, lost, .. } = record else { return };
        for loss in lost {
            let id = fleet.instance(loss.serial);
            let member = self.judge.stand_ins.get(&id);
            // As its condition has it: that it has died since is not known yet.
            let is_well = |of: &InstanceId| self.conditions.get(of).is_some_and(|c| c.healthy);
            let superfluous = member.is_some_and(is_well);
            if !self.seems_unwell(&id) && !superfluous {
                self.judge.find(format!("{id} is well and is given up: {}", loss.cause));
            } else if member.is_none() && self.is_as_all_are(fleet, &id) {
                self.judge
                    .find(format!("{id} is given up and nobody of {fleet} is better off: {}", loss.cause));
            }
            self.judge.lost.insert(id);
        }
    }

    /// Whether one runs and gets requests as all of its fleet do, for none of them seems well.
    fn is_as_all_are(&self, fleet: &FleetId, id: &InstanceId) -> bool {
        let targets = self.edge.table.routes.iter().flat_map(|r| &r.targets);
        let serves = self.edge.is_up && targets.filter(|t| t.weight > 0).any(|t| t.fleet == *fleet);
        let is_member =
            |id: &InstanceId| id.as_str().rsplit_once('-').is_some_and(|(p, _)| p == prefix(fleet));
        serves && self.runs(id) && !self.conditions.iter().any(|(id, c)| c.healthy && is_member(id))
    }
}
