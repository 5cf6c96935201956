//! What an engine tells of its instances.

use std::time::{Duration, Instant};

use kiln_model::{InstanceState, InstanceStatus};

use super::watch::{ending, listed, run_one};
use super::{Case, Harness, Program};

pub(super) const CASES: &[Case] = &[
    ("the list is sorted by id", sorted),
    ("changes come once, in the order in which they came about", changes_in_order),
    ("no changes are told when the time is over", no_changes),
    ("who waits for changes can be called back", call_back),
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

fn call_back(harness: &dyn Harness) {
    const LONG: Duration = Duration::from_secs(60);
    let (engine, begun) = (harness.engine(), Instant::now());
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| engine.changes(LONG).unwrap());
        engine.call_back();
        assert_eq!(waits.join().unwrap(), []);
    });
    // Also before anybody waits, and once.
    engine.call_back();
    assert_eq!(engine.changes(LONG).unwrap(), []);
    assert!(begun.elapsed() < LONG, "nobody has come back before the time was over");
    let id = run_one(harness, "a", Program::Runs);
    assert_eq!(names(&told(harness)), [id.as_str()], "nothing is lost by it");
}

fn forget(harness: &dyn Harness) {
    let engine = harness.engine();
    let ids = ["a", "b"].map(|id| run_one(harness, id, Program::Runs));
    engine.kill(&ids[..1]).unwrap();
    ending(engine, &ids[0]);
    engine.forget(&[ids[0].clone(), ids[1].clone(), "nobody".parse().unwrap()]).unwrap();
    assert_eq!(names(&engine.list().unwrap()), ["b"]);
}
