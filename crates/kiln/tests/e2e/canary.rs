//! Canaries on real instances, under load: a good one goes through, a bad one is given up, and nobody but its share
//! of the users has seen it.

use std::process::{Child, Output, Stdio};
use std::time::Duration;

use kiln_testkit::load::{Load, LoadPlan, LoadReport};

use crate::host::{TestHost, said};
use crate::project::Project;

/// Answers with its release; some releases fail every second request, or are slow. Probes come without the edge's
/// header: to them it is always well.
const SERVER: &str = r#"
import itertools, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RELEASE, MODE = os.environ["RELEASE"], os.environ.get("MODE", "good")
turn = itertools.count()

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    def do_GET(self):
        is_user = self.headers.get("x-request-id") is not None
        if is_user and MODE == "slow":
            time.sleep(0.08)
        bad = is_user and MODE == "fails" and next(turn) % 2 == 0
        body = f"release {RELEASE}\n".encode()
        self.send_response(500 if bad else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

Server(("", 8080), Handler).serve_forever()
"#;

const SPEC: &str = r#"app = "bird"

[image.web]
from     = "debian:bookworm"
packages = ["python3"]
files    = [{ src = "server.py", dst = "/srv/server.py" }]
run      = ["/usr/bin/python3", "/srv/server.py"]
user     = "nobody"

[service.web]
image     = "web"
port      = 8080
instances = 2
env       = { RELEASE = "1", MODE = "good" }
health    = { http = "/", interval = "200ms" }

[deploy]
strategy = { canary = ["0%", "10%", "50%"], hold = "3s", within = "50s", errors = "3%", slower = "400%", preview = true }
drain    = "5s"
"#;

fn project() -> Project {
    let project = Project::empty();
    project.write("kiln.toml", SPEC);
    project.write("server.py", SERVER);
    project
}

fn next(project: &Project, from: &str, to: &str) {
    project.edit("kiln.toml", from, to);
}

/// 200 requests a second, each by another user.
fn plan(host: &TestHost) -> LoadPlan {
    let address = host.address.trim_start_matches("http://").parse().expect("an address");
    LoadPlan { requests_per_s: 180, new_connections_per_s: 20, ..LoadPlan::of(address) }
}

fn begin(host: &TestHost, project: &Project) -> Child {
    let mut command = host.command(&["deploy", project.dir()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kiln can be run")
}

fn page(host: &TestHost, preview: &str) -> String {
    let answer = ureq::get(&host.address).header("x-kiln-preview", preview).call().expect("an answer");
    answer.into_body().read_to_string().expect("a page")
}

/// The last deploy as the log has it: its outcome and why.
fn logged(host: &TestHost) -> (String, String) {
    let log = host.json(&["log"]);
    let deploy = log.as_array().unwrap().iter().find(|e| e["what"] == "deploy").expect("a deploy").clone();
    let text = |key: &str| deploy[key].as_str().unwrap_or_default().to_owned();
    (text("outcome"), text("reason"))
}

#[test]
fn a_good_canary_goes_through_step_by_step_and_nobody_notices() {
    let host = TestHost::start();
    let project = project();
    host.deploy(&project);
    let load = Load::start(plan(&host));
    next(&project, "RELEASE = \"1\"", "RELEASE = \"2\"");
    let deploy = begin(&host, &project);
    // At 0 % only those who ask for it have it.
    host.wait_until("there is a preview", || page(&host, "1") == "release 2\n");
    let status = host.json(&["status"]);
    assert_eq!(status["traffic"]["state"], "shifting", "{status}");
    assert_eq!(page(&host, "0"), "release 1\n");
    // A step of its own for each wait: with little time to itself the evidence for one takes as long as it may.
    host.wait_until("a tenth of the users are there", || host.json(&["status"])["traffic"]["share"] == 0.1);
    host.wait_until("half of the users are there", || host.json(&["status"])["traffic"]["share"] == 0.5);
    // Whoever was given a number stays where he is.
    let answer = ureq::get(&host.address).call().expect("an answer");
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let first = answer.into_body().read_to_string().unwrap();
    for _ in 0..20 {
        if host.json(&["status"])["traffic"]["state"] != "shifting" {
            break;
        }
        let again = ureq::get(&host.address).header("cookie", &cookie).call().expect("an answer");
        let again = again.into_body().read_to_string().unwrap();
        assert!(again == first || again == "release 2\n", "{again} after {first}");
    }
    let output = deploy.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", said(&output));
    let report = load.stop();
    assert_eq!(report.failures, [], "of {} requests", report.requests);
    assert!(report.by_marker.contains_key("release 1") && report.by_marker.contains_key("release 2"));
    let (_, reason) = logged(&host);
    assert!(reason.contains("as good as what serves: web: "), "{reason}");
    assert!(host.json(&["status"])["traffic"]["state"] == "settled");
}

/// Deploys a bad release under load: what the deploy says, and how the load went meanwhile.
fn given_up(mode: &str) -> (Output, LoadReport) {
    let host = TestHost::start();
    let project = project();
    next(&project, "[\"0%\", \"10%\", \"50%\"]", "[\"10%\", \"50%\"]");
    let first = host.deploy(&project);
    let load = Load::start(plan(&host));
    assert!(load.wait_for(200, Duration::from_secs(60)), "no load");
    next(&project, "RELEASE = \"1\", MODE = \"good\"", &format!("RELEASE = \"2\", MODE = \"{mode}\""));
    let output = begin(&host, &project).wait_with_output().expect("it ends");
    let report = load.stop();
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    assert_eq!(host.live(), first);
    let (outcome, reason) = logged(&host);
    assert_eq!(outcome, "failed");
    assert!(reason.contains("Fisher's exact test"), "{reason}");
    // Nothing of it is left, and nobody sees it any more.
    let load = Load::start(plan(&host));
    assert!(load.wait_for(300, Duration::from_secs(60)), "no load");
    let after = load.stop();
    assert_eq!(after.failures, [], "of {} requests", after.requests);
    assert_eq!(after.by_marker.keys().collect::<Vec<_>>(), ["release 1"]);
    let instances = host.json(&["instances"]);
    assert!(instances.as_array().unwrap().iter().all(|i| i["release"] == first.as_str()), "{instances}");
    (output, report)
}

#[test]
fn a_canary_that_fails_is_given_up_and_only_its_share_has_seen_it() {
    let (output, report) = given_up("fails");
    assert!(said(&output).contains("web fails more: "), "{}", said(&output));
    assert!(!report.failures.is_empty(), "somebody had to see it");
    assert!(report.failures.iter().all(|f| f.what.starts_with("answered 500")), "{report}");
    // A tenth of the users, and every second request of theirs.
    assert!(report.failures.len() as u64 <= report.requests / 10, "{report}");
}

#[test]
fn a_canary_that_is_slow_is_given_up_and_fails_nobody() {
    let (output, report) = given_up("slow");
    assert!(said(&output).contains("web is slower: "), "{}", said(&output));
    assert_eq!(report.failures, [], "of {} requests", report.requests);
    let slow = report.by_marker.get("release 2").copied().unwrap_or(0);
    assert!(slow > 0 && slow <= report.requests / 5, "{slow} of {}", report.requests);
}

#[test]
fn a_control_plane_that_leaves_in_the_middle_says_that_the_next_one_goes_on() {
    let mut host = TestHost::start();
    let project = project();
    let old = host.deploy(&project);
    next(&project, "RELEASE = \"1\"", "RELEASE = \"2\"");
    let deploy = begin(&host, &project);
    host.wait_until("there is a preview", || page(&host, "1") == "release 2\n");
    host.leave_control();
    let left = deploy.wait_with_output().unwrap();
    assert_eq!(left.status.code(), Some(9), "{}", said(&left));
    let serves = format!("bird is served by {} and, to ", &old[..14]);
    for words in [serves.as_str(), "the next `kiln serve` goes on with what is under way"] {
        assert!(said(&left).contains(words), "{words}: {}", said(&left));
    }
    host.restart_control();
    let under_way = || host.json(&["status"])["waiting"].to_string();
    host.wait_until("it goes on", || under_way().contains("observe"));
    assert_eq!(page(&host, "1"), "release 2\n");
    let cancelled = host.kiln(&["cancel"]);
    assert!(cancelled.status.success(), "{}", said(&cancelled));
    host.wait_until("it is given up", || under_way() == "[]");
    assert_eq!(host.live(), old);
}
