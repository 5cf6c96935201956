//! Waiting for what an engine tells.

use std::time::{Duration, Instant};

use kiln_engine::Engine;
use kiln_model::{Exit, InstanceId, InstanceOrder, InstanceState, InstanceStatus};

use super::{Harness, Program};

/// The longest that anything may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Creates one instance.
pub(super) fn create_one(
    harness: &dyn Harness,
    id: &str,
    program: Program,
) -> (InstanceOrder, InstanceStatus) {
    let order = harness.order(id, program);
    let mut statuses = harness.engine().create(std::slice::from_ref(&order)).expect("an engine that answers");
    assert_eq!(statuses.len(), 1, "one status per order");
    (order, statuses.remove(0))
}

/// Creates one instance that runs.
pub(super) fn run_one(harness: &dyn Harness, id: &str, program: Program) -> InstanceId {
    let (order, status) = create_one(harness, id, program);
    assert!(matches!(status.state, InstanceState::Running { .. }), "{status:?}");
    harness.wait_until_ready(&order.id, program);
    order.id
}

/// Waits until the engine has told how an instance ended.
pub(super) fn ending(engine: &dyn Engine, id: &InstanceId) -> Exit {
    let is_ended = |s: &InstanceStatus| matches!(&s.state, InstanceState::Ended { .. });
    match until(engine, |s| s.id == *id && is_ended(s)).state {
        InstanceState::Ended { exit } => exit,
        other => unreachable!("{other:?}"),
    }
}

/// Waits until the engine tells something that is wanted.
pub(super) fn until(engine: &dyn Engine, is_wanted: impl Fn(&InstanceStatus) -> bool) -> InstanceStatus {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let changes = engine.changes(Duration::from_secs(5)).expect("an engine that answers");
        if let Some(wanted) = changes.into_iter().find(&is_wanted) {
            return wanted;
        }
    }
    panic!("the engine did not tell what was waited for; it has {:?}", engine.list());
}

/// The status of an instance in the list.
pub(super) fn listed(engine: &dyn Engine, id: &InstanceId) -> Option<InstanceStatus> {
    engine.list().expect("an engine that answers").into_iter().find(|s| s.id == *id)
}
