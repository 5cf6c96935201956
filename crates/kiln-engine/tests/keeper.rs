//! The keeper as a process: it outlives who started it, and leaves nothing.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use common::{Bench, end_of, status_of};
use kiln_engine::Engine;
use kiln_engine::embedded::Embedded;
use kiln_model::{Exit, InstanceState};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn nothing_is_left_after_a_shutdown() {
    let bench = Bench::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let keeper = bench.keeper_pid();
    let stubborn =
        bench.image.shell("stubborn", "trap '' TERM; (sleep 1000 &) ; while true; do sleep 1000; done");
    let pids = [bench.run(&stubborn), bench.run(&bench.image.order("a", &["/bin/sleep", "1000"]))];
    assert!(!bench.groups().is_empty());
    let end = end_of(keeper);
    bench.engine.shutdown().unwrap();
    end();
    assert_eq!(bench.groups(), Vec::<std::path::PathBuf>::new());
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    assert!(pids.iter().all(|pid| status_of(*pid, "Pid").is_none()));
    let left: BTreeSet<_> = fs::read_dir(bench.run_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().eq(["keeper.lock", "keeper.log"]), "{left:?}");
    let run_dir = bench.run_dir().canonicalize().unwrap();
    let hash = kiln_model::Sha256::of(run_dir.as_os_str().as_encoded_bytes()).hex();
    assert!(!std::path::Path::new("/dev/shm").join(format!("kiln-{}.output", &hash[..12])).exists());
    assert_eq!(fs::read_to_string(bench.run_dir().join("keeper.log")).unwrap(), "");
    assert!(Embedded::connect(&bench.run_dir()).is_err());
}

#[test]
fn nothing_is_left_of_an_instance_that_ended_but_status_and_output() {
    let bench = Bench::new();
    let before = bench.groups();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", bench.keeper_pid())).unwrap().count();
    bench.script("warm-up", "echo hello");
    let at_first = descriptors();
    for n in 0..20 {
        bench.script(&format!("a-{n}"), "echo hello; (sleep 1000 &); exit 1");
    }
    assert_eq!((bench.groups(), descriptors()), (before, at_first));
    let mounts_of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_eq!(mounts_of(&bench.keeper_pid().to_string()), mounts_of("self"), "no image stays mounted");
}

#[test]
fn instances_outlive_those_who_ordered_them() {
    let bench = Bench::new();
    let order = bench.image.order("a", &["/bin/sleep", "1000"]);
    let pid = bench.run(&order);
    let next = Embedded::connect(&bench.run_dir()).unwrap();
    drop(Embedded::connect(&bench.run_dir()).unwrap());
    assert_eq!(next.list().unwrap()[0].state, InstanceState::Running { pid });
    next.kill(&[order.id]).unwrap();
    assert_eq!(next.list().unwrap()[0].state, InstanceState::Ended { exit: Exit::Signal { signal: 9 } });
}

#[test]
fn there_is_one_keeper_for_each_run_directory() {
    let bench = Bench::new();
    let second = Command::new(env!("CARGO_BIN_EXE_keeper-for-tests"))
        .args([bench.run_dir(), bench.dir.path().join("output")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(said.starts_with("a keeper already works in "), "{said}");
    bench.run(&bench.image.order("a", &["/bin/sleep", "1000"]));
}

#[test]
fn a_keeper_that_is_asked_to_end_by_a_signal_does_so_properly() {
    let bench = Bench::new();
    let pid = bench.run(&bench.image.order("a", &["/bin/sleep", "1000"]));
    let keeper = bench.keeper_pid();
    let end = end_of(keeper);
    kill_process(Pid::from_raw(keeper).unwrap(), Signal::HUP).unwrap();
    assert_eq!(bench.engine.list().unwrap().len(), 1, "a hangup says nothing to it");
    kill_process(Pid::from_raw(keeper).unwrap(), Signal::TERM).unwrap();
    end();
    assert_eq!(status_of(pid, "Pid"), None);
    assert_eq!(bench.groups(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_is_killed_before_its_turn_never_runs() {
    let bench = Bench::new();
    let orders: Vec<_> =
        (0..60).map(|n| bench.image.order(&format!("a-{n}"), &["/bin/sleep", "1000"])).collect();
    let ids: Vec<_> = orders.iter().map(|o| o.id.clone()).collect();
    std::thread::scope(|scope| {
        let creating = scope.spawn(|| bench.engine.create(&orders).unwrap());
        while !creating.is_finished() {
            bench.engine.kill(&ids).unwrap();
        }
        let statuses = creating.join().unwrap();
        assert!(
            statuses
                .iter()
                .all(|s| matches!(s.state, InstanceState::Ended { .. } | InstanceState::Running { .. }))
        );
    });
    bench.engine.kill(&ids).unwrap();
    assert!(bench.engine.list().unwrap().iter().all(|s| matches!(s.state, InstanceState::Ended { .. })));
}

#[test]
fn an_instance_is_told_to_end_by_the_signal_its_image_names() {
    let bench = Bench::new();
    let script = "trap 'exit 7' QUIT; trap 'exit 8' TERM; trap 'exit 9' USR1; echo ready; \
                  while true; do sleep 0.01; done";
    for (id, signal, code) in [("quit", 3, 7), ("term", 15, 8), ("usr1", 10, 9)] {
        let mut order = bench.image.shell(id, script);
        order.run.stop_signal = signal;
        bench.run(&order);
        bench.wait_for_output(&order.id, "ready");
        bench.engine.stop(std::slice::from_ref(&order.id)).unwrap();
        assert_eq!(bench.ending(&order.id), Exit::Code { code });
    }
}
