//! Promise 4 on real instances: deploys, rollbacks, canaries, instance kills and renewals of the edge under load, with all
//! kinds of clients at once: kept and new connections, HTTP/2, events, websockets, slow downloads and uploads. Every request
//! and every stream is accounted for, and the test fails on one.
//!
//! Once round in CI, which is two hundred cut-overs; `KILN_SOAK_MINUTES=N` goes round as long as that, as `cargo xtask soak`
//! has it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kiln_testkit::load::{LoadHandle, LoadReport, StreamKind, StreamPlan, StreamReport, Streams};
use rustix::process::{Pid, Signal, kill_process};

use crate::host::{TestHost, said};
use crate::project::Project;

/// Warm rollbacks to and fro, at the end of each round.
const TO_AND_FRO: u32 = 200;

/// A download that takes a second (nginx gives the first second's worth at once), and uploads that are read whole before they
/// are answered.
const SLOW: &str = "
        location = /slow.bin { limit_rate 20k; }
        location = /taken { return 200 \"taken\\n\"; }
        location = /upload {
            proxy_pass_request_body off;
            proxy_set_header Content-Length \"\";
            proxy_pass http://127.0.0.1:8080/taken;
        }
";
const BYTES: usize = 40_000;

/// Beside nginx a server that speaks websockets, and a route to it.
const TALK: &str = "
[image.talk]
from     = \"debian:bookworm\"
packages = [\"python3-aiohttp\"]
files    = [{ src = \"talk.py\", dst = \"/srv/talk.py\" }]
run      = [\"/usr/bin/python3\", \"/srv/talk.py\"]
user     = \"nobody\"

[service.talk]
image     = \"talk\"
port      = 8000
instances = 2
memory    = \"128MiB\"
health    = { http = \"/talk/well\", interval = \"100ms\" }

[route.talk]
path    = \"/talk\"
service = \"talk\"
";
const INSTANCES: usize = 4 + 2;

fn project() -> Project {
    let project = Project::example("hello");
    project.edit("nginx.conf", "        index index.html;\n", &format!("        index index.html;\n{SLOW}"));
    project.write("site/slow.bin", &"x".repeat(BYTES));
    project.write("talk.py", include_str!("talk.py"));
    project.append("kiln.toml", TALK);
    project.edit("kiln.toml", "drain     = \"30s\"", "drain     = \"10s\"");
    project
}

/// Streams of about a second each, which is less than the drain: who has nothing that lasts longer wants none cut.
fn streams(host: &TestHost) -> Streams {
    let second = Duration::from_secs(1);
    let kinds = vec![
        StreamKind::Http2 { long: "/slow.bin".into(), bytes: BYTES, short: "/".into() },
        StreamKind::Events { path: "/talk/events".into(), events: 20 },
        StreamKind::Websocket { path: "/talk/echo".into(), messages: 20, pace: second / 20 },
        StreamKind::Download { path: "/slow.bin".into(), bytes: BYTES },
        StreamKind::Upload { path: "/upload".into(), bytes: BYTES, takes: second / 2 },
    ];
    let address = host.address.trim_start_matches("http://").parse().expect("an address");
    Streams::start(StreamPlan { address, host: "a".into(), kinds, clients_of_each: 2 })
}

/// What goes on meanwhile.
struct Rounds<'a> {
    host: &'a TestHost,
    project: &'a Project,
    load: &'a LoadHandle,
    streams: &'a Streams,
    begun: Instant,
    releases: u32,
    cut_overs: u32,
}

impl Rounds<'_> {
    fn one(&mut self) {
        self.deploy("\"blue-green\"");
        self.kill(&["web"]);
        self.deploy("{ canary = [\"20%\", \"50%\"], hold = \"1s\", within = \"2s\", errors = \"50%\", slower = \"10000%\" }");
        self.say("a rollback");
        self.rollback();
        self.renew_edge();
        self.kill(&["web", "talk"]);
        self.say("a rollback");
        self.rollback();
        self.say(&format!("{TO_AND_FRO} rollbacks to and fro"));
        (0..TO_AND_FRO).for_each(|_| self.rollback_under_load());
    }

    fn say(&self, what: &str) {
        println!("{:>6.1?} {what}", self.begun.elapsed());
    }

    fn deploy(&mut self, strategy: &str) {
        self.say(&format!("a deploy, {strategy}"));
        self.releases += 1;
        self.project.say(&format!("release {}", self.releases));
        self.project.edit_line("kiln.toml", "strategy", &format!("strategy  = {strategy}"));
        self.host.deploy(self.project);
        self.cut_overs += 1;
    }

    fn rollback(&mut self) {
        let output = self.host.kiln(&["rollback"]);
        assert!(output.status.success(), "the rollback failed:\n{}", said(&output));
        self.cut_overs += 1;
    }

    /// The next one follows when this one has been met by new requests.
    fn rollback_under_load(&mut self) {
        self.rollback();
        let so_far = self.load.so_far().requests;
        assert!(self.load.wait_for(so_far + 10, Duration::from_secs(60)), "the load goes on");
    }

    /// Those that serve: service, id and process.
    fn instances(&self) -> Vec<(String, String, i32)> {
        let live = self.host.live();
        let all = self.host.json(&["instances"]);
        let of_live =
            all.as_array().unwrap().iter().filter(|i| i["release"] == live.as_str() && i["state"] == "ready");
        let text = |i: &serde_json::Value, name: &str| i[name].as_str().unwrap().to_owned();
        let told = |i| (text(i, "service"), text(i, "id"), i["pid"].as_i64().unwrap_or(0) as i32);
        of_live.map(told).collect()
    }

    /// One instance of each of these services is killed, and another takes its place. What is in flight there is lost with
    /// it, so nothing that lasts is.
    fn kill(&self, services: &[&str]) {
        self.say(&format!("an instance of each of {services:?} is killed"));
        self.host.wait_until("all instances are well", || self.instances().len() == INSTANCES);
        let all = self.instances();
        let of = |service: &&str| all.iter().find(|i| i.0 == *service).expect("an instance of it");
        let victims: Vec<_> = services.iter().map(of).collect();
        self.streams.without(|| {
            for (_, id, pid) in &victims {
                kill_process(Pid::from_raw(*pid).expect("a process"), Signal::KILL)
                    .unwrap_or_else(|e| panic!("{id}: {e}"));
            }
            self.host.wait_until("others are there", || {
                let now = self.instances();
                now.len() == INSTANCES && victims.iter().all(|victim| !now.contains(victim))
            });
        });
    }

    fn renew_edge(&mut self) {
        self.say("another edge");
        let old = self.host.process("edge");
        self.host.signal_control(Signal::USR2);
        self.host.wait_until("another edge is there", || {
            self.host.find_process("edge").is_some_and(|now| now != old)
        });
        let so_far = self.load.so_far().requests;
        assert!(self.load.wait_for(so_far + 200, Duration::from_secs(60)), "the load goes on");
        self.cut_overs += 1;
    }
}

/// Says how it went, which must be well.
fn judge(report: &LoadReport, streams: &StreamReport, cut_overs: u32, took: Duration) {
    println!(
        "{} requests; streams: {streams}; through {cut_overs} cut-overs in {took:.0?}: {} failed; worst latency {:?}, p99 {:?}, \
         of a stream's first byte {:?}",
        report.requests,
        report.failures.len() + streams.failures().len(),
        report.max,
        report.p99,
        streams.slowest()
    );
    let lost = [lost_requests(report), streams.losses()].concat();
    assert!(lost.is_empty(), "dropped were:\n  {}", lost.join("\n  "));
    let few = streams.by_kind.values().filter(|counts| counts.whole < 10).count();
    assert!(
        report.requests > 2_000 && streams.by_kind.len() == 5 && few == 0 && cut_overs >= TO_AND_FRO,
        "{} requests and these streams through {cut_overs} cut-overs are too few: {streams}",
        report.requests
    );
}

/// How many requests were lost in which way: one that no connection was free for says that the machine does not keep up, all
/// others that Kiln has dropped them.
fn lost_requests(report: &LoadReport) -> Vec<String> {
    let mut ways = BTreeMap::<&str, Vec<Duration>>::new();
    report.failures.iter().for_each(|failure| ways.entry(&failure.what).or_default().push(failure.at));
    let all = report.requests;
    let told = |(what, at): (&str, Vec<Duration>)| {
        format!("{} of {all} requests, the first at {:.1?}: {what}", at.len(), at[0])
    };
    ways.into_iter().map(told).collect()
}

#[test]
fn nobody_is_dropped_by_real_instances() {
    let minutes = std::env::var("KILN_SOAK_MINUTES").ok().map(|n| n.parse().expect("a number of minutes"));
    let span = Duration::from_secs(60) * minutes.unwrap_or(0);
    let host = TestHost::start();
    let project = project();
    host.deploy(&project);
    let (load, streams, begun) = (host.load(), streams(&host), Instant::now());
    let mut rounds = Rounds {
        host: &host,
        project: &project,
        load: &load,
        streams: &streams,
        begun,
        releases: 0,
        cut_overs: 0,
    };
    loop {
        rounds.one();
        if begun.elapsed() >= span {
            break;
        }
    }
    let cut_overs = rounds.cut_overs;
    let streams = streams.stop();
    judge(&load.stop(), &streams, cut_overs, begun.elapsed());
}
