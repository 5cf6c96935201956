//! A keeper that stands still: stopped, or starved. It is told of with what to do, and costs nobody anything.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::health;
use crate::hooks;
use crate::host::{KILN, TestHost, in_time, said};
use crate::project::Project;
use crate::trace;

/// A keeper, or its holder, that is stopped until this value goes.
struct Stopped(Pid);

impl Stopped {
    fn keeper(host: &TestHost) -> Self {
        let keeper = host.keeper();
        kill_process(keeper, Signal::STOP).unwrap();
        Self(keeper)
    }

    /// Stands still for so long altogether.
    fn for_the_time(self, host: &TestHost, span: Duration) {
        let begun = Instant::now();
        host.wait_until("the time is over", || begun.elapsed() >= span);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// What a deploy has said, which must have gone well.
fn is_well(deploy: Child) -> String {
    let output = deploy.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    said(&output)
}

#[test]
fn a_keeper_that_stands_still_is_told_of_with_what_to_do() {
    let mut host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let before = host.json(&["instances"]);
    let stopped = Stopped::keeper(&host);
    let next = format!("`kill -CONT {}` lets it go on", stopped.0);
    // In its first seconds nobody knows: it is asked.
    let instance = before[0]["id"].as_str().unwrap();
    let refused = host.kiln(&["exec", instance, "--", "true"]);
    assert_eq!(refused.status.code(), Some(9), "{}", said(&refused));
    assert!(said(&refused).contains(&next), "{}", said(&refused));
    let status = || said(&host.kiln(&["status"]));
    host.wait_until("that is told", || status().contains(&next));
    assert!(status().contains("which is stopped) has not answered for"), "{}", status());
    let now = host.json(&["instances"]);
    assert!(now[0]["reason"].as_str().unwrap().contains("the keeper does not answer"), "{now}");
    // What takes it is not begun.
    let project = Project::example("hello");
    for command in
        [&["rollback"][..], &["down"], &["exec", instance, "--", "true"], &["deploy", project.dir()]]
    {
        let refused = host.kiln(command);
        assert_eq!(refused.status.code(), Some(9), "{command:?}: {}", said(&refused));
        assert!(
            said(&refused).contains("nothing was begun") && said(&refused).contains(&next),
            "{}",
            said(&refused)
        );
    }

    host.kill_control();
    let (code, told) = host.try_restart_control(|| Ok(())).unwrap_err();
    assert_eq!(code, Some(9), "{told}");
    for part in ["does not answer", "its instances run on", next.as_str()] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    drop(stopped);
    host.restart_control();
    host.wait_until("nothing is told any more", || {
        host.json(&["status"])["warnings"] == serde_json::json!([])
    });
    let pids = |all: &serde_json::Value| {
        all.as_array().unwrap().iter().map(|i| i["pid"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(pids(&host.json(&["instances"])), pids(&before), "not one instance was touched");
}

#[test]
fn time_in_which_nobody_could_be_asked_is_not_counted_against_a_start() {
    let host = TestHost::start();
    let marker = format!("marker-start-{}", std::process::id());
    let project = health::project(&format!(
        ": {marker}; while ! test -e /tmp/go; do sleep 0.05; done; touch /tmp/ready"
    ));
    project.edit_line("kiln.toml", "instances = ", "instances = 1");
    project.edit("kiln.toml", "start_timeout = \"5s\"", "start_timeout = \"10s\"");
    // Nobody starts it before its fleet does.
    project.edit_line("kiln.toml", "http = { path", "run = [\"/bin/true\"]");
    let mut deploy = host.command(&["deploy", project.dir()]);
    let deploy = deploy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let find = || trace::processes().into_iter().find(|(_, line)| line.contains(&marker));
    host.wait_until("it starts", || find().is_some());
    let pid = find().unwrap().0;
    // Longer than `start_timeout`, and shorter than a fleet may take.
    Stopped::keeper(&host).for_the_time(&host, Duration::from_secs(12));
    std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
    is_well(deploy);
    let instances = host.json(&["instances"]);
    assert_eq!((&instances[0]["id"], &instances[0]["pid"]), (&"hello-web-1-1".into(), &pid.into()));
}

#[test]
fn a_hook_that_ended_well_while_nobody_looked_has_ended_well() {
    let host = TestHost::start();
    let in_time =
        |project: &Project| project.edit("kiln.toml", "done\"] }]", "done\"], timeout = \"10s\" }]");
    let (_project, deploy, hook) = hooks::begin_with(&host, ("looked away", "before"), in_time);
    let stopped = Stopped::keeper(&host);
    kill_process(hook, Signal::TERM).unwrap();
    // When its time is up control wants to know, and says what it waits for to whoever asks.
    let told = || {
        let status = host.kiln(&["status"]);
        (status.status.code() == Some(9)).then(|| said(&status))
    };
    host.wait_until("control waits for the keeper", || told().is_some());
    let words = told().unwrap();
    for part in ["the control plane waits for its keeper", "kill -CONT", "instances run on"] {
        assert!(words.contains(part), "{part} is not in {words}");
    }
    drop(stopped);
    let words = is_well(deploy);
    assert_eq!(words.matches("has not answered for").count(), 1, "{words}");
    assert_eq!(host.page(), "<h1>hello looked away</h1>\n");
}

/// The next edge could connect to nobody, and this one has connections.
#[test]
fn an_edge_stays_while_the_keeper_stands_still() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let edge = host.process("edge");
    let stopped = Stopped::keeper(&host);
    host.signal_control(Signal::USR2);
    stopped.for_the_time(&host, Duration::from_secs(3));
    assert_eq!(host.find_process("edge"), Some(edge));
}

#[test]
fn a_holder_that_is_stopped_is_told_of() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let stopped = Stopped(host.holder());
    kill_process(stopped.0, Signal::STOP).unwrap();
    let told = || host.json(&["status"])["warnings"].to_string();
    let next = format!("`kill -CONT {}` lets it go on", stopped.0);
    host.wait_until("that is told", || told().contains(&next));
    assert!(told().contains("the holder of the keeper"), "{}", told());
    drop(stopped);
    host.wait_until("it is told no more", || told() == "[]");
}

/// The next keeper would be made by it.
#[test]
fn a_newer_version_does_not_wait_for_a_holder_that_is_stopped() {
    let mut host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let dir = tempfile::TempDir::new().unwrap();
    let changed = dir.path().canonicalize().unwrap().join("kiln-changed");
    kiln_testkit::program::program(&changed, &[&std::fs::read(KILN).unwrap()[..], b"changed"].concat());
    host.leave_control();
    let stopped = Stopped(host.holder());
    kill_process(stopped.0, Signal::STOP).unwrap();
    let mut serve = std::process::Command::new(&changed);
    serve.args(["serve", "--listen", "127.0.0.1:0", "--root"]).arg(host.root.path());
    let refused = in_time(serve);
    assert_eq!(refused.status.code(), Some(9), "{}", said(&refused));
    for words in ["its holder (process", "is stopped", &format!("`kill -CONT {}`", stopped.0)] {
        assert!(said(&refused).contains(words), "{words}: {}", said(&refused));
    }
    drop(stopped);
    host.restart_control_as(&changed);
    assert!(host.page().contains("hello"));
}
