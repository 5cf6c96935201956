//! Making instances.

use kiln_model::{Exit, InstanceState};

use super::watch::{create_one, listed, run_one};
use super::{Case, Harness, Program};

pub(super) const CASES: &[Case] = &[
    ("statuses come in the order of the orders", statuses_come_in_order),
    ("an order whose id is known makes nothing", a_known_id_makes_nothing),
    ("also when the instance has ended", an_ended_id_makes_nothing),
    ("one that cannot be started does not keep others from starting", one_failure_is_one),
    ("no orders are no instances", no_orders),
];

fn statuses_come_in_order(harness: &dyn Harness) {
    let orders = ["b", "c", "a"].map(|id| harness.order(id, Program::Runs));
    let statuses = harness.engine().create(&orders).unwrap();
    assert!(statuses.iter().map(|s| s.id.as_str()).eq(["b", "c", "a"]));
    let pids: Vec<_> = statuses.iter().filter_map(|s| s.state.pid()).collect();
    assert!(pids.len() == 3 && pids[0] != pids[1] && pids[1] != pids[2], "{statuses:?}");
}

fn a_known_id_makes_nothing(harness: &dyn Harness) {
    let (order, first) = create_one(harness, "a", Program::Runs);
    let again = harness.engine().create(&[order.clone(), order]).unwrap();
    assert_eq!(again, [first.clone(), first]);
    assert_eq!(harness.engine().list().unwrap().len(), 1);
}

fn an_ended_id_makes_nothing(harness: &dyn Harness) {
    let (order, _) = create_one(harness, "a", Program::Runs);
    harness.engine().kill(std::slice::from_ref(&order.id)).unwrap();
    let again = harness.engine().create(std::slice::from_ref(&order)).unwrap();
    assert!(matches!(again[0].state, InstanceState::Ended { .. }), "{again:?}");
    assert_eq!(listed(harness.engine(), &order.id).as_ref(), again.first());
}

fn one_failure_is_one(harness: &dyn Harness) {
    let programs = [("x", Program::Runs), ("missing", Program::Missing), ("z", Program::Runs)];
    let orders = programs.map(|(id, program)| harness.order(id, program));
    let statuses = harness.engine().create(&orders).unwrap();
    let InstanceState::Ended { exit: Exit::NotStarted { cause } } = &statuses[1].state else {
        panic!("{statuses:?}");
    };
    assert!(cause.contains("missing"), "the cause says what is missing: {cause}");
    assert!([0, 2].iter().all(|n| statuses[*n].state.pid().is_some()), "{statuses:?}");
    run_one(harness, "later", Program::Runs);
}

fn no_orders(harness: &dyn Harness) {
    assert_eq!(harness.engine().create(&[]).unwrap(), []);
    assert_eq!(harness.engine().list().unwrap(), []);
}
