//! The edge of a real host: renewed, killed, with more doors than one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, kill_process, test_kill_process};

use crate::host::{KILN, TestHost, free, in_time, lines, said};
use crate::project::Project;
use crate::trace;

/// Asked by a signal, and by a control plane that is to do something else, the edge gets a successor each time, and
/// no request fails.
#[test]
fn the_edge_is_renewed_under_load_without_a_failure() {
    let mut host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let load = host.load();
    let requests = || host.json(&["status"])["requests"].as_u64().unwrap();
    for n in 1..=3u64 {
        let old = host.process("edge");
        let before = requests();
        host.signal_control(Signal::USR2);
        host.wait_until("the old edge has gone and another is there", || {
            !std::path::Path::new(&format!("/proc/{}", old.as_raw_nonzero())).exists()
                && host.find_process("edge").is_some()
        });
        // What the old one has answered counts on.
        assert!(requests() >= before, "{} and {before} before", requests());
        assert!(load.wait_for(n * 300, Duration::from_secs(60)), "the load goes on");
    }
    let old = host.process("edge");
    host.leave_control();
    host.restart_control_with(&["--trust", "127.0.0.1", "--access-log"]);
    // An edge that is to do something else is another one; the old one sees its connections to their end.
    host.wait_until("another edge runs alone", || host.find_process("edge").is_some_and(|now| now != old));
    let report = load.stop();
    assert_eq!(report.failures, [], "of {} requests", report.requests);
    assert!(host.page().contains("hello"));
    host.wait_until("the access log tells of it", || {
        let log = std::fs::read_to_string(host.root.path().join("run/access.log")).unwrap_or_default();
        log.lines().any(|line| line.starts_with('{') && line.contains("\"status\":200"))
    });
}

/// One that is stuck holds up nobody but those who are connected to it: questions are answered, instances that die are
/// replaced, and when it goes on all is as it should be.
#[test]
fn an_edge_that_is_stuck_holds_up_neither_questions_nor_the_fleet() {
    let host = TestHost::start();
    let project = Project::example("hello");
    host.deploy(&project);
    let edge = host.process("edge");
    rustix::process::kill_process(edge, Signal::STOP).unwrap();
    // The core wants the edge to take a table without this one.
    let before = host.json(&["instances"]);
    let pid = i32::try_from(before[0]["pid"].as_i64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    host.wait_until("it is told that the edge does not answer", || {
        host.json(&["status"])["waiting"].to_string().contains("has not answered yet")
    });
    // Many questions in less time than one call to a stuck edge takes before it is given up, which is 10 s.
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        assert!(host.json(&["status"])["live"].is_string());
        assert!(host.json(&["instances"]).is_array());
    }
    let took = begun.elapsed();
    host.wait_until("the one that died is replaced", || {
        let now = host.json(&["instances"]);
        let ready = now.as_array().unwrap().iter().filter(|i| i["state"] == "ready");
        ready.filter(|i| i["pid"] != before[0]["pid"]).count() == 4
    });
    rustix::process::kill_process(edge, Signal::CONT).unwrap();
    assert!(took < Duration::from_secs(9), "eight questions took {took:?}");
    host.wait_until("nothing is waited for", || host.json(&["status"])["waiting"] == serde_json::json!([]));
    assert!(host.page().contains("hello"));
    project.say("again");
    host.deploy(&project);
    assert_eq!(host.page(), "<h1>hello again</h1>\n");
}

