//! Ends of instances.

use kiln_model::{Exit, InstanceState};

use super::watch::{create_one, ending, listed, run_one, until};
use super::{Case, Harness, Program};

pub(super) const CASES: &[Case] = &[
    ("the code of a program is reported", codes),
    ("the signal that ended a program is reported", signals),
    ("running out of memory is reported as such", out_of_memory),
    ("a program ends when it is asked to", stop),
    ("a program that does nothing about signals ends when it is asked to", stop_without_handler),
    ("a program that goes on is killed when its time is over", stop_with_grace),
    ("a kill is immediate, and everything is gone when it returns", kill),
    ("unknown and ended instances are passed over", unknown),
];

fn codes(harness: &dyn Harness) {
    for code in [0, 1, 255] {
        let (order, _) = create_one(harness, &format!("code-{code}"), Program::Exits(code));
        assert_eq!(ending(harness.engine(), &order.id), Exit::Code { code: code.into() });
    }
}

fn signals(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::Runs);
    harness.kill_unseen(&id);
    assert_eq!(ending(harness.engine(), &id), Exit::Signal { signal: 9 });
}

fn out_of_memory(harness: &dyn Harness) {
    let (order, _) = create_one(harness, "glutton", Program::EatsMemory);
    let limit = order.limits.memory;
    assert_eq!(ending(harness.engine(), &order.id), Exit::OutOfMemory { limit });
}

fn stop(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::HandlesStop);
    harness.engine().stop(std::slice::from_ref(&id)).unwrap();
    let exit = ending(harness.engine(), &id);
    assert!(matches!(exit, Exit::Code { .. } | Exit::Signal { signal: 15 }), "{exit:?}");
}

/// Its grace period, which is longer than any test waits, is not used up.
fn stop_without_handler(harness: &dyn Harness) {
    let mut order = harness.order("a", Program::Runs);
    order.run.stop_grace = kiln_model::Millis(3_600_000);
    harness.engine().create(std::slice::from_ref(&order)).unwrap();
    harness.engine().stop(std::slice::from_ref(&order.id)).unwrap();
    assert!(matches!(ending(harness.engine(), &order.id), Exit::Signal { .. }));
}

fn stop_with_grace(harness: &dyn Harness) {
    let mut order = harness.order("a", Program::IgnoresStop);
    order.run.stop_grace = kiln_model::Millis(200);
    harness.engine().create(std::slice::from_ref(&order)).unwrap();
    harness.wait_until_ready(&order.id, Program::IgnoresStop);
    harness.engine().stop(&[order.id.clone(), order.id.clone()]).unwrap();
    let stopping = until(harness.engine(), |s| s.id == order.id && !is_running(&s.state));
    if matches!(stopping.state, InstanceState::Stopping { .. }) {
        harness.grace_is_over(&order.id);
        assert_eq!(ending(harness.engine(), &order.id), Exit::Signal { signal: 9 });
    }
}

fn is_running(state: &InstanceState) -> bool {
    matches!(state, InstanceState::Running { .. })
}

fn kill(harness: &dyn Harness) {
    let ids = [run_one(harness, "a", Program::IgnoresStop), run_one(harness, "b", Program::Runs)];
    harness.engine().kill(&ids).unwrap();
    for id in &ids {
        let status = listed(harness.engine(), id).expect("ended ones are listed");
        assert_eq!(status.state, InstanceState::Ended { exit: Exit::Signal { signal: 9 } });
    }
}

fn unknown(harness: &dyn Harness) {
    let engine = harness.engine();
    let id = run_one(harness, "a", Program::Runs);
    engine.kill(std::slice::from_ref(&id)).unwrap();
    let before = engine.list().unwrap();
    let ids = [id, "nobody".parse().unwrap()];
    engine.stop(&ids).unwrap();
    engine.kill(&ids).unwrap();
    assert_eq!(engine.list().unwrap(), before);
}
