//! What an engine tells of its instances.

use std::time::Duration;

use kiln_model::{InstanceState, InstanceStatus};

use super::watch::{ending, listed, run_one};
use super::{Case, Harness, Program};

pub(super) const CASES: &[Case] = &[
    ("the list is sorted by id", sorted),
    ("changes come once, in the order in which they came about", changes_in_order),
    ("no changes are told when the time is over", no_changes),
    ("what is forgotten is unknown, and only what has ended is", forget),
];

fn sorted(harness: &dyn Harness) {
    for id in ["c", "a", "b"] {
        run_one(harness, id, Program::Runs);
    }
    let list = harness.engine().list().unwrap();
    assert!(list.iter().map(|s| s.id.as_str()).eq(["a", "b", "c"]));
}

fn changes_in_order(harness: &dyn Harness) {
    let engine = harness.engine();
    let ids = ["c", "a", "b"].map(|id| run_one(harness, id, Program::Runs));
    assert_eq!(names(&told(harness)), ["c", "a", "b"]);
    engine.kill(&ids[2..]).unwrap();
    engine.kill(&ids[..1]).unwrap();
    let ended = told(harness);
    assert_eq!(names(&ended), ["b", "c"]);
    assert!(ended.iter().all(|s| matches!(s.state, InstanceState::Ended { .. })));
    assert!(matches!(listed(engine, &ids[1]).unwrap().state, InstanceState::Running { .. }));
}

fn told(harness: &dyn Harness) -> Vec<InstanceStatus> {
    harness.engine().changes(Duration::from_secs(60)).unwrap()
}

fn names(statuses: &[InstanceStatus]) -> Vec<&str> {
    statuses.iter().map(|s| s.id.as_str()).collect()
}

fn no_changes(harness: &dyn Harness) {
    assert_eq!(harness.engine().changes(Duration::ZERO).unwrap(), []);
    assert_eq!(harness.engine().changes(Duration::from_millis(20)).unwrap(), []);
}

fn forget(harness: &dyn Harness) {
    let engine = harness.engine();
    let ids = ["a", "b"].map(|id| run_one(harness, id, Program::Runs));
    engine.kill(&ids[..1]).unwrap();
    ending(engine, &ids[0]);
    engine.forget(&[ids[0].clone(), ids[1].clone(), "nobody".parse().unwrap()]).unwrap();
    assert_eq!(names(&engine.list().unwrap()), ["b"]);
}