/// A deploy that cannot be switched to because the edge is stuck has its place taken, and never serves. Everything can
/// be ended as well, deploy and edge among it.
#[test]
fn what_a_stuck_edge_holds_up_is_superseded_and_ended() {
    let (host, project) = (TestHost::start(), Project::example("hello"));
    host.deploy(&project);
    let begin = |say: &str, options: &[&str]| {
        project.say(say);
        let mut deploy = host.command(&[&["deploy", "--json"], options, &[project.dir()]].concat());
        let mut deploy = deploy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let events = lines(&mut deploy);
        let told = |line: &String| line.contains("\"warned\"") && line.contains("has not answered yet");
        assert!(events.iter().any(|line| told(&line)), "it is told what holds it up");
        (deploy, events)
    };
    let edge = host.process("edge");
    kill_process(edge, Signal::STOP).unwrap();
    let (mut second, _events) = begin("second", &[]);
    let (mut third, _events) = begin("third", &["--supersede"]);
    kill_process(edge, Signal::CONT).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(6));
    assert!(third.wait().unwrap().success());
    assert_eq!(host.page(), "<h1>hello third</h1>\n");

    kill_process(edge, Signal::STOP).unwrap();
    let (mut fourth, _events) = begin("fourth", &[]);
    let down = in_time(host.command(&["down"]));
    assert!(down.status.success(), "{}", said(&down));
    assert!(!fourth.wait().unwrap().success());
}

/// What a new connection got.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    // Somebody holds the listening sockets all the time: connecting is never refused.
    let mut stream = TcpStream::connect(address).expect("an open port at any time");
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Killed, it takes along what was in flight in it and nothing else: who comes after that is served by another one,
/// and nobody is told that there is no service.
#[test]
fn a_killed_edge_loses_only_what_was_in_flight_in_it() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let address: SocketAddr = host.address.trim_start_matches("http://").parse().unwrap();
    for _ in 0..3 {
        let edge = host.process("edge");
        rustix::process::kill_process(edge, Signal::KILL).unwrap();
        let answer = (0..3).find_map(|_| ask(address).ok().filter(|a| !a.is_empty()));
        let answer = answer.expect("an answer, at the third time at the latest");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        host.wait_until("another edge runs", || host.find_process("edge").is_some_and(|now| now != edge));
    }
    let log = std::fs::read_to_string(host.root.path().join("run/edge.log")).unwrap();
    assert!(log.contains("the edge has ended (signal: 9 (SIGKILL))"), "{log}");
    // One that was killed while it came up has not come up.
    assert!(log.matches("the edge has ended").count() >= 3, "{log}");
}

/// What is on the disk may be another program by now.
#[test]
fn a_successor_that_does_not_come_up_holds_up_nobody() {
    let mut host = TestHost::start();
    let project = Project::example("hello");
    let first = host.deploy(&project);
    project.say("newer");
    host.deploy(&project);
    let dir = tempfile::TempDir::new().unwrap();
    let program = dir.path().canonicalize().unwrap().join("kiln");
    kiln_testkit::program::program(&program, &std::fs::read(KILN).unwrap());
    host.leave_control();
    host.restart_control_as(&program);
    let runs = |pid: rustix::process::Pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    host.wait_until("its edge runs alone", || {
        host.find_process("edge").is_some_and(|now| runs(now).as_ref() == Some(&program))
    });
    let edge = host.process("edge");
    let wait = format!("sleep 8{}", std::process::id());
    std::fs::remove_file(&program).unwrap();
    kiln_testkit::program::program(&program, format!("#!/bin/sh\nexec {wait}\n").as_bytes());
    host.signal_control(Signal::USR2);
    let hangs = || trace::processes().into_iter().any(|(_, line)| line.trim_end() == wait);
    host.wait_until("the other program is tried", hangs);
    assert!(host.kiln(&["rollback"]).status.success());
    assert_eq!(host.live(), first);
    assert!(hangs(), "it is still waited for");
    host.wait_until("it is given up", || !hangs());
    assert_eq!(host.find_process("edge"), Some(edge));
}

