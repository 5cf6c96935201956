//! The control plane is killed at every place at which it writes or has something done, and its disk fails there.

use std::collections::BTreeSet;
use std::process::Output;

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{TestHost, said};
use crate::project::Project;

/// Every one in the long form, a sample spread over all of them otherwise.
pub(crate) fn chosen(all: usize, sample: usize) -> Vec<usize> {
    let step = if std::env::var_os("KILN_LONG").is_some() { 1 } else { all.div_ceil(sample).max(1) };
    (1..=all).step_by(step).collect()
}

/// How many boundaries a control plane passes from its start to the end of a deploy and all that follows from it: the old
/// fleet is drained and kept warm, and the one before that is removed.
fn count(host: &mut TestHost, project: &Project) -> usize {
    // The fleet of the release before the next one's predecessor is what that removes.
    project.say("to be kept warm");
    host.deploy(project);
    project.say("to be counted");
    let passed = passed(host, |host| {
        host.deploy(project);
    });
    let has = |what: &str| passed.lines().filter(|line| line.ends_with(what)).count();
    assert!(has(" append") > 10 && has(" create") >= 2 && has(" table") >= 2, "{passed}");
    assert!(has(" stop") >= 2 && has(" forget") >= 2 && has(" store") >= 6, "{passed}");
    passed.lines().count()
}

/// The boundaries a control plane passes from its start until something is done and what follows from it is over.
pub(crate) fn passed(host: &mut TestHost, deed: impl FnOnce(&TestHost)) -> String {
    let file = host.root.path().join("boundaries");
    host.kill_control();
    host.restart_control_until(&format!("count:{}", file.display()));
    deed(host);
    host.wait_until("the drain is over, too", || is_over(host));
    std::fs::read_to_string(&file).expect("boundaries were passed")
}

/// What a command said of itself is true.
pub(crate) fn is_true(output: &Output, is_new: bool, at: &str) {
    match output.status.code() {
        Some(0) => assert!(is_new, "at {at}: it was said to serve:\n{}", said(output)),
        Some(6) => assert!(!is_new, "at {at}: it was said to have failed:\n{}", said(output)),
        code => assert_eq!(code, Some(9), "at {at}: {}", said(output)),
    }
}

/// Whether nothing is under way and every instance of what serves is ready.
pub(crate) fn is_at_rest(host: &TestHost) -> bool {
    let status = host.json(&["status"]);
    let services = status["services"].as_object().expect("services");
    let whole = services.values().all(|s| s["instances"]["ready"] == s["instances"]["desired"]);
    let waits = status["waiting"].as_array().is_some_and(|w| !w.is_empty());
    whole && !waits && status["traffic"]["state"] == "settled"
}

/// Whether nothing is under way any more, or nobody is there to say.
pub(crate) fn is_over(host: &TestHost) -> bool {
    let log = host.kiln(&["log", "-n", "4", "--json"]);
    let entries: serde_json::Value = serde_json::from_slice(&log.stdout).unwrap_or_default();
    let under_way = |e: &serde_json::Value| e["outcome"] == "under way";
    !log.status.success() || !entries.as_array().expect("entries").iter().any(under_way)
}

/// Who dies beside control.
#[derive(Debug, Clone, Copy)]
enum Beside {
    Nobody,
    Keeper,
    KeeperAndHolder,
    Edge,
}

impl Beside {
    /// Kills them while no control plane lives that could notice.
    fn die(self, host: &TestHost) {
        let kill = |pid: Pid| kill_process(pid, Signal::KILL).expect("it runs");
        match self {
            Self::Nobody => {}
            Self::Keeper => kill(host.keeper()),
            Self::KeeperAndHolder => {
                let (holder, keeper) = (host.holder(), host.keeper());
                // It must not have the time to make another holder.
                kill_process(keeper, Signal::STOP).expect("it runs");
                kill(holder);
                kill(keeper);
            }
            Self::Edge => kill(host.process("edge")),
        }
    }
}

