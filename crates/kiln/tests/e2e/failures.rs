//! Deploys that are refused, and what serves meanwhile.

use std::process::Output;

use crate::host::{TestHost, said};
use crate::project::Project;

/// Deploys `example` over a good release under load: the exit code must be `code`, what is said must contain `says`,
/// and the old release must have served every request.
fn is_refused(example: &str, code: i32, says: &[&str]) -> (TestHost, Output) {
    let host = TestHost::start();
    let good = host.deploy(&Project::example("hello"));
    let load = host.load();
    let output = host.kiln(&["deploy", Project::example(example).dir()]);
    let report = load.stop();
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    assert_eq!(report.failures, [], "of {} requests", report.requests);
    assert!(report.requests > 0);
    let text = said(&output);
    for expected in says.iter().chain([&&good[..14]]) {
        assert!(text.contains(expected), "`{expected}` is not said:\n{text}");
    }
    assert_eq!(host.live(), good);
    let instances = host.json(&["instances"]);
    let strays = instances.as_array().unwrap().iter().filter(|i| i["release"] != good.as_str()).count();
    assert_eq!(strays, 0, "nothing of the failed release is left: {instances}");
    (host, output)
}

#[test]
fn a_broken_image_is_refused_and_the_old_release_serves_on() {
    let (host, _) = is_refused("broken", 5, &["lissten", "run /usr/sbin/nginx -t", "kiln logs"]);
    assert!(host.json(&["releases"]).as_array().unwrap().len() == 1, "it never was a release");
}

#[test]
fn a_sick_release_is_thrown_away_and_the_old_release_serves_on() {
    let (host, _) = is_refused("sick", 6, &["/healthz", "404", "thrown away"]);
    let log = host.json(&["log"]);
    let deploy = log.as_array().unwrap().iter().find(|e| e["what"] == "deploy").unwrap();
    assert_eq!(deploy["outcome"], "failed", "{log}");
    assert!(host.json(&["status"])["last_failure"].as_str().unwrap().contains("404"));
}

/// What cannot succeed is refused before anything is made, and a dry run says the same.
#[test]
fn what_cannot_succeed_is_refused_before_anything_is_made() {
    let host = TestHost::start();
    let good = host.deploy(&Project::example("hello"));
    let operations = || host.json(&["log"]).as_array().unwrap().len();
    let before = operations();
    // A port somebody else listens on, a store that takes no connection, more memory than there is, a secret nobody set.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (tcp, store) = (
        format!("[route.raw]\nservice = \"web\"\ntcp = {}\n", taken.local_addr().unwrap().port()),
        format!("[store.db]\naddress = \"{closed}\"\n"),
    );
    let cases = [
        ("", tcp.as_str(), "is in use, and route `raw` is to be there"),
        ("needs = [\"db\"]", store.as_str(), "store `db` at"),
        ("memory = \"900000GiB\"", "", "of memory, and this host has"),
        ("secrets = [\"KEY\"]", "", "KEY"),
    ];
    for (key, section, says) in cases {
        let project = Project::example("hello");
        project.say("never seen");
        if key.starts_with("memory") {
            project.edit("kiln.toml", "memory    = \"64MiB\"", key);
        } else {
            project.edit("kiln.toml", "cpu       = 0.5", &format!("cpu = 0.5\n{key}"));
        }
        project.append("kiln.toml", &format!("\n{section}"));
        for command in ["plan", "deploy"] {
            let output = host.kiln(&[command, project.dir()]);
            assert!(
                !output.status.success() && output.status.code() != Some(1),
                "{command}: {}",
                said(&output)
            );
            assert!(said(&output).contains(says), "{command}: `{says}` is not said:\n{}", said(&output));
        }
    }
    assert_eq!((host.live(), operations()), (good, before), "nothing was begun");
}

#[test]
fn a_second_deploy_of_the_same_app_is_refused() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let sick = Project::example("sick");
    let mut first = host.command(&["deploy", sick.dir()]);
    let mut first =
        first.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    host.wait_until("the first deploy waits", || {
        !host.json(&["status"])["waiting"].as_array().unwrap().is_empty()
    });
    let second = host.kiln(&["deploy", Project::example("hello").dir()]);
    assert_eq!(second.status.code(), Some(8), "{}", said(&second));
    assert_eq!(first.wait().unwrap().code(), Some(6));
}

#[test]
fn a_deploy_whose_asker_leaves_is_given_up() {
    let host = TestHost::start();
    let good = host.deploy(&Project::example("hello"));
    let sick = Project::example("sick");
    sick.edit("kiln.toml", "start_timeout = \"3s\"", "start_timeout = \"10m\"");
    let mut deploy =
        host.command(&["deploy", sick.dir()]).stderr(std::process::Stdio::null()).spawn().unwrap();
    host.wait_until("the deploy waits", || !host.json(&["status"])["waiting"].as_array().unwrap().is_empty());
    let pid = rustix::process::Pid::from_child(&deploy);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    deploy.wait().unwrap();
    host.wait_until("its fleet is gone", || {
        let now = host.json(&["instances"]);
        now.as_array().unwrap().iter().all(|i| i["release"] == good.as_str())
    });
}