#[test]
fn figures_do_not_fall_with_an_edge() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let requests = || host.json(&["status"])["requests"].as_u64().unwrap();
    for _ in 0..20 {
        host.page();
    }
    let before = requests();
    assert!(before >= 20, "{before}");
    let edge = host.process("edge");
    kill_process(edge, Signal::KILL).unwrap();
    host.wait_until("another edge runs", || host.find_process("edge").is_some_and(|now| now != edge));
    host.wait_until("it answers", || {
        ask(host.address.trim_start_matches("http://").parse().unwrap()).is_ok()
    });
    assert!(requests() >= before, "{} and {before} before", requests());
}

/// The certificate that is shown.
fn shown(https: SocketAddr) -> Vec<u8> {
    let output = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &https.to_string(), "-servername", "hello.example.com"])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let begin = text
        .find("-----BEGIN CERTIFICATE-----")
        .unwrap_or_else(|| panic!("no certificate:\n{}", said(&output)));
    let end = text.find("-----END CERTIFICATE-----").expect("its end");
    text.as_bytes()[begin..end].to_vec()
}

/// Another program, byte for byte, takes over from the edge that runs, under load.
#[test]
fn a_changed_program_takes_the_edge_over() {
    let mut host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let load = host.load();
    assert!(load.wait_for(200, Duration::from_secs(60)), "no load");
    let dir = tempfile::TempDir::new().unwrap();
    let changed = dir.path().canonicalize().unwrap().join("kiln-changed");
    let mut program = std::fs::read(KILN).unwrap();
    program.extend(b"changed");
    kiln_testkit::program::program(&changed, &program);
    let old = host.process("edge");
    host.leave_control();
    host.restart_control_as(&changed);
    let runs = |pid: rustix::process::Pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    host.wait_until("the changed program runs alone", || {
        host.find_process("edge").is_some_and(|now| now != old && runs(now).as_ref() == Some(&changed))
    });
    let so_far = load.so_far().requests;
    assert!(load.wait_for(so_far + 500, Duration::from_secs(60)), "the load goes on");
    let report = load.stop();
    assert_eq!(report.failures, [], "of {} requests", report.requests);
}

#[test]
fn an_app_that_wants_another_ones_routes_is_refused_before_anything_is_made() {
    let host = TestHost::start();
    let (hello, other) = (Project::example("hello"), Project::example("hello"));
    let port = free().port();
    hello.edit("kiln.toml", "[deploy]", &format!("[route.raw]\nservice = \"web\"\ntcp = {port}\n\n[deploy]"));
    host.deploy(&hello);
    other.edit("kiln.toml", "app = \"hello\"", "app = \"other\"");
    let refused = |says: &str| {
        let output = host.kiln(&["deploy", other.dir()]);
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        assert!(said(&output).contains(says), "{}", said(&output));
        let instances = host.json(&["instances"]);
        assert!(instances.as_array().unwrap().iter().all(|i| i["app"] == "hello"), "{instances}");
    };
    refused("a route of app hello takes / of every host already");
    other.edit("kiln.toml", "[route.web]\n", "[route.web]\nhost = \"other.example.com\"\n");
    other.edit("kiln.toml", "[deploy]", &format!("[route.raw]\nservice = \"web\"\ntcp = {port}\n\n[deploy]"));
    refused(&format!("a route of app hello takes TCP port {port} already"));
}