/// Deploys while control meets its fate at `boundary`; afterwards the app is wholly on the old or wholly on the new
/// release, and what the command said is true.
fn deploy_through(host: &mut TestHost, project: &Project, boundary: &str, beside: Beside) {
    let before = (host.live(), host.page());
    host.kill_control();
    host.restart_control_until(boundary);
    project.say(boundary);
    let output = host.kiln(&["deploy", project.dir()]);
    host.wait_until("it is dead, or all is done", || is_over(host));
    host.kill_control();
    beside.die(host);
    match beside {
        // Its port is lost with it: nobody asked for one by name.
        Beside::Edge => host.restart_elsewhere(),
        _ => host.restart_control(),
    }
    host.wait_until("everything is at rest", || is_at_rest(host));
    let (live, page) = (host.live(), host.page());
    let is_new = page.contains(boundary);
    assert_eq!(is_new, live != before.0, "at {boundary}: {live} serves {page}");
    assert!(is_new || page == before.1, "at {boundary}: {page}");
    is_true(&output, is_new, boundary);
    nothing_is_left_over(host, boundary);
}

/// The live release runs, and the one before it is warm; what came to nothing leaves both as they were.
pub(crate) fn nothing_is_left_over(host: &TestHost, at: &str) {
    let status = host.json(&["status"]);
    let known = [&status["live"], &status["previous"]];
    let instances = host.json(&["instances"]);
    let mut running = instances.as_array().expect("instances").iter();
    let other = running.find(|i| !known.contains(&&i["release"]));
    assert_eq!(other, None, "at {at}: an instance of another release is left");
    let running = |i: &serde_json::Value| i["id"].as_str().expect("an id").to_owned();
    let running: BTreeSet<String> = instances.as_array().expect("instances").iter().map(running).collect();
    // It need not remember who has ended any more.
    host.wait_until("the engine knows those who run, and nobody else", || remembered(host) == running);
}

/// Those the engine has or remembers.
pub(crate) fn remembered(host: &TestHost) -> BTreeSet<String> {
    let engine = kiln_engine::embedded::Embedded::connect(&host.root.path().join("run")).expect("a keeper");
    let known = kiln_engine::Engine::list(&engine).expect("an answer");
    known.into_iter().map(|status| status.id.to_string()).collect()
}

/// Deploys through a sample of all boundaries, in turn with each of `fates` and of `beside`, under load: no request fails.
fn under_load(sample: usize, fates: &[&str], beside: &[Beside]) {
    let (mut host, project) = (TestHost::start(), Project::example("hello"));
    host.deploy(&project);
    let all = count(&mut host, &project);
    let load = host.load();
    let turns = fates.iter().cycle().zip(beside.iter().cycle());
    for (n, (fate, beside)) in chosen(all, sample).into_iter().zip(turns) {
        deploy_through(&mut host, &project, &format!("{fate}:{n}"), *beside);
    }
    assert_eq!(load.stop().failures, []);
}

#[test]
fn control_is_killed_at_every_boundary() {
    under_load(10, &["die"], &[Beside::Nobody]);
}

#[test]
fn the_disk_fails_at_every_boundary() {
    under_load(5, &["refuse", "fill"], &[Beside::Nobody]);
}

/// Instances live on without it, and requests that need a new socket wait for the next keeper.
#[test]
fn the_keeper_dies_with_control_at_boundaries() {
    under_load(6, &["die"], &[Beside::KeeperAndHolder, Beside::Keeper]);
}

/// The app is wholly on one release, and nothing is left over. There is no load here: nobody listens while edge and control
/// are dead.
#[test]
fn the_edge_dies_with_control_at_boundaries() {
    let (mut host, project) = (TestHost::start(), Project::example("hello"));
    host.deploy(&project);
    let all = count(&mut host, &project);
    for n in chosen(all, 2) {
        deploy_through(&mut host, &project, &format!("die:{n}"), Beside::Edge);
    }
}
