//! A host that is started under limits: what it cannot do it says, with the next step, and leaves nothing half-done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal, kill_process, setrlimit};
use tempfile::TempDir;

use crate::host::{KILN, TestHost, baked_root, said};
use crate::project::Project;
use crate::trace::{Traces, assert_nothing_half_written};

/// A control group whose processes and threads are counted; gone when dropped.
struct Crowd(PathBuf);

impl Crowd {
    fn new() -> Self {
        let v1 = Path::new("/sys/fs/cgroup/pids");
        let hierarchy = if v1.is_dir() { v1 } else { Path::new("/sys/fs/cgroup") };
        let dir = hierarchy.join(format!("kiln-test-crowd-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn may_be(&self, most: u32) -> &Self {
        fs::write(self.0.join("pids.max"), most.to_string()).unwrap();
        self
    }

    fn enter(&self) -> impl FnMut() -> io::Result<()> + Send + Sync + use<> {
        let procs = self.0.join("cgroup.procs");
        move || fs::write(&procs, "0")
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // The kernel lets go of the last process a moment after it has ended.
        for _ in 0..1_000_000 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

fn with_few_files(most: u64) -> impl FnMut() -> io::Result<()> + Send + Sync {
    move || Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// Starts hosts under one limit after the other until one serves; none that does not may leave anything. What they said.
fn until_one_serves<F>(limits: impl Iterator<Item = u32>, under: impl Fn(u32) -> F) -> (TestHost, Vec<String>)
where
    F: FnMut() -> io::Result<()> + Send + Sync + 'static,
{
    let mut refusals = Vec::new();
    for limit in limits {
        let (traces, root) = (Traces::before(), baked_root());
        match TestHost::try_start(root, under(limit)) {
            Ok(host) => return (host, refusals),
            Err((root, code, said)) => {
                assert_eq!(code, Some(9), "under {limit}:\n{said}");
                traces.assert_none(root.path());
                assert_nothing_half_written(root.path());
                refusals.push(format!("under {limit}: {said}"));
            }
        }
    }
    panic!("none has served:\n{}", refusals.join("\n"));
}

#[test]
fn a_start_that_the_limit_of_threads_refuses_leaves_nothing() {
    let crowd = Crowd::new();
    let (host, refusals) = until_one_serves(2..100, |most| crowd.may_be(most).enter());
    assert!(refusals.len() > 8, "{}", refusals.join("\n"));
    let untold: Vec<&String> = refusals.iter().filter(|r| !r.contains("`pids.max`, `TasksMax=`")).collect();
    assert!(untold.is_empty(), "{untold:#?}");
    // What was there is not ended by a start that is refused.
    let mut host = host;
    crowd.may_be(100);
    host.deploy(&Project::example("hello"));
    let before = host.json(&["instances"]);
    host.leave_control();
    // From less than what runs there already, some of which may end by itself, up to what is enough.
    let refused = (tasks(&crowd).saturating_sub(5)..100).take_while(|most| {
        crowd.may_be(*most);
        let Err((code, said)) = host.try_restart_control(crowd.enter()) else { return false };
        assert_eq!(code, Some(9), "under {most}:\n{said}");
        assert!(host.page().contains("hello"), "under {most}:\n{said}");
        true
    });
    assert!(refused.count() > 5);
    crowd.may_be(100);
    assert_eq!(pids(&host.json(&["instances"])), pids(&before), "not one instance was touched");
}

fn tasks(crowd: &Crowd) -> u32 {
    fs::read_to_string(crowd.0.join("pids.current")).unwrap().trim().parse().unwrap()
}

fn pids(instances: &serde_json::Value) -> Vec<String> {
    instances.as_array().unwrap().iter().map(|i| i["pid"].to_string()).collect()
}

#[test]
fn a_start_that_the_limit_of_open_files_refuses_leaves_nothing() {
    let (host, refusals) = until_one_serves(12..200, |most| with_few_files(most.into()));
    assert!(refusals.len() > 5, "{}", refusals.join("\n"));
    let untold: Vec<&String> =
        refusals.iter().filter(|r| !r.contains("`ulimit -n`, `LimitNOFILE=`")).collect();
    assert!(untold.is_empty(), "{untold:#?}");
    drop(host);
}

/// Known before anything is made, and raised as the hint says.
#[test]
fn more_instances_than_open_files_allow_are_refused_until_the_limit_is_raised() {
    let Ok(host) = TestHost::try_start(baked_root(), with_few_files(160)) else { panic!("160 are enough") };
    let project = Project::example("hello");
    project.edit("kiln.toml", "instances = 4", "instances = 40");
    let refused = host.kiln(&["deploy", project.dir()]);
    assert_eq!(refused.status.code(), Some(9), "{}", said(&refused));
    let told = said(&refused);
    assert!(told.contains("this host's limit of open files (160) carries about "), "{told}");
    assert_eq!(host.json(&["instances", "--all"]), serde_json::json!([]), "nothing was made");
    let hint = told.split("`prlimit ").nth(1).and_then(|rest| rest.split('`').next()).expect("what to do");
    if !Command::new("prlimit").args(hint.split(' ')).status().unwrap().success() {
        eprintln!("NOT TESTED here: that the limit can be raised. Root has no CAP_SYS_RESOURCE.");
        project.edit("kiln.toml", "instances = 40", "instances = 6");
    }
    host.deploy(&project);
}

pub(crate) fn kill_keeper_and_holder(host: &TestHost) {
    let (holder, keeper) = (host.holder(), host.keeper());
    // Neither has the time to notice that the other is gone.
    kill_process(keeper, Signal::STOP).unwrap();
    for pid in [holder, keeper] {
        kill_process(pid, Signal::KILL).unwrap();
    }
}

fn warnings(host: &TestHost) -> String {
    host.json(&["status"])["warnings"].to_string()
}

#[test]
fn a_keeper_whose_program_is_gone_is_made_again_and_one_that_cannot_be_is_told_of() {
    let mut host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let before = host.json(&["instances"]);
    host.leave_control();
    let dir = TempDir::new().unwrap();
    let program = dir.path().canonicalize().unwrap().join("kiln");
    let put = || kiln_testkit::program::program(&program, &fs::read(KILN).unwrap());
    put();
    host.restart_control_as(&program);
    let first = host.keeper();
    fs::remove_file(&program).unwrap();
    kill_keeper_and_holder(&host);
    // It has the number of another one when it has begun.
    host.wait_until("another keeper works", || {
        host.keeper() != first && host.find_process("keeper").is_some()
    });
    let is_whole = || host.json(&["status"])["services"]["web"]["instances"]["ready"] == 4;
    host.wait_until("the fleet is whole", is_whole);
    let runs = fs::read_link(format!("/proc/{}/exe", host.keeper())).unwrap();
    assert_eq!(runs.to_str(), format!("{} (deleted)", program.display()).as_str().into());
    assert_eq!(pids(&host.json(&["instances"])), pids(&before));

    // Where another program is in its place there is no keeper, and everybody can see why.
    kiln_testkit::program::program(&program, b"#!/bin/sh\necho I am no keeper >&2; exit 3\n");
    kill_keeper_and_holder(&host);
    host.wait_until("that is told", || warnings(&host).contains("cannot be started again"));
    let told = warnings(&host);
    let next = format!("put this version of Kiln back to {}", program.display());
    for part in ["the keeper has ended", "I am no keeper", "instances run on", &next] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    let log = fs::read_to_string(host.root.path().join("run/keeper.log")).unwrap();
    assert_eq!(log.matches(&next).count(), 1, "{log}");
    fs::remove_file(&program).unwrap();
    put();
    host.wait_until("it is back", || warnings(&host) == "[]");
    host.wait_until("the fleet is whole", is_whole);
    assert_eq!(pids(&host.json(&["instances"])), pids(&before), "not one instance was touched");
}
