//! The host reaches a limit in the middle of a fleet: the right error, nothing left over, and nobody else harmed.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Bench, status_of};
use kiln_engine::Engine;
use kiln_model::{Exit, InstanceId, InstanceOrder, InstanceState, InstanceStatus};

fn sleepers(bench: &Bench, count: usize) -> Vec<InstanceOrder> {
    (0..count).map(|n| bench.image.order(&format!("a-{n}"), &["/bin/sleep", "1000"])).collect()
}

/// Those that run, and why the others do not.
fn sorted(statuses: &[InstanceStatus]) -> (Vec<(InstanceId, u32)>, Vec<String>) {
    let (mut running, mut causes) = (Vec::new(), Vec::new());
    for status in statuses {
        match &status.state {
            InstanceState::Running { pid } => running.push((status.id.clone(), *pid)),
            InstanceState::Ended { exit: Exit::NotStarted { cause } } => causes.push(cause.clone()),
            other => panic!("{}: {other:?}", status.id),
        }
    }
    (running, causes)
}

fn groups_of_instances(bench: &Bench) -> Vec<PathBuf> {
    let named = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("a-"));
    bench.groups().into_iter().filter(named).collect()
}

/// What ran goes on, what did not has left nothing, and when there is room again there are instances again.
fn recovers(bench: &Bench, running: &[(InstanceId, u32)]) {
    assert!(running.iter().all(|(_, pid)| status_of(*pid, "Pid").is_some()), "those that run are unharmed");
    let hierarchies = groups_of_instances(bench).len() / running.len();
    assert_eq!(
        groups_of_instances(bench).len(),
        hierarchies * running.len(),
        "no group is left of the others"
    );
    let (two, rest) = running.split_at(2);
    bench.engine.kill(&two.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>()).unwrap();
    bench.run(&bench.image.order("again", &["/bin/sleep", "1000"]));
    assert!(rest.iter().all(|(_, pid)| status_of(*pid, "Pid").is_some()));
}

#[test]
fn descriptors_run_out() {
    let bench = Bench::with_few_descriptors(100);
    let statuses = bench.engine.create(&sleepers(&bench, 60)).unwrap();
    let (running, causes) = sorted(&statuses);
    assert!(running.len() > 5 && causes.len() > 5, "{} run", running.len());
    assert!(causes.iter().all(|cause| cause.contains("Too many open files")), "{causes:#?}");
    recovers(&bench, &running);
}

#[test]
fn control_groups_run_out() {
    let bench = Bench::new();
    let ours = bench.groups();
    let unified = ours.iter().find(|p| p.join("cgroup.max.descendants").exists()).unwrap();
    fs::write(unified.join("cgroup.max.descendants"), "8").unwrap();
    let statuses = bench.engine.create(&sleepers(&bench, 20)).unwrap();
    let (running, causes) = sorted(&statuses);
    assert_eq!((running.len(), causes.len()), (8, 12), "{causes:#?}");
    assert!(causes.iter().all(|cause| cause.starts_with("could not make its control groups")), "{causes:#?}");
    recovers(&bench, &running);
}

#[test]
fn whoever_leaves_its_parent_twice_is_still_inside() {
    let bench = Bench::new();
    let before = bench.groups();
    let script = "( ( trap '' HUP TERM; sleep 1000 ) & ) & echo $$; exec sleep 1000";
    let order = bench.image.shell("a-daemon", script);
    bench.run(&order);
    bench.engine.kill(&[order.id]).unwrap();
    assert_eq!(bench.groups(), before);
}
