//! The control plane is killed at every place at which it writes or has something done, and its disk fails there.

use crate::host::{TestHost, said};
use crate::project::Project;

/// Every one in the long form, a sample spread over all of them otherwise.
fn chosen(all: usize, sample: usize) -> Vec<usize> {
    let step = if std::env::var_os("KILN_LONG").is_some() { 1 } else { all.div_ceil(sample).max(1) };
    (1..=all).step_by(step).collect()
}

/// How many boundaries a control plane passes from its start to the end of a deploy.
fn count(host: &mut TestHost, project: &Project) -> usize {
    let file = host.root.path().join("boundaries");
    host.kill_control();
    host.restart_control_until(&format!("count:{}", file.display()));
    project.say("to be counted");
    host.deploy(project);
    let passed = std::fs::read_to_string(&file).expect("boundaries were passed");
    let has = |what: &str| passed.lines().filter(|line| line.ends_with(what)).count();
    assert!(has(" append") > 10 && has(" create") >= 2 && has(" table") >= 2, "{passed}");
    passed.lines().count()
}

/// Whether nothing is under way and every instance of what serves is ready.
fn is_at_rest(host: &TestHost) -> bool {
    let status = host.json(&["status"]);
    let services = status["services"].as_object().expect("services");
    let whole = services.values().all(|s| s["instances"]["ready"] == s["instances"]["desired"]);
    let waits = status["waiting"].as_array().is_some_and(|w| !w.is_empty());
    whole && !waits && status["traffic"]["state"] == "settled"
}

/// Deploys while control meets its fate at `boundary`; afterwards the app is wholly on the old or wholly on the new
/// release, and what the command said is true.
fn deploy_through(host: &mut TestHost, project: &Project, boundary: &str) {
    let before = (host.live(), host.page());
    host.kill_control();
    host.restart_control_until(boundary);
    project.say(boundary);
    let output = host.kiln(&["deploy", project.dir()]);
    host.kill_control();
    host.restart_control();
    host.wait_until("everything is at rest", || is_at_rest(host));
    let (live, page) = (host.live(), host.page());
    let is_new = page.contains(boundary);
    assert_eq!(is_new, live != before.0, "at {boundary}: {live} serves {page}");
    assert!(is_new || page == before.1, "at {boundary}: {page}");
    match output.status.code() {
        Some(0) => assert!(is_new, "at {boundary}: it was said to serve:\n{}", said(&output)),
        Some(6) => assert!(!is_new, "at {boundary}: it was said to have failed:\n{}", said(&output)),
        code => assert_eq!(code, Some(9), "at {boundary}: {}", said(&output)),
    }
    // The live one runs, and the one before it is warm; a deploy that came to nothing leaves both as they were.
    let previous = host.json(&["status"])["previous"].clone();
    let instances = host.json(&["instances"]);
    let mut running = instances.as_array().expect("instances").iter();
    let other = running.find(|i| i["release"] != live.as_str() && i["release"] != previous);
    assert_eq!(other, None, "at {boundary}: an instance of an older release is left");
}

#[test]
fn control_is_killed_at_every_boundary() {
    let (mut host, project) = (TestHost::start(), Project::example("hello"));
    host.deploy(&project);
    let all = count(&mut host, &project);
    let load = host.load();
    for n in chosen(all, 10) {
        deploy_through(&mut host, &project, &format!("die:{n}"));
    }
    assert_eq!(load.stop().failures, []);
}

#[test]
fn the_disk_fails_at_every_boundary() {
    let (mut host, project) = (TestHost::start(), Project::example("hello"));
    host.deploy(&project);
    let all = count(&mut host, &project);
    let load = host.load();
    for n in chosen(all, 4) {
        deploy_through(&mut host, &project, &format!("refuse:{n}"));
    }
    assert_eq!(load.stop().failures, []);
}
