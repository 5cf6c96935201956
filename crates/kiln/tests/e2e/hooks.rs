//! What is run once when a release takes over, on real instances. (A migration of a real database is part of the shop.)

use std::net::TcpListener;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{TestHost, free, said};
use crate::project::Project;
use crate::trace;

/// The example with these hooks.
fn with_hooks(text: &str, hooks: &str) -> Project {
    let project = Project::example("hello");
    project.say(text);
    project.append("kiln.toml", &format!("\n[service.web.hooks]\n{hooks}\n"));
    project
}

/// What the instances of hooks have written, as `kiln logs` has it.
pub(crate) fn written(host: &TestHost) -> Vec<serde_json::Value> {
    let output = host.kiln(&["logs", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let of_hook = |line: &serde_json::Value| {
        let id = line["instance"].as_str().unwrap_or_default();
        id.contains("-before") || id.contains("-after")
    };
    lines.filter(of_hook).collect()
}

#[test]
fn hooks_run_in_the_new_image_and_what_fails_after_the_switch_is_told() {
    let host = TestHost::start();
    let first = host.deploy(&Project::example("hello"));
    let project = with_hooks(
        "hooked",
        r#"before = [{ run = ["/bin/sh", "-c", "cat /srv/www/index.html; echo $GREETING"] }]
after = [{ run = ["/bin/sh", "-c", "echo oh dear; exit 3"] }]"#,
    );
    project.edit(
        "kiln.toml",
        "cpu       = 0.5",
        "cpu       = 0.5\nenv       = { GREETING = \"good morning\" }",
    );
    let plan = host.kiln(&["plan", project.dir()]);
    assert!(said(&plan).contains("run `/bin/sh -c cat /srv/www/index.html"), "{}", said(&plan));
    let deployed = host.kiln(&["deploy", project.dir()]);
    assert!(deployed.status.success(), "the release serves: {}", said(&deployed));
    assert!(said(&deployed).contains("warning: hook hello-web-2-after1 failed: it exited with code 3"));
    assert_eq!(host.page(), "<h1>hello hooked</h1>\n");

    let lines = written(&host);
    let texts: Vec<&str> = lines.iter().map(|l| l["line"].as_str().unwrap()).collect();
    assert_eq!(texts, ["<h1>hello hooked</h1>", "good morning", "oh dear"]);
    let release = host.live();
    assert_eq!((&lines[0]["service"], &lines[0]["release"]), (&"web".into(), &release.as_str().into()));
    let log = host.json(&["log"]);
    assert!(log[0]["reason"].as_str().unwrap().contains("hello-web-2-after1 failed"), "{log}");
    let shown = said(&host.kiln(&["releases", "show", &release]));
    assert!(shown.contains("after 1 /bin/sh -c 'echo oh dear; exit 3' (at most 5m)"), "{shown}");
    let differs = said(&host.kiln(&["releases", "diff", &first, &release]));
    assert!(differs.contains("service web: hook before 1 /bin/sh -c 'cat"), "{differs}");
    let back = host.kiln(&["rollback"]);
    assert!(back.status.success(), "{}", said(&back));
    let forth = host.kiln(&["rollback"]);
    assert!(forth.status.success(), "{}", said(&forth));
    assert_eq!(written(&host).len(), 3, "going back runs none");
}

#[test]
fn a_hook_that_fails_before_the_switch_is_a_deploy_that_failed() {
    let host = TestHost::start();
    let good = host.deploy(&Project::example("hello"));
    let load = host.load();
    let cases = [
        (
            r#"before = [{ run = ["/bin/sh", "-c", "echo no such column >&2; exit 4"] }]"#,
            "exited with code 4",
        ),
        (r#"before = [{ run = ["/bin/sleep", "600"], timeout = "200ms" }]"#, "had not ended after 200ms"),
        (r#"before = [{ run = ["/no/such/program"] }]"#, "/no/such/program"),
    ];
    for (hooks, says) in cases {
        let output = host.kiln(&["deploy", with_hooks("never seen", hooks).dir()]);
        assert_eq!(output.status.code(), Some(6), "{}", said(&output));
        assert!(said(&output).contains(says), "`{says}` is not said:\n{}", said(&output));
        assert_eq!(host.live(), good);
    }
    assert!(written(&host).iter().any(|l| l["line"] == "no such column" && l["stream"] == "stderr"));
    let report = load.stop();
    assert_eq!(report.failures, [], "of {} requests", report.requests);
    let instances = host.json(&["instances"]);
    assert!(instances.as_array().unwrap().iter().all(|i| i["release"] == good.as_str()), "{instances}");
}

/// The process of a hook that waits to be told to end.
fn patient(host: &TestHost, marker: &str) -> Pid {
    let find =
        || trace::processes().into_iter().find(|(_, line)| line.contains(marker) && line.contains("trap"));
    host.wait_until("the hook runs", || find().is_some());
    let pid = find().unwrap().0;
    // The first of its process namespace: the kernel drops a signal that it does not handle yet.
    host.wait_until("it can be told to end", || handles_term(pid));
    Pid::from_raw(pid).unwrap()
}

fn handles_term(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    caught.is_some_and(|set| set & 1 << (Signal::TERM.as_raw() - 1) != 0)
}

/// Begins to deploy the example with a hook, `before` or `after`, that waits to be told to end; it runs.
pub(crate) fn begin(host: &TestHost, text: &str, when: &str) -> (Project, Child, Pid) {
    begin_with(host, (text, when), |_| ())
}

pub(crate) fn begin_with(
    host: &TestHost,
    (text, when): (&str, &str),
    edit: impl FnOnce(&Project),
) -> (Project, Child, Pid) {
    let marker = format!("marker-{text}-{}", std::process::id());
    let script = format!("trap 'exit 0' TERM; echo begun {marker}; while :; do sleep 0.05; done");
    let project = with_hooks(text, &format!(r#"{when} = [{{ run = ["/bin/sh", "-c", "{script}"] }}]"#));
    edit(&project);
    let mut deploy = host.command(&["deploy", project.dir()]);
    let deploy = deploy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let hook = patient(host, &marker);
    (project, deploy, hook)
}

#[test]
fn a_release_that_serves_is_not_cancelled_while_its_hooks_run() {
    let host = TestHost::start();
    let (_project, deploy, hook) = begin(&host, "serves", "after");
    let nothing = host.kiln(&["cancel", "--app", "hello"]);
    assert_eq!(nothing.status.code(), Some(2), "{}", said(&nothing));
    assert!(said(&nothing).contains("kiln rollback"), "{}", said(&nothing));
    let all = host.json(&["instances"]);
    let of_hook = all.as_array().unwrap().iter().find(|i| i["state"] == "hook").expect("the hook's");
    let id = of_hook["id"].as_str().unwrap();
    assert!(id.ends_with("-after1"), "{of_hook}");
    assert!(of_hook["reason"].as_str().unwrap().contains("under way: /bin/sh -c trap"), "{of_hook}");
    let touched = host.kiln(&["exec", id, "--", "true"]);
    assert_eq!(touched.status.code(), Some(2), "{}", said(&touched));
    assert!(said(&touched).contains("is the instance of a hook"), "{}", said(&touched));
    kill_process(hook, Signal::TERM).unwrap();
    assert_eq!(deploy.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(host.page(), "<h1>hello serves</h1>\n");
}

#[test]
fn what_serves_can_be_gone_back_from_while_its_hooks_run() {
    let host = TestHost::start();
    let first = host.deploy(&Project::example("hello"));
    let (_project, deploy, _hook) = begin(&host, "regretted", "after");
    assert_eq!(host.page(), "<h1>hello regretted</h1>\n");
    let back = host.kiln(&["rollback"]);
    assert!(back.status.success(), "{}", said(&back));
    assert_eq!(host.live(), first);
    // It served before that, and its hook did not come to its end.
    let output = deploy.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("-after1"), "{}", said(&output));
    host.wait_until("all of it is over", || host.json(&["status"])["waiting"] == serde_json::json!([]));
}

#[test]
fn who_leaves_while_hooks_run_is_told_that_the_release_serves() {
    let host = TestHost::start();
    let (_project, deploy, hook) = begin(&host, "kept", "after");
    kill_process(Pid::from_child(&deploy), Signal::INT).unwrap();
    let output = deploy.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).contains("the new release serves and stays"), "{}", said(&output));
    kill_process(hook, Signal::TERM).unwrap();
    assert!(host.kiln(&["wait"]).status.success());
    assert_eq!(host.page(), "<h1>hello kept</h1>\n");
}

/// Between the preflight and the switch somebody takes the port that a route is to have.
#[test]
fn a_port_that_is_taken_before_the_switch_fails_the_deploy_and_holds_up_nobody() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let port = free().port();
    let with_port = |project: &Project| {
        project.append("kiln.toml", &format!("\n[route.raw]\nservice = \"web\"\ntcp = {port}\n"));
    };
    let (project, deploy, hook) = begin_with(&host, ("with a port", "before"), with_port);
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    kill_process(hook, Signal::TERM).unwrap();
    let failed = deploy.wait_with_output().unwrap();
    assert_eq!(failed.status.code(), Some(6), "{}", said(&failed));
    let words = format!("127.0.0.1:{port} is in use by another program");
    assert!(said(&failed).contains(&words), "{}", said(&failed));
    assert!(host.page().contains("hello") && !host.page().contains("with a port"), "the old one serves");
    drop(taken);
    project.edit_line("kiln.toml", "before = ", "");
    host.deploy(&project);
    assert_eq!(host.page(), "<h1>hello with a port</h1>\n");
}

#[test]
fn a_hook_outlives_the_control_plane_and_is_run_once() {
    let mut host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let (_project, deploy, hook) = begin(&host, "migrated", "before");
    host.kill_control();
    let told = deploy.wait_with_output().unwrap();
    assert_eq!(told.status.code(), Some(9), "whoever asked cannot know how it ends");
    host.restart_control();
    // Somebody else follows it, and it ends well.
    let mut follower = host.command(&["wait", "--app", "hello", "--json"]);
    let follower = follower.stdout(Stdio::piped()).spawn().unwrap();
    host.wait_until("it is waited for", || said(&host.kiln(&["status"])).contains("trap"));
    kill_process(hook, Signal::TERM).unwrap();
    let followed = follower.wait_with_output().unwrap();
    assert!(followed.status.success(), "{}", said(&followed));
    host.wait_until("it serves", || host.page().contains("migrated"));
    let lines = written(&host);
    assert_eq!(lines.len(), 1, "it was run once: {lines:?}");
}

#[test]
fn a_newer_deploy_takes_the_place_of_one_that_does_not_serve_yet() {
    let host = TestHost::start();
    let good = host.deploy(&Project::example("hello"));
    let (_project, deploy, hook) = begin(&host, "older", "before");
    let newer = Project::example("hello");
    newer.say("newer");
    let refused = host.kiln(&["deploy", newer.dir()]);
    assert_eq!(refused.status.code(), Some(8), "{}", said(&refused));
    assert!(said(&refused).contains("`kiln wait` follows it"), "{}", said(&refused));
    assert_eq!(host.live(), good);
    let output = host.kiln(&["deploy", "--supersede", newer.dir()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(host.page(), "<h1>hello newer</h1>\n");
    let older = deploy.wait_with_output().unwrap();
    assert_eq!(older.status.code(), Some(6), "{}", said(&older));
    assert!(said(&older).contains("superseded"), "{}", said(&older));
    host.wait_until("the older one's hook is ended", || rustix::process::test_kill_process(hook).is_err());
    let log = host.json(&["log"]);
    let outcomes: Vec<&str> =
        log.as_array().unwrap().iter().map(|e| e["outcome"].as_str().unwrap()).collect();
    assert!(outcomes.contains(&"superseded"), "{log}");
    let ended = host.kiln(&["wait", "2", "--app", "hello"]);
    assert_eq!(ended.status.code(), Some(6), "{}", said(&ended));
    let idle = host.kiln(&["wait", "--app", "hello"]);
    assert!(idle.status.success() && said(&idle).contains("nothing is under way"), "{}", said(&idle));
}
