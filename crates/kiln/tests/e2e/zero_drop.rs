//! Promise 4 on real instances: deploys, rollbacks, canaries, instance kills and renewals of the edge under load, with
//! slow downloads and uploads beside it, and every one of them accounted for.
//!
//! Once round in CI; `KILN_SOAK_MINUTES=N` goes round as long as that, as `cargo xtask soak` has it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::thread::Scope;
use std::time::{Duration, Instant};

use kiln_testkit::load::LoadHandle;
use rustix::process::{Pid, Signal, kill_process};

use crate::host::{TestHost, said};
use crate::project::Project;

/// A download that takes a second (nginx gives the first second's worth at once), and uploads that are read whole before they are answered.
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

/// Slow transfers, and whether any may begin now: what is under way at an instance that is killed is lost with it.
#[derive(Default)]
struct Transfers {
    ended: AtomicBool,
    are_held: Mutex<(bool, u32)>,
    changed: Condvar,
    done: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Transfers {
    fn begin(&self) {
        let may_not = |state: &mut (bool, u32)| state.0 && !self.ended.load(SeqCst);
        let mut state = self.changed.wait_while(self.are_held.lock().unwrap(), may_not).unwrap();
        state.1 += 1;
    }

    fn end(&self, outcome: Result<(), String>) {
        self.are_held.lock().unwrap().1 -= 1;
        self.changed.notify_all();
        match outcome {
            Ok(()) => drop(self.done.fetch_add(1, SeqCst)),
            Err(what) => self.failures.lock().unwrap().push(what),
        }
    }

    /// Does something while none is under way.
    fn without<T>(&self, act: impl FnOnce() -> T) -> T {
        self.are_held.lock().unwrap().0 = true;
        drop(self.changed.wait_while(self.are_held.lock().unwrap(), |state| state.1 > 0).unwrap());
        let result = act();
        self.are_held.lock().unwrap().0 = false;
        self.changed.notify_all();
        result
    }

    fn go_on<'a>(&'a self, scope: &'a Scope<'a, '_>, address: SocketAddr) {
        for transfer in [download, download, upload, upload] {
            scope.spawn(move || {
                while !self.ended.load(SeqCst) {
                    self.begin();
                    self.end(transfer(address).map_err(|e| e.to_string()));
                }
            });
        }
    }

    fn stop(&self) {
        self.ended.store(true, SeqCst);
        self.changed.notify_all();
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

fn answer(mut stream: TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    if !all.starts_with(b"HTTP/1.1 200 ") {
        let line = String::from_utf8_lossy(&all[..all.len().min(60)]).into_owned();
        return Err(std::io::Error::other(line));
    }
    Ok(all.split_off(end + 4))
}

fn download(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = connect(address)?;
    stream.write_all(b"GET /slow.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let got = answer(stream)?.len();
    if got == BYTES { Ok(()) } else { Err(std::io::Error::other(format!("a download of {got} bytes"))) }
}

fn upload(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = connect(address)?;
    let head =
        format!("POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    // In pieces, at the pace at which the edge takes them, and with a look at the clock.
    let begun = Instant::now();
    for piece in 1..=20_u32 {
        stream.write_all(&[b'x'; BYTES / 20])?;
        while begun.elapsed() < Duration::from_millis(25) * piece {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    if answer(stream)? == b"taken\n" { Ok(()) } else { Err(std::io::Error::other("another answer")) }
}

/// What goes on meanwhile.
struct Rounds<'a> {
    host: &'a TestHost,
    project: &'a Project,
    load: &'a LoadHandle,
    transfers: &'a Transfers,
    begun: Instant,
    releases: u32,
    cut_overs: u32,
}

impl Rounds<'_> {
    fn one(&mut self) {
        self.deploy("\"blue-green\"");
        self.kill(1);
        self.deploy("{ canary = [\"20%\", \"50%\"], hold = \"1s\", within = \"2s\", errors = \"50%\", slower = \"10000%\" }");
        self.rollback();
        self.renew_edge();
        self.kill(2);
        self.rollback();
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
        self.say("a rollback");
        let output = self.host.kiln(&["rollback"]);
        assert!(output.status.success(), "the rollback failed:\n{}", said(&output));
        self.cut_overs += 1;
    }

    fn instances(&self) -> Vec<(String, i32)> {
        let live = self.host.live();
        let all = self.host.json(&["instances"]);
        let of_live =
            all.as_array().unwrap().iter().filter(|i| i["release"] == live.as_str() && i["state"] == "ready");
        let pair = |i: &serde_json::Value| {
            (i["id"].as_str().unwrap().to_owned(), i["pid"].as_i64().unwrap_or(0) as i32)
        };
        of_live.map(pair).collect()
    }

    /// Some of the instances that serve are killed, and others take their place.
    fn kill(&self, count: usize) {
        self.say(&format!("{count} of the instances are killed"));
        self.host.wait_until("all instances are well", || self.instances().len() == 4);
        let victims: Vec<(String, i32)> = self.instances().into_iter().take(count).collect();
        self.transfers.without(|| {
            for (id, pid) in &victims {
                kill_process(Pid::from_raw(*pid).expect("a process"), Signal::KILL)
                    .unwrap_or_else(|e| panic!("{id}: {e}"));
            }
            self.host.wait_until("others are there", || {
                let now = self.instances();
                now.len() == 4 && victims.iter().all(|victim| !now.contains(victim))
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

#[test]
fn nobody_is_dropped_by_real_instances() {
    let minutes = std::env::var("KILN_SOAK_MINUTES").ok().map(|n| n.parse().expect("a number of minutes"));
    let span = Duration::from_secs(60) * minutes.unwrap_or(0);
    let host = TestHost::start();
    let project = Project::example("hello");
    project.edit("nginx.conf", "        index index.html;\n", &format!("        index index.html;\n{SLOW}"));
    project.write("site/slow.bin", &"x".repeat(BYTES));
    project.edit("kiln.toml", "drain     = \"30s\"", "drain     = \"10s\"");
    host.deploy(&project);
    let address = host.address.trim_start_matches("http://").parse().expect("an address");
    let (load, transfers, begun) = (host.load(), Transfers::default(), Instant::now());
    let mut cut_overs = 0;
    std::thread::scope(|scope| {
        transfers.go_on(scope, address);
        let transfers = &transfers;
        let mut rounds = Rounds {
            host: &host,
            project: &project,
            load: &load,
            transfers,
            begun,
            releases: 0,
            cut_overs: 0,
        };
        let gone_round = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            loop {
                rounds.one();
                if begun.elapsed() >= span {
                    break;
                }
            }
        }));
        transfers.stop();
        cut_overs = rounds.cut_overs;
        if let Err(panic) = gone_round {
            std::panic::resume_unwind(panic);
        }
    });
    let report = load.stop();
    let (done, failures) = (transfers.done.load(SeqCst), transfers.failures.into_inner().unwrap());
    println!(
        "{} requests and {done} slow transfers through {cut_overs} cut-overs in {:.0?}: {} failed; worst latency {:?}, p99 {:?}",
        report.requests,
        begun.elapsed(),
        report.failures.len() + failures.len(),
        report.max,
        report.p99
    );
    assert_eq!(report.failures, [], "of {} requests", report.requests);
    assert_eq!(failures, Vec::<String>::new(), "of {done} transfers");
    assert!(
        report.requests > 2_000 && done >= 10 && cut_overs >= 5,
        "{} {done} {cut_overs}",
        report.requests
    );
}
