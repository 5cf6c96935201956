//! Somebody sets the clock of the host, by weeks: nothing is replaced, ended or held back for it.

use std::path::Path;

use kiln_testkit::shifted_clock::ShiftedClock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::host::{KILN, TestHost, said};
use crate::project::Project;

const DAY: i64 = 24 * 3600;

fn instances(host: &TestHost) -> Vec<Value> {
    host.json(&["instances"]).as_array().unwrap().clone()
}

/// Kills an instance of a release and waits until another is well in its place.
fn is_mended(host: &TestHost, release: &str) {
    let of_release = |i: &&Value| i["release"] == release;
    let victim = instances(host).iter().find(of_release).unwrap().clone();
    let pid = Pid::from_raw(i32::try_from(victim["pid"].as_i64().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    host.wait_until("another is there", || {
        let well = |i: &&Value| i["release"] == release && i["state"] == "ready" && i["id"] != victim["id"];
        instances(host).iter().filter(well).count() == 4
    });
}

fn state_of(host: &TestHost, release: &str) -> String {
    let all = host.json(&["releases"]);
    let entry = all.as_array().unwrap().iter().find(|r| r["release"] == release).unwrap();
    entry["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    let (clock, project) = (ShiftedClock::new(), Project::example("hello"));
    let mut host = TestHost::start();
    host.leave_control();
    host.restart_control_as(&clock.wrapped(Path::new(KILN)));
    let first = host.deploy(&project);
    project.say("again");
    let second = host.deploy(&project);
    for jump in [30 * DAY, -30 * DAY] {
        clock.jump(jump);
        is_mended(&host, &second);
        assert_eq!(state_of(&host, &first), "warm", "ten minutes have not passed");
        project.say(&format!("after {jump}"));
        let before = host.live();
        let third = host.deploy(&project);
        assert_eq!((host.live(), state_of(&host, &before).as_str()), (third.clone(), "warm"));
        let back = host.kiln(&["rollback"]);
        assert!(back.status.success() && host.live() == before, "{}", said(&back));
        // The control plane may die while the clock is wrong.
        host.kill_control();
        host.restart_control_as(&clock.wrapped(Path::new(KILN)));
        is_mended(&host, &before);
        let again = host.kiln(&["rollback", &first]);
        assert!(again.status.success(), "{}", said(&again));
        let there = host.kiln(&["rollback", &second]);
        assert!(there.status.success(), "{}", said(&there));
    }
    let replaced = host.json(&["instances", "--all"]);
    let reasons = replaced.as_array().unwrap().iter().filter(|i| i["state"] == "replaced");
    let reasons: Vec<String> = reasons.map(|i| i["reason"].to_string()).collect();
    assert_eq!(reasons.len(), 4, "{reasons:#?}");
    assert!(reasons.iter().all(|r| r.contains("signal 9")), "{reasons:#?}");
}
