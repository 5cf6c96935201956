//! Why a fleet is not as it should be, for people.

use std::collections::BTreeMap;

use kiln_model::{Fleet, InstanceId};

use super::Core;
use crate::condition::Condition;

impl Core {
    /// What was wrong with the last answer of a member that is not healthy, or why the last one was lost.
    pub(super) fn last_problem(&self, fleet: &Fleet) -> Option<String> {
        let members = fleet.instances().map(|(_, id)| id);
        last(members, &self.conditions, fleet.last_loss.as_deref())
    }
}

fn last(
    mut members: impl Iterator<Item = InstanceId>,
    conditions: &BTreeMap<InstanceId, Condition>,
    last_loss: Option<&str>,
) -> Option<String> {
    let unwell = |id: &InstanceId| conditions.get(id).filter(|c| !c.healthy);
    let of = |id: InstanceId| unwell(&id)?.last_problem.clone().map(|problem| format!("{id}: {problem}"));
    // One that was made just now in the place of one that was lost has not been asked yet.
    members.find_map(of).or_else(|| last_loss.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use kiln_model::Timestamp;

    use super::*;

    #[test]
    fn a_fleet_that_is_not_well_always_has_a_reason() {
        let members = || ["a-web-1-1", "a-web-1-2"].map(|id| id.parse().unwrap()).into_iter();
        let condition = |healthy, problem: Option<&str>| {
            let last_problem = problem.map(str::to_owned);
            Condition { last_problem, ..Condition::presumed(healthy, Timestamp(0)) }
        };
        let of = |first, second, loss| last(members(), &members().zip([first, second]).collect(), loss);
        let (well, unasked) = (condition(true, None), condition(false, None));
        let asked = condition(false, Some("port 80: connection refused"));
        let answered = of(well.clone(), asked.clone(), Some("it exited with code 1"));
        assert_eq!(answered.as_deref(), Some("a-web-1-2: port 80: connection refused"));
        assert_eq!(of(unasked.clone(), asked, None), answered);
        // Made just now, in the place of one that was lost.
        assert_eq!(
            of(well, unasked, Some("it exited with code 1")).as_deref(),
            Some("it exited with code 1")
        );
    }
}
