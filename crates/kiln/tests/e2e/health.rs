//! Health by a command inside the instance and by its port: readiness, liveness, and that a moment of weakness is no
//! outage.

use serde_json::Value;

use crate::host::{TestHost, said};
use crate::project::Project;

/// Whoever is ready serves, too: a script says that it is before the server it executes listens (port 8080 is 1F90).
const PROBE: &str = r#"health    = { exec = ["/bin/sh", "-c", "test -e /tmp/ready || exit 9; grep -q :1F90.00000000:0000.0A /proc/net/tcp || exit 8; test ! -e /tmp/sick || { echo the disk is sad >&2; exit 7; }"], interval = "50ms", healthy_after = 2, unhealthy_after = 2, timeout = "5s", start_timeout = "5s" }"#;

const PORT: &str = r#"health    = { tcp = true, interval = "50ms", healthy_after = 2, unhealthy_after = 2, timeout = "5s", start_timeout = "5s" }"#;

/// The example, asked by a command; it is ready only when it says so.
pub(crate) fn project(start: &str) -> Project {
    asked(PROBE, &format!("{start}; exec /usr/sbin/nginx -g 'daemon off;'"))
}

/// The example, asked in this way and started by a script.
fn asked(health: &str, start: &str) -> Project {
    let project = Project::example("hello");
    project.edit(
        "kiln.toml",
        "health    = { http = \"/\", interval = \"100ms\", healthy_after = 2 }",
        health,
    );
    let run = format!("[\"/bin/sh\", \"-c\", \"{start}\"]");
    project.edit("kiln.toml", "[\"/usr/sbin/nginx\", \"-g\", \"daemon off;\"]", &run);
    project
}

fn entry(host: &TestHost, id: &str) -> Option<Value> {
    let all = host.json(&["instances", "--all"]);
    all.as_array().unwrap().iter().find(|i| i["id"] == id).cloned()
}

fn state_is(host: &TestHost, id: &str, state: &str) -> bool {
    entry(host, id).is_some_and(|i| i["state"] == state)
}

/// A file in the instance, as nobody inside could make it without being noticed: from the host.
fn sick(instance: &Value) -> String {
    format!("/proc/{}/root/tmp/sick", instance["pid"])
}

/// Full for a while: it is told as long as it is, and of nobody else.
#[test]
fn an_instance_without_space_is_told_of_while_it_has_none() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let all = host.json(&["instances"]);
    let (id, other) = (all[0]["id"].as_str().unwrap(), all[1]["id"].as_str().unwrap());
    let file = format!("/proc/{}/root/tmp/file", all[0]["pid"]);
    let why = |id: &str| entry(&host, id).unwrap()["reason"].to_string();
    let mut full = std::fs::File::create(&file).unwrap();
    let until_full = std::io::copy(&mut std::io::repeat(1), &mut full).unwrap_err();
    assert_eq!(until_full.kind(), std::io::ErrorKind::StorageFull);
    host.wait_until("it is told", || why(id).contains("no space is left on /tmp"));
    assert_eq!((why(other), state_is(&host, id, "ready")), ("null".into(), true));
    std::fs::remove_file(&file).unwrap();
    drop(full);
    host.wait_until("it is not told any more", || why(id) == "null");
}

