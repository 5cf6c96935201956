//! An operation log that somebody has edited: nothing is lost, and everything can be ended or continued.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::host::{KILN, TestHost, in_time, said};
use crate::project::Project;

fn kiln(host: &TestHost, command: &[&str]) -> Output {
    let root = host.root.path().to_str().unwrap();
    Command::new(KILN).args(command).args(["--root", root]).stdin(Stdio::null()).output().unwrap()
}

/// Changes something in a line of the log; what the log is then.
fn edit(host: &TestHost, from: &str, to: &str) -> String {
    let path = host.root.path().join("log/operations.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let edited = text.replacen(from, to, 1);
    assert_ne!(edited, text);
    std::fs::write(path, &edited).unwrap();
    edited
}

fn pids(host: &TestHost) -> Vec<Value> {
    let instances = host.json(&["instances"]);
    instances.as_array().unwrap().iter().map(|i| i["pid"].clone()).collect()
}

/// Deploys twice; the project, the release that is live then, and the processes of its instances.
fn deployed_twice(host: &TestHost) -> (Project, String, Vec<Value>) {
    let project = Project::example("hello");
    host.deploy(&project);
    project.say("newer");
    let live = host.deploy(&project);
    (project, live, pids(host))
}

/// What somebody has put in the place of the log is not continued: it may be anything. Nothing is told wrongly for that, and
/// nothing is left that no command can end.
#[test]
fn a_host_whose_log_cannot_be_written_is_ended_all_the_same() {
    let mut host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let log = host.root.path().join("log/operations.jsonl");
    let text = std::fs::read(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    std::fs::write(&log, &text).unwrap();

    let value = host.root.path().join("value");
    std::fs::write(&value, "secret").unwrap();
    let set = ["secret", "set", "API_KEY", "--app", "hello", "--file", value.to_str().unwrap()];
    let refused = host.kiln(&set);
    assert_eq!(refused.status.code(), Some(9), "{}", said(&refused));
    assert!(said(&refused).contains("so secret API_KEY is what it was"), "{}", said(&refused));
    assert_eq!(host.json(&["secret", "list", "--app", "hello"]), serde_json::json!([]));

    let down = host.kiln(&["down"]);
    assert!(down.status.success(), "{}", said(&down));
    assert!(said(&down).contains("the operation log says nothing of this"), "{}", said(&down));
    assert!(host.wait_for_control().success());
    assert_eq!((host.find_process("keeper"), host.find_process("edge")), (None, None));
    // The log knows no better than that it serves.
    host.restart_elsewhere();
    host.wait_until("it serves again", || {
        host.json(&["status"])["services"]["web"]["instances"]["ready"] == 4
    });
    assert!(host.page().contains("hello"));
    assert!(host.kiln(&set).status.success());
}

#[test]
fn a_host_whose_log_was_edited_can_be_continued_and_ended() {
    let mut host = TestHost::start();
    let (_project, live, before) = deployed_twice(&host);
    host.leave_control();
    // No entry at all any more, but for one letter.
    let damaged = edit(&host, "provision", "Provision");

    let refused = kiln(&host, &["serve", "--listen", "127.0.0.1:0"]);
    let text = said(&refused);
    assert_eq!(refused.status.code(), Some(9), "{text}");
    assert!(
        text.contains("line ") && text.contains("kiln log --repair") && text.contains("kiln down"),
        "{text}"
    );
    assert!(host.page().contains("newer"), "what runs serves on");
    let repaired = kiln(&host, &["log", "--repair", "--json"]);
    assert!(repaired.status.success(), "{}", said(&repaired));
    let told: Value = serde_json::from_slice(&repaired.stdout).unwrap();
    assert_eq!((&told["repaired"], told["damage"].as_array().unwrap().len()), (&true.into(), 1), "{told}");
    assert_eq!(std::fs::read_to_string(told["kept_as"].as_str().unwrap()).unwrap(), damaged);
    host.restart_control();
    assert_eq!((host.live(), pids(&host)), (live.clone(), before), "nobody has noticed");
    let log = host.json(&["log", "-n", "1"]);
    let reason = log[0]["reason"].as_str().unwrap();
    assert!(log[0]["what"] == "repair the log" && reason.contains("is what it was again"), "{log}");
    assert!(host.json(&["log", "--verify"])["entries"].as_u64().unwrap() > 5);

    // Without a repair everything can be ended all the same; what served comes back after one.
    host.kill_control();
    edit(&host, "\"name\":\"", "\"name\":\"mallory, once ");
    let down = kiln(&host, &["down"]);
    assert!(down.status.success(), "{}", said(&down));
    assert!(said(&down).contains("the operation log says nothing of this"), "{}", said(&down));
    assert!(host.find_process("edge").is_none() && host.find_process("keeper").is_none());
    let repaired = kiln(&host, &["log", "--repair"]);
    assert!(repaired.status.success(), "{}", said(&repaired));
    host.restart_elsewhere();
    host.wait_until("its fleet is whole again", || {
        host.json(&["status"])["services"]["web"]["instances"]["ready"] == 4
    });
    assert_eq!(host.live(), live);
    assert!(host.page().contains("newer"));
    let refused = kiln(&host, &["log", "--repair"]);
    assert_eq!(refused.status.code(), Some(9), "a control plane works with it: {}", said(&refused));
}

/// A log that is gone, or lacks its end, tells of nothing that runs: it is missed, and what serves is nobody's stray.
#[test]
fn a_host_whose_log_lacks_its_end_ends_nothing() {
    let mut host = TestHost::start();
    let (project, live, before) = deployed_twice(&host);
    let path = host.root.path().join("log/operations.jsonl");
    host.leave_control();
    let whole = std::fs::read_to_string(&path).unwrap();
    let newest = whole.rfind("\"entry\":\"begun\"").unwrap();
    let older = &whole[..=whole[..newest].rfind('\n').unwrap()];
    let refused = |log: Option<&str>| {
        match log {
            Some(log) => std::fs::write(&path, log).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let mut serve = Command::new(KILN);
        serve.args(["serve", "--listen", "127.0.0.1:0", "--root"]).arg(host.root.path());
        let refused = in_time(serve);
        let text = said(&refused);
        assert_eq!(refused.status.code(), Some(9), "{text}");
        for says in ["more runs than its operation log tells of", path.to_str().unwrap(), "kiln down"] {
            assert!(text.contains(says), "expected `{says}` in: {text}");
        }
        assert!(host.page().contains("newer"), "what runs serves on");
    };
    refused(Some(older));
    refused(Some(""));
    refused(None);
    std::fs::write(&path, &whole).unwrap();
    host.restart_control();
    assert_eq!((host.live(), pids(&host)), (live.clone(), before), "nobody has noticed");

    // Whoever has lost it can end everything, and begin anew.
    host.leave_control();
    std::fs::remove_file(&path).unwrap();
    let down = kiln(&host, &["down"]);
    assert!(down.status.success(), "{}", said(&down));
    host.restart_elsewhere();
    // All of its releases could go then, and nobody has said that they may.
    let refused = host.kiln(&["gc", "--keep", "0"]);
    let text = said(&refused);
    assert_eq!(refused.status.code(), Some(9), "{text}");
    assert!(text.contains("2 releases are here") && text.contains(path.to_str().unwrap()), "{text}");
    assert!(host.root.path().join(format!("releases/{live}.json")).exists());
    project.say("anew");
    host.deploy(&project);
    assert!(host.page().contains("anew"));
    assert!(host.kiln(&["gc", "--keep", "0"]).status.success());
}
