//! The edge as it is in earnest: a process of its own, another user, confined.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kiln_edge::{Confinement, Door, EdgeClient, EdgeConfig, EdgeError, EdgeSettings, Limits, Sockets};
use kiln_model::{EdgeFleet, Protocol, RouteTable};
use rustix::process::{Resource, Rlimit};

use crate::broker::{self, Asking};
use crate::harness::{fleet_id, needs_root, route};
use crate::instance::{Instance, ok};
use crate::wire::Client;

pub const DIR: &str = "KILN_EDGE_TEST_DIR";
/// How many descriptors the child may have, if that is few.
pub const DESCRIPTORS: &str = "KILN_EDGE_TEST_DESCRIPTORS";
const NOBODY: u32 = 65534;

/// Not a test by itself: what the child process of the test below runs.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR).map(PathBuf::from) else { return };
    if let Some(most) = std::env::var(DESCRIPTORS).ok().and_then(|most| most.parse().ok()) {
        let few = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(Resource::Nofile, few).unwrap();
    }
    let config = EdgeConfig {
        sockets: Sockets::inherited().unwrap(),
        dial: Arc::new(Asking { path: dir.join("broker.sock"), told: dir.join("told.sock") }),
        confinement: Some(Confinement { uid: NOBODY, gid: NOBODY }),
        limits: Limits::default(),
        settings: EdgeSettings { access_log: true, ..EdgeSettings::default() },
    };
    kiln_edge::run(config).unwrap();
}

fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with(name)).unwrap();
    line[name.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Enough of everything that a system call which is needed and not allowed would be missed.
fn work(connect: &(impl Fn() -> Client + Sync)) {
    let large = "x".repeat(4 << 20);
    let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}", large.len());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                assert!((0..50).all(|_| connect().get("/").text() == "hi"));
                let mut kept = connect();
                assert!((0..200).all(|_| kept.get("/").text() == "hi"));
                assert!((0..3).all(|_| kept.send(&post).read().text() == large));
            });
        }
    });
}

#[test]
fn a_real_edge_serves_confined_and_ends_when_told() {
    needs_root();
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    broker::serve(&dir.path().join("broker.sock"));
    let told = UnixListener::bind(dir.path().join("told.sock")).unwrap();
    std::fs::set_permissions(dir.path().join("told.sock"), std::fs::Permissions::from_mode(0o666)).unwrap();
    let path = dir.path().join("edge.sock");
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), 2, &path).unwrap();
    let address = sockets.address(Door::Http).unwrap();

    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "process::child", "--nocapture", "--test-threads=1"]).env(DIR, dir.path());
    let log = std::fs::File::create(dir.path().join("access.log")).unwrap();
    command.stdout(log);
    let mut process = kiln_edge::spawn(command, &sockets).unwrap();
    drop(sockets);
    let client = EdgeClient::connect(&path).unwrap();

    let instance = Instance::new(|request, connection| {
        connection.send(ok(if request.body.is_empty() { "hi" } else { request.text() }));
        true
    });
    let id = fleet_id(1);
    let (port, instances) = (instance.address.port(), vec![id.instance(1)]);
    let fleets = vec![EdgeFleet {
        id: id.clone(),
        port,
        instances,
        release: None,
        protocol: Protocol::Http1,
        circuit: None,
        callers: vec![],
        needs: Default::default(),
        parted: false,
    }];
    let table = RouteTable {
        version: 1,
        routes: vec![route(None, "/", &[(&id, 1)])],
        fleets,
        ..RouteTable::default()
    };
    assert_eq!(client.set_table(&table).unwrap().version, 1);
    let connect = || Client::new(std::net::TcpStream::connect(address).unwrap());
    work(&connect);

    let mut confession = String::new();
    told.accept().unwrap().0.read_to_string(&mut confession).unwrap();
    assert_eq!(confession, "possible: \n");
    let pid = process.id();
    assert_eq!(field(pid, "Uid:"), "65534 65534 65534 65534");
    assert_eq!(field(pid, "Groups:"), NOBODY.to_string());
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!((field(pid, "NoNewPrivs:"), field(pid, "Seccomp:")), ("1".into(), "2".into()));
    let session = rustix::process::getsid(rustix::process::Pid::from_raw(pid as i32)).unwrap();
    assert_eq!(session.as_raw_nonzero().get() as u32, pid, "it leads a session of its own");

    assert_eq!(client.shutdown(Duration::from_secs(5)).unwrap().in_flight, 0);
    assert!(process.wait().unwrap().success());
    let log = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
    let lines: Vec<&str> = log.lines().filter_map(|line| Some(&line[line.find("{\"at\"")?..])).collect();
    assert_eq!(lines.len(), 8 * 253, "a line for each request");
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(line).expect("one whole line at a time");
        assert_eq!((line["status"].as_u64(), line["path"].as_str()), (Some(200), Some("/")));
        assert_eq!(
            (line["client"].as_str(), line["fleet"].as_str()),
            (Some("127.0.0.1"), Some("hello/web@1"))
        );
        let is_post = line["method"] == "POST";
        assert_eq!(line["bytes"].as_u64(), Some(if is_post { 4 << 20 } else { 2 }));
        assert!(line["millis"].as_f64().unwrap() > 0.0 && line["trace"].as_str().unwrap().len() == 32);
    }
    assert!(matches!(client.counts().unwrap_err(), EdgeError::Unreachable { .. }));
}

#[test]
fn only_the_user_who_started_it_may_tell_it_what_to_do() {
    needs_root();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.sock");
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), 1, &path).unwrap();
    let dial = Arc::<crate::harness::Ports>::default();
    let config = EdgeConfig {
        sockets,
        dial,
        confinement: None,
        limits: Limits::default(),
        settings: EdgeSettings::default(),
    };
    let edge = std::thread::spawn(move || kiln_edge::run(config));
    let client = EdgeClient::connect(&path).unwrap();
    // Even if somebody opened the door.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let stranger = client.clone();
    let error = std::thread::spawn(move || {
        // Of this thread only.
        let nobody = rustix::process::Uid::from_raw(NOBODY);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        stranger.counts().unwrap_err()
    });
    assert!(matches!(error.join().unwrap(), EdgeError::NoAnswer { .. }));
    client.shutdown(Duration::ZERO).unwrap();
    edge.join().unwrap().unwrap();
}
