//! Answers that are owed.

use std::time::Instant;

use kiln_model::{Exit, InstanceId, InstanceState, InstanceStatus, Timestamp};

use super::super::wire::{Answer, Cursor};
use super::register::Register;

/// A request that is answered when something has happened.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Who asked.
    pub(super) conversation: u64,
    /// The number of the request.
    pub(super) number: u64,
    /// What has to happen.
    pub(super) until: Until,
}

/// What an answer waits for.
#[derive(Debug)]
pub(super) enum Until {
    /// All these run or have failed to.
    Settled(Vec<InstanceId>),
    /// Nothing is left of these. By number: an instance of the same id may have been ordered since.
    Gone(Vec<u64>),
    /// Something has changed, or the time has come.
    Changed(Cursor, Instant),
}

impl Waiting {
    /// The answer, if it is time for it.
    pub(super) fn answer(
        &self,
        register: &Register,
        is_there: impl Fn(u64) -> bool,
        now: Instant,
    ) -> Option<Answer> {
        match &self.until {
            Until::Settled(ids) => settled(register, ids).map(Answer::Statuses),
            Until::Gone(numbers) => (!numbers.iter().any(|n| is_there(*n))).then_some(Answer::Done),
            Until::Changed(since, deadline) => {
                let (statuses, until) = register.changes(*since);
                (!statuses.is_empty() || now >= *deadline).then_some(Answer::Changes { statuses, until })
            }
        }
    }
}

fn settled(register: &Register, ids: &[InstanceId]) -> Option<Vec<InstanceStatus>> {
    ids.iter()
        .map(|id| if register.knows(id) { register.status(id).cloned() } else { Some(forgotten(id)) })
        .collect()
}

/// Of an instance that ended and was forgotten while somebody else still waited for it.
fn forgotten(id: &InstanceId) -> InstanceStatus {
    InstanceStatus {
        id: id.clone(),
        state: InstanceState::Ended { exit: Exit::Unknown },
        since: Timestamp(0),
        full: Vec::new(),
    }
}
