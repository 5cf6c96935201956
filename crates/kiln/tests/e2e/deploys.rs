//! Deploys and rollbacks that go well.

use std::time::Instant;

use crate::host::{TestHost, said};
use crate::project::Project;

/// Promise 4, counted: load goes on through ten deploys and five rollbacks, and not one request fails.
#[test]
fn ten_deploys_and_five_rollbacks_drop_nobody() {
    let host = TestHost::start();
    let project = Project::example("hello");
    project.say("release 0");
    host.deploy(&project);
    let (load, begun) = (host.load(), Instant::now());
    let mut releases = Vec::new();
    for n in 1..=10 {
        project.say(&format!("release {n}"));
        releases.push(host.deploy(&project));
        assert_eq!(host.page(), format!("<h1>hello release {n}</h1>\n"));
    }
    let back = [None, None, Some(&releases[2]), Some(&releases[8]), Some(&releases[0])];
    for release in back {
        let arguments: Vec<&str> = ["rollback"].into_iter().chain(release.map(|r| r.as_str())).collect();
        let output = host.kiln(&arguments);
        assert!(output.status.success(), "the rollback failed:\n{}", said(&output));
        if let Some(release) = release {
            assert_eq!(&host.live(), release);
        }
    }
    assert_eq!(host.page(), "<h1>hello release 1</h1>\n");
    let report = load.stop();
    let per_second = report.requests as f64 / begun.elapsed().as_secs_f64();
    eprintln!("{per_second:.0} requests a second: {report:#?}");
    assert_eq!(report.failures, [], "of {} requests", report.requests);
    assert_eq!(report.succeeded, report.requests);
    assert!(per_second >= 500.0, "only {per_second:.0} requests a second");
    for n in 0..=10 {
        assert!(
            report.by_marker.contains_key(&format!("<h1>hello release {n}</h1>")),
            "release {n} never served"
        );
    }
}

#[test]
fn a_release_that_serves_already_is_not_deployed_again() {
    let host = TestHost::start();
    let project = Project::example("hello");
    let first = host.deploy(&project);
    let instances = host.json(&["instances"]);
    assert_eq!(host.deploy(&project), first);
    assert_eq!(host.json(&["instances"]), instances, "not one instance was touched");
    let plan = host.json(&["plan", project.dir()]);
    assert!(plan["nothing_to_do"].as_str().unwrap().contains("serves already"), "{plan}");
}

#[test]
fn what_runs_is_told_as_the_interface_promises() {
    let host = TestHost::start();
    let project = Project::example("hello");
    let first = host.deploy(&project);
    project.say("again");
    let plan = host.json(&["plan", project.dir()]);
    assert_eq!(plan["from"], first.as_str());
    assert_eq!(plan["steps"].as_array().unwrap().len(), 5, "{plan}");
    let second = host.deploy(&project);

    let status = host.json(&["status"]);
    assert_eq!((status["app"].as_str(), status["live"].as_str()), (Some("hello"), Some(second.as_str())));
    assert_eq!(status["previous"], first.as_str());
    assert_eq!(status["traffic"]["state"], "settled");
    assert_eq!(status["address"], host.address.as_str());
    assert_eq!(status["services"]["web"]["instances"], serde_json::json!({"desired": 4, "ready": 4}));

    let releases = host.json(&["releases"]);
    let of = |n: usize| (releases[n]["release"].as_str().unwrap(), releases[n]["state"].as_str().unwrap());
    assert_eq!((of(0), of(1)), ((second.as_str(), "live"), (first.as_str(), "warm")));

    let instances = host.json(&["instances"]);
    let of_second = instances.as_array().unwrap().iter().filter(|i| i["release"] == second.as_str());
    assert_eq!(of_second.filter(|i| i["state"] == "ready" && i["pid"].is_u64()).count(), 4);

    let log = host.json(&["log"]);
    assert_eq!((&log[0]["what"], &log[0]["from"]), (&"deploy".into(), &first.as_str().into()));
}

#[test]
fn a_dead_instance_is_replaced_and_its_output_stays() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let before = host.json(&["instances"]);
    let victim = before[0]["id"].as_str().unwrap().to_owned();
    let pid = i32::try_from(before[0]["pid"].as_i64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let replaced = |now: &serde_json::Value| {
        let all = now.as_array().unwrap();
        all.len() == 4 && all.iter().all(|i| i["state"] == "ready" && i["id"] != victim.as_str())
    };
    host.wait_until("the instance is replaced", || replaced(&host.json(&["instances"])));
}

#[test]
fn logs_of_instances_long_gone_are_kept() {
    let host = TestHost::start();
    let project = Project::example("hello");
    // A request that nginx complains about on its standard error.
    let release = host.deploy(&project);
    let missing = format!("{}/missing", host.address);
    assert!(matches!(ureq::get(&missing).call(), Err(ureq::Error::StatusCode(404))));
    let instances: Vec<String> = host
        .json(&["instances"])
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["id"].as_str().unwrap().to_owned())
        .collect();
    project.edit("kiln.toml", "keep_warm = \"10m\"", "keep_warm = \"0s\"");
    project.say("again");
    host.deploy(&project);
    host.wait_until("the old fleet is gone", || {
        let now = host.json(&["instances"]);
        now.as_array().unwrap().iter().all(|i| !instances.iter().any(|id| i["id"] == id.as_str()))
    });
    let output = host.kiln(&["logs", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line =
        text.lines().find(|l| l.contains("missing")).unwrap_or_else(|| panic!("no such line:\n{text}"));
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["release"], &line["service"]), (&release.as_str().into(), &"web".into()));
    assert_eq!(line["stream"], "stderr");
}
