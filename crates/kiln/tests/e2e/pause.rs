//! Requests that wait while nobody may serve them, on a real host.

use std::time::{Duration, Instant};

use kiln_testkit::load::{Load, LoadPlan};

use crate::host::{TestHost, said};
use crate::project::Project;

fn paused(host: &TestHost, arguments: &[&str]) {
    let output = host.kiln(&[&["pause"], arguments].concat());
    assert!(output.status.success(), "{}", said(&output));
}

/// Under load, with a deploy and a killed control plane in between: nobody is refused, and what waited gets the
/// release that was deployed meanwhile.
#[test]
fn whoever_waits_through_a_pause_gets_what_was_deployed_meanwhile() {
    let mut host = TestHost::start();
    let project = Project::example("hello");
    host.deploy(&project);
    let address = host.address.trim_start_matches("http://").parse().unwrap();
    let load = Load::start(LoadPlan { timeout: Duration::from_secs(60), ..LoadPlan::of(address) });
    assert!(load.wait_for(100, Duration::from_secs(60)), "no load");
    paused(&host, &["--wait", "60s"]);
    host.kill_control();
    host.restart_control();
    // What was under way when the pause began has long been answered.
    let answered = load.so_far().succeeded;
    project.say("after the pause");
    host.deploy(&project);
    assert_eq!(load.so_far().succeeded, answered, "somebody was answered during the pause");
    let resumed = host.kiln(&["resume"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
    assert!(load.wait_for(answered + 500, Duration::from_secs(60)), "they go on");
    let report = load.stop();
    assert_eq!(report.failures, [], "of {} requests", report.requests);
    let old: u64 = report.by_marker.iter().filter(|(page, _)| !page.contains("after")).map(|(_, n)| n).sum();
    assert_eq!(old, answered, "the old release answered nobody after the pause");
}

#[test]
fn whoever_waits_longer_than_was_said_is_told_when_to_come_again() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    paused(&host, &["--wait", "300ms"]);
    let agent =
        ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
    let begun = Instant::now();
    let answer = agent.get(&host.address).call().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"), "{answer:?}");
    assert!(host.kiln(&["resume"]).status.success());
    assert!(host.page().contains("hello"));
}
