//! Going back brings back everything a release is, on real instances: the page, arguments, environment, limits, secrets,
//! routes and the size of the fleet.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::host::{TestHost, said};
use crate::project::Project;

fn set_secret(host: &TestHost, value: &str) {
    let mut command = host.command(&["secret", "set", "KEY", "--app", "hello"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// The n-th release: everything about it is another than before.
fn make(project: &Project, n: u32) {
    project.say(&format!("release {n}"));
    let spec = format!(
        "{}env = {{ RELEASE = \"{n}\" }}\nsecrets = [{{ name = \"KEY\", env = \"KEY\" }}]\n{}",
        SPEC.0, SPEC.1
    );
    let spec = spec
        .replace("MEMORY", &format!("{}MiB", 64 + n))
        .replace("INSTANCES", &(1 + n).to_string())
        .replace("QUIET", &"q".repeat(n as usize + 1));
    project.write("kiln.toml", &spec.replace("HOST", &format!("r{n}.example.com")));
}

const SPEC: (&str, &str) = (
    r#"app = "hello"
[image.web]
from     = "debian:bookworm"
packages = ["nginx-light"]
files    = [
  { src = "site/",      dst = "/srv/www" },
  { src = "nginx.conf", dst = "/etc/nginx/nginx.conf" },
]
run      = ["/usr/bin/perl", "-e", "system '/usr/sbin/nginx', '-g', 'daemon off;'", "QUIET"]
user     = "www-data"
[service.web]
image     = "web"
port      = 8080
instances = INSTANCES
memory    = "MEMORY"
health    = { http = "/", interval = "100ms" }
"#,
    r#"[route.web]
host = "HOST"
service = "web"
[deploy]
keep_warm = "0s"
"#,
);

fn status_at(host: &TestHost, name: &str) -> u16 {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    agent.get(&host.address).header("Host", name).call().unwrap().status().as_u16()
}

/// Everything that runs is the n-th release's, and so is the way there.
fn is_wholly(host: &TestHost, n: u32, release: &str) {
    host.wait_until("the old fleet is gone", || {
        host.json(&["instances"]).as_array().unwrap().iter().all(|i| i["release"] == release)
    });
    let instances = host.json(&["instances"]);
    assert_eq!(instances.as_array().unwrap().len(), n as usize + 1, "{instances}");
    for instance in instances.as_array().unwrap() {
        let pid = instance["pid"].as_u64().unwrap();
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
        assert!(
            read("cmdline").ends_with(&format!("\0{}\0", "q".repeat(n as usize + 1))),
            "{}",
            read("cmdline")
        );
        let environment = read("environ");
        for variable in [format!("RELEASE={n}"), format!("KEY=value {n}")] {
            assert!(environment.split('\0').any(|v| v == variable), "no {variable}");
        }
        assert_eq!(read("root/run/secrets/KEY"), format!("value {n}"));
        assert_eq!(read("root/srv/www/index.html"), format!("<h1>hello release {n}</h1>\n"));
    }
    // Arguments, environment, limits and mounts are those of the release: nothing differs.
    let verified = host.json(&["verify"]);
    let differs: Vec<&Value> =
        verified["instances"].as_array().unwrap().iter().map(|i| &i["differs"]).collect();
    assert!(differs.iter().all(|d| **d == serde_json::json!([])), "{verified}");
    assert_eq!(status_at(host, &format!("r{n}.example.com")), 200);
    for other in (0..3).filter(|other| *other != n) {
        assert_ne!(status_at(host, &format!("r{other}.example.com")), 200, "the route of {other} is gone");
    }
}

/// The steps of the last rollback, as the log has them: the whole fleet was healthy before the switch was begun.
fn whole_before_the_switch(host: &TestHost) {
    let text = std::fs::read_to_string(host.root.path().join("log/operations.jsonl")).unwrap();
    let entries: Vec<Value> =
        text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["entry"].clone()).collect();
    let begun = entries.iter().rposition(|e| e["plan"]["kind"] == "rollback").unwrap();
    let steps: Vec<&str> = entries[begun]["plan"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["action"]["do"].as_str().unwrap())
        .collect();
    let at = |entry: &str, step: &str| {
        let index = steps.iter().position(|s| *s == step).unwrap();
        let is_it = |e: &Value| e["entry"] == entry && e["step"] == index;
        begun + entries[begun..].iter().position(is_it).unwrap_or_else(|| panic!("no {entry} of {step}"))
    };
    assert!(at("outcome", "provision") < at("outcome", "await_healthy"));
    assert!(at("outcome", "await_healthy") < at("intent", "switch"));
    let switched: &str = entries[at("intent", "switch")]["at"].as_str().unwrap();
    for instance in host.json(&["instances"]).as_array().unwrap() {
        assert!(
            instance["since"].as_str().unwrap() <= switched,
            "{instance} came after the switch at {switched}"
        );
    }
}

#[test]
fn going_back_brings_back_all_of_a_release_before_any_traffic() {
    let host = TestHost::start();
    let project = Project::example("hello");
    let mut releases = Vec::new();
    for n in 0..3 {
        set_secret(&host, &format!("value {n}"));
        make(&project, n);
        releases.push(host.deploy(&project));
    }
    is_wholly(&host, 2, &releases[2]);
    for n in [0, 1, 0] {
        let output = host.kiln(&["rollback", &releases[n as usize]]);
        assert!(output.status.success(), "{}", said(&output));
        is_wholly(&host, n, &releases[n as usize]);
        whole_before_the_switch(&host);
    }
}

/// What was gone back to cannot be edited: the way out is another one.
#[test]
fn going_back_into_routes_of_another_app_is_refused_with_a_way_out() {
    let host = TestHost::start();
    let (project, other) = (Project::example("hello"), Project::example("hello"));
    let first = host.deploy(&project);
    project.edit("kiln.toml", "[route.web]", "[route.web]\nhost = \"hello.example.com\"");
    let second = host.deploy(&project);
    other.edit("kiln.toml", "app = \"hello\"", "app = \"other\"");
    host.deploy(&other);
    let refused = host.kiln(&["rollback", "--app", "hello", &first]);
    let text = said(&refused);
    assert_eq!(refused.status.code(), Some(3), "{text}");
    assert!(text.contains("app other") && text.contains("go back to a release without that route"), "{text}");
    assert!(!text.contains("kiln.toml"), "{text}");
    assert_eq!(host.json(&["status", "--app", "hello"])["live"], second.as_str());
}