/// Instances that end at once, eat their memory or hang never become a release; the cause is told.
#[test]
fn the_cause_of_a_failed_deploy_is_told() {
    let cases = [
        (6, r#"["/bin/sh", "-c", "exit 3"]"#, "exited with code 3"),
        (6, r#"["/usr/bin/perl", "-e", "$x = 'x' x (1 << 30); sleep 9"]"#, "memory limit of 64MiB"),
        (6, r#"["/bin/sleep", "600"]"#, "connection refused"),
        (4, r#"["/no/such/program"]"#, "/no/such/program"),
    ];
    let host = TestHost::start();
    for (code, run, says) in cases {
        let project = Project::example("hello");
        project.edit("kiln.toml", r#"["/usr/sbin/nginx", "-g", "daemon off;"]"#, run);
        project.edit(
            "kiln.toml",
            r#"http = { path = "/", status = 200, contains = "hello" }"#,
            r#"file = { path = "/bin/sh" }"#,
        );
        project.edit("kiln.toml", "healthy_after = 2", r#"healthy_after = 2, start_timeout = "2s""#);
        let output = host.kiln(&["deploy", project.dir()]);
        assert_eq!(output.status.code(), Some(code), "{run}:\n{}", said(&output));
        assert!(said(&output).contains(says), "`{says}` is not said:\n{}", said(&output));
    }
}

/// What is refused is nothing to go back to, and holds no secret; what failed is told as that, and is no app of the host.
#[test]
fn what_came_to_nothing_leaves_nothing_that_counts() {
    let host = TestHost::start();
    assert_eq!(host.json(&["status"])["live"], serde_json::Value::Null, "nothing is an answer");
    let project = Project::example("hello");
    project.append("kiln.toml", "schema = { oldest = 6, newest = 7 }\n");
    let live = host.deploy(&project);
    let set_key = |app: &str| {
        let set = host.kiln(&["secret", "set", "KEY", "--app", app, "--file", "/etc/hostname"]);
        assert!(set.status.success(), "{}", said(&set));
    };
    set_key("hello");
    project.edit("kiln.toml", "oldest = 6, newest = 7", "oldest = 1, newest = 2");
    project.edit("kiln.toml", "cpu       = 0.5", "cpu = 0.5\nsecrets = [\"KEY\"]");
    let refused = host.kiln(&["deploy", "--json", project.dir()]);
    assert_eq!(refused.status.code(), Some(7), "{}", said(&refused));
    let last = String::from_utf8(refused.stdout.clone()).unwrap().lines().last().unwrap().to_owned();
    let failed: serde_json::Value = serde_json::from_str(&last).unwrap();
    let release = failed["release"].as_str().expect("it is told which");
    assert_eq!(host.kiln(&["releases", "show", release]).status.code(), Some(2), "it is not kept");
    let removed = host.kiln(&["secret", "rm", "KEY", "--app", "hello"]);
    assert!(removed.status.success(), "nothing needs it: {}", said(&removed));

    let other = Project::example("hello");
    other.edit("kiln.toml", "app = \"hello\"", "app = \"two\"");
    other.edit("kiln.toml", "[route.web]", "[route.web]\nhost = \"two.example.com\"");
    other.edit("kiln.toml", "cpu       = 0.5", "cpu = 0.5\nsecrets = [\"KEY\"]");
    set_key("two");
    other.edit("kiln.toml", r#"["/usr/sbin/nginx", "-g", "daemon off;"]"#, r#"["/bin/sh", "-c", "exit 3"]"#);
    other.edit(
        "kiln.toml",
        r#"http = { path = "/", status = 200, contains = "hello" }"#,
        r#"file = { path = "/bin/sh" }"#,
    );
    let failed = host.kiln(&["deploy", "--json", other.dir()]);
    assert_eq!(failed.status.code(), Some(6), "{}", said(&failed));
    let last = String::from_utf8(failed.stdout.clone()).unwrap().lines().last().unwrap().to_owned();
    let failed: serde_json::Value = serde_json::from_str(&last).unwrap();
    let never = host.kiln(&["rollback", failed["release"].as_str().unwrap(), "--app", "two"]);
    assert_eq!(never.status.code(), Some(2), "{}", said(&never));
    assert!(said(&never).contains("never served: the deploy to it"), "{}", said(&never));
    host.wait_until("only one app is here", || {
        host.json(&["status", "--app", "two"])["waiting"] == serde_json::json!([])
    });
    assert_eq!(host.live(), live, "it is the one that is meant");
    let removed = host.kiln(&["secret", "rm", "KEY", "--app", "two"]);
    assert!(removed.status.success(), "what never served holds no secret: {}", said(&removed));
    let log = host.json(&["log", "--app", "two"]);
    assert!(!log.to_string().contains("takes its place"), "what was never made takes no place: {log}");
}

/// Limits are not reservations: what may use more than there is is told, and goes through.
#[test]
fn limits_beyond_the_memory_of_the_host_are_told_before_anything_is_made() {
    let host = TestHost::start();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap();
    let total: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
    let project = Project::example("hello");
    project.edit("kiln.toml", "memory    = \"64MiB\"", &format!("memory = \"{}MiB\"", total / 1024 / 2));
    for command in ["plan", "deploy"] {
        let output = host.kiln(&[command, project.dir()]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("4 new instances may use"), "{command}: {}", said(&output));
    }
}

#[test]
fn the_output_of_what_never_was_is_refused() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    assert!(host.kiln(&["logs", "web"]).status.success());
    for (arguments, says) in [
        (["logs", "nosuch", "-q"], "there never was a service nosuch"),
        (["logs", "--instance", "nosuch"], "there never was an instance nosuch"),
    ] {
        let output = host.kiln(&arguments);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(says), "{}", said(&output));
    }
    assert!(said(&host.kiln(&["logs", "nosuch"])).contains("the services here are: web"));
}
