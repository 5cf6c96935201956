//! Answers that are owed.

use std::time::Instant;

use kiln_model::{Exit, InstanceId, InstanceState, InstanceStatus, Shortage, Timestamp};

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
    /// All these run or have failed to; so many at the beginning are known to.
    Settled(Vec<InstanceId>, usize),
    /// Nothing is left of these. By number: an instance of the same id may have been ordered since.
    Gone(Vec<u64>),
    /// Something has changed, or the time has come.
    Changed(Cursor, Instant),
}

impl Waiting {
    /// The answer, if it is time for it.
    pub(super) fn answer(
        &mut self,
        register: &Register,
        is_there: impl Fn(u64) -> bool,
        now: Instant,
    ) -> Option<Answer> {
        match &mut self.until {
            Until::Settled(ids, known) => {
                // Thousands may be waited for; each turn asks for one, mostly.
                *known += ids[*known..].iter().take_while(|id| is_settled(register, id)).count();
                (*known == ids.len()).then(|| Answer::Statuses(settled(register, ids)))
            }
            Until::Gone(numbers) => (!numbers.iter().any(|n| is_there(*n))).then_some(Answer::Done),
            Until::Changed(since, deadline) => {
                let (statuses, until) = register.changes(*since);
                (!statuses.is_empty() || now >= *deadline).then_some(Answer::Changes { statuses, until })
            }
        }
    }
}

/// One that is not known any more was.
fn is_settled(register: &Register, id: &InstanceId) -> bool {
    register.status(id).is_some() || !register.knows(id)
}

fn settled(register: &Register, ids: &[InstanceId]) -> Vec<InstanceStatus> {
    ids.iter().map(|id| register.status(id).cloned().unwrap_or_else(|| forgotten(id))).collect()
}

/// Of an instance that ended and was forgotten while somebody else still waited for it.
fn forgotten(id: &InstanceId) -> InstanceStatus {
    InstanceStatus {
        id: id.clone(),
        state: InstanceState::Ended { exit: Exit::Unknown },
        since: Timestamp(0),
        shortage: Shortage::default(),
    }
}