/// The host was down, and somebody has a port of its by the time it is up again.
#[test]
fn a_port_that_is_taken_after_a_crash_takes_nobody_else_off_the_air() {
    let mut host = TestHost::start();
    let (project, port) = (Project::example("hello"), free().port());
    project.append("kiln.toml", &format!("\n[route.raw]\nservice = \"web\"\ntcp = {port}\n"));
    host.deploy(&project);
    let edge = host.process("edge");
    host.kill_control();
    kill_process(edge, Signal::KILL).unwrap();
    host.wait_until("the edge is gone", || test_kill_process(edge).is_err());
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    host.restart_elsewhere();
    host.wait_until("it serves", || ureq::get(&host.address).call().is_ok());
    let words = format!("127.0.0.1:{port} is in use by another program");
    assert!(said(&host.kiln(&["status"])).contains(&words), "{}", said(&host.kiln(&["status"])));
    drop(taken);
    host.wait_until("the port is open", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    host.wait_until("it is not told any more", || !said(&host.kiln(&["status"])).contains(&words));
}

/// An edge goes on with the sockets there are: who asks for others is told, and not let believe that they are open.
#[test]
fn a_door_that_is_open_elsewhere_is_not_promised() {
    let mut host = TestHost::start();
    host.leave_control();
    let (https, metrics) = (free().to_string(), free().to_string());
    host.restart_control_with(&["--listen-tls", &https, "--metrics", &metrics]);
    host.leave_control();
    for (option, there) in [("--listen-tls", &https), ("--metrics", &metrics)] {
        let mut serve = Command::new(KILN);
        serve.args(["serve", "--listen", "127.0.0.1:0", option, &free().to_string(), "--root"]);
        serve.arg(host.root.path()).stdin(Stdio::null());
        let output = in_time(serve);
        assert_eq!(output.status.code(), Some(9), "{}", said(&output));
        assert!(said(&output).contains(&format!("give {option} {there}")), "{}", said(&output));
    }
    host.restart_control();
}

#[test]
fn an_app_has_a_door_with_tls_and_a_plain_one_as_its_spec_says() {
    let mut host = TestHost::start();
    host.leave_control();
    let (https, metrics, raw) = (free(), free(), free());
    host.restart_control_with(&["--listen-tls", &https.to_string(), "--metrics", &metrics.to_string()]);
    let project = Project::example("hello");
    let key = rcgen::generate_simple_self_signed(["hello.example.com".to_owned()]).unwrap();
    project.write("cert.pem", &key.cert.pem());
    project.write("key.pem", &key.signing_key.serialize_pem());
    let spec = format!(
        "https = \"redirect\"\n\n[route.raw]\nservice = \"web\"\ntcp = {}\n\n[tls]\ncertificates = [{{ cert = \"{dir}/cert.pem\", \
         key = \"{dir}/key.pem\" }}]\n\n[deploy]",
        raw.port(),
        dir = project.dir()
    );
    project.edit("kiln.toml", "[deploy]", &spec);
    host.deploy(&project);
    let address: SocketAddr = host.address.trim_start_matches("http://").parse().unwrap();
    let answer = ask(address).unwrap();
    assert!(answer.starts_with("HTTP/1.1 308 ") && answer.contains("https://a:"), "{answer}");
    assert!(ask(raw).unwrap().contains("hello"), "the plain door leads to the same service");
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().tls_config(tls).build());
    let page = agent.get(format!("https://{https}/")).call().unwrap().into_body().read_to_string().unwrap();
    assert!(page.contains("hello"), "{page}");
    let asked =
        ureq::get(format!("http://{metrics}/metrics")).call().unwrap().into_body().read_to_string().unwrap();
    assert!(asked.contains("kiln_requests_total{app=\"hello\",service=\"web\",release=\"r-"), "{asked}");
    // A renewed certificate is shown as soon as it is there, and the connection there is stays.
    let first = shown(https);
    let renewed = rcgen::generate_simple_self_signed(["hello.example.com".to_owned()]).unwrap();
    project.write("key.pem", &renewed.signing_key.serialize_pem());
    project.write("cert.pem", &renewed.cert.pem());
    host.wait_until("the renewed one is shown", || {
        assert_eq!(agent.get(format!("https://{https}/")).call().unwrap().status(), 200);
        shown(https) != first
    });
    // A certificate that cannot be used is found before anything is done.
    project.write("key.pem", "not a key");
    project.say("another");
    let refused = host.kiln(&["deploy", project.dir()]);
    assert_eq!(refused.status.code(), Some(3), "{}", crate::host::said(&refused));
    project.edit("kiln.toml", &spec, "[deploy]");
    host.deploy(&project);
    assert!(TcpStream::connect(raw).is_err(), "the door is closed with the route");
}