#[test]
fn a_command_decides_who_is_ready_and_who_is_replaced() {
    let host = TestHost::start();
    let begun = std::time::Instant::now();
    let good = host.deploy(&project("sleep 1; touch /tmp/ready"));
    assert!(begun.elapsed().as_millis() >= 1000, "none was ready before it said so");

    // One that never says so never serves.
    let never = project("true");
    let output = host.kiln(&["deploy", never.dir()]);
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    assert!(said(&output).contains("exited with code 9"), "{}", said(&output));
    assert_eq!(host.live(), good);

    let instances = host.json(&["instances"]);
    let serving: Vec<&Value> =
        instances.as_array().unwrap().iter().filter(|i| i["release"] == good.as_str()).collect();
    let (weak, ill) = (serving[0], serving[1]);
    let (weak_id, ill_id) = (weak["id"].as_str().unwrap(), ill["id"].as_str().unwrap());
    let load = host.load();
    // A moment of weakness: it is passed over, and comes back as who it was.
    std::fs::write(sick(weak), "").unwrap();
    host.wait_until("the weak one is passed over", || state_is(&host, weak_id, "unhealthy"));
    let status = host.json(&["status"]);
    let why = status["waiting"].to_string();
    assert!(
        why.contains(&format!("to be healthy again; {weak_id}")) && why.contains("exited with code 7"),
        "{why}"
    );
    std::fs::remove_file(sick(weak)).unwrap();
    host.wait_until("the weak one is back", || state_is(&host, weak_id, "ready"));
    // An illness: it is replaced, and why is told.
    std::fs::write(sick(ill), "").unwrap();
    host.wait_until("the ill one is replaced", || state_is(&host, ill_id, "replaced"));
    let reason = entry(&host, ill_id).unwrap()["reason"].to_string();
    for part in ["it was not healthy within 5s", "exited with code 7", "the disk is sad"] {
        assert!(reason.contains(part), "{part} is not in {reason}");
    }
    host.wait_until("there are four again", || {
        let now = host.json(&["instances"]);
        let ready = |i: &&Value| i["state"] == "ready" && i["release"] == good.as_str();
        now.as_array().unwrap().iter().filter(ready).count() == 4
    });
    let report = load.stop();
    assert_eq!(report.failures, [], "of {} requests", report.requests);
    assert!(state_is(&host, weak_id, "ready"), "{:?}", entry(&host, weak_id));
}

#[test]
fn a_service_that_hangs_as_a_whole_is_replaced() {
    let host = TestHost::start();
    let project = project("touch /tmp/ready");
    project.edit("kiln.toml", "instances = 4", "instances = 1");
    project.edit("kiln.toml", "start_timeout = \"5s\"", "start_timeout = \"1s\"");
    let output = host.kiln(&["deploy", project.dir()]);
    assert!(output.status.success(), "{}", said(&output));
    let instances = host.json(&["instances"]);
    let ill = instances[0]["id"].as_str().unwrap().to_owned();
    let load = host.load();
    std::fs::write(sick(&instances[0]), "").unwrap();
    host.wait_until("the only one is replaced", || state_is(&host, &ill, "replaced"));
    let reason = entry(&host, &ill).unwrap()["reason"].to_string();
    assert!(
        reason.contains("it was not healthy within 1s") && reason.contains("the disk is sad"),
        "{reason}"
    );
    host.wait_until("there is one that is well", || {
        let now = host.json(&["instances"]);
        let all = now.as_array().unwrap();
        all.len() == 1 && all[0]["state"] == "ready" && all[0]["id"] != ill.as_str()
    });
    let report = load.stop();
    assert_eq!(report.failures, [], "of {} requests", report.requests);
}

#[test]
fn a_port_decides_who_is_ready_and_who_is_replaced() {
    let host = TestHost::start();
    // It listens late, and stops when it is told to, without ending.
    let start = "sleep 1; /usr/sbin/nginx -g 'daemon off;' & \
                 while test ! -e /tmp/sick; do sleep 0.05; done; kill -QUIT $!; exec sleep 1000";
    let begun = std::time::Instant::now();
    let good = host.deploy(&asked(PORT, start));
    assert!(begun.elapsed().as_millis() >= 1000, "none was ready before it listened");

    let instances = host.json(&["instances"]);
    let all = instances.as_array().unwrap();
    let deaf = all.iter().find(|i| i["release"] == good.as_str()).expect("an instance that serves");
    let id = deaf["id"].as_str().unwrap();
    std::fs::write(sick(deaf), "").unwrap();
    host.wait_until("the deaf one is replaced", || state_is(&host, id, "replaced"));
    let reason = entry(&host, id).unwrap()["reason"].to_string();
    for part in ["it was not healthy within 5s", "port 8080: connection refused"] {
        assert!(reason.contains(part), "{part} is not in {reason}");
    }
}
