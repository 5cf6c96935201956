//! An edge process under requests of every kind, watched from outside: descriptors and memory come back to what they
//! were. 50,000 requests; a million with `KILN_LONG=1`.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use kiln_edge::{Door, EdgeClient, Sockets};
use kiln_model::{EdgeFleet, Protocol, RouteTable};

use crate::broker;
use crate::harness::{fleet_id, needs_root, route};
use crate::instance::{Instance, ok};
use crate::wire::Client;

const THREADS: u64 = 8;

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// In KiB.
fn memory(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// One that answers well, and badly when it is asked to.
fn instance() -> Instance {
    Instance::new(|request, connection| {
        let path = request.start.split(' ').nth(1).unwrap_or("/");
        match path {
            "/broken" => drop(connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")),
            "/garbage" => drop(connection.send("nonsense\r\n\r\n")),
            "/reset" => {}
            _ => drop(connection.send(ok("well"))),
        }
        !matches!(path, "/broken" | "/garbage" | "/reset")
    })
}

/// What one thread asks, in turn: mostly what is usual.
fn ask(address: SocketAddr, asked: &AtomicU64, count: u64) {
    let connect = || Client::new(TcpStream::connect(address).unwrap());
    let mut kept = connect();
    while asked.fetch_add(1, SeqCst) < count {
        match asked.load(SeqCst) % 100 {
            0 => assert_eq!(connect().get("/new").text(), "well"),
            1 => drop(connect().send("GET /broken HTTP/1.1\r\nHost: a\r\n\r\n").try_read()),
            2 => assert_eq!(connect().get("/garbage").status(), 502),
            3 => assert_eq!(
                connect()
                    .send("POST /reset HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
                    .read()
                    .status(),
                502
            ),
            // Half a head, and away.
            4 => drop(TcpStream::connect(address).unwrap().write_all(b"GET / HTTP/1.1\r\nHo")),
            // A request whose answer nobody waits for.
            5 => drop(TcpStream::connect(address).unwrap().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
            6 => assert_eq!(connect().send("GET / HTTP/1.1\r\n\r\n").read().status(), 400),
            7 => {
                let large = "x".repeat(100_000);
                let post =
                    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}", large.len());
                assert_eq!(kept.send(post).read().text(), "well");
            }
            _ => assert_eq!(kept.get("/").text(), "well"),
        }
    }
}

/// An edge in a process of its own, and the instance behind it.
struct Watched {
    process: Child,
    client: EdgeClient,
    address: SocketAddr,
    _instance: Instance,
    _dir: tempfile::TempDir,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A test that fails leaves nothing behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Watched {
    /// With at most so many descriptors, if that is said.
    fn start(descriptors: Option<usize>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        broker::serve(&dir.path().join("broker.sock"));
        let path = dir.path().join("edge.sock");
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), 2, &path).unwrap();
        let address = sockets.address(Door::Http).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process::child", "--test-threads=1"]).env(crate::process::DIR, dir.path());
        command.stdout(std::process::Stdio::null());
        if let Some(most) = descriptors {
            command.env(crate::process::DESCRIPTORS, most.to_string());
        }
        let process = kiln_edge::spawn(command, &sockets).unwrap();
        drop(sockets);
        let client = EdgeClient::connect(&path).unwrap();
        let (instance, id) = (instance(), fleet_id(1));
        let fleets = vec![EdgeFleet {
            id: id.clone(),
            port: instance.address.port(),
            // Several, so that one that fails may be left alone without all being.
            instances: (1..=4).map(|n| id.instance(n)).collect(),
            release: None,
            protocol: Protocol::Http1,
            circuit: None,
            callers: vec![],
            needs: Default::default(),
            parted: false,
        }];
        let routes = vec![route(None, "/", &[(&id, 1)])];
        client.set_table(&RouteTable { version: 1, routes, fleets, ..RouteTable::default() }).unwrap();
        Self { process, client, address, _instance: instance, _dir: dir }
    }

    /// Waits until everything that was begun has ended.
    fn rest(&self) {
        let begun = Instant::now();
        while self.client.stats().unwrap().connections > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "left: {:?}", self.client.stats());
            std::thread::yield_now();
        }
    }

    fn end(mut self) {
        self.client.shutdown(Duration::from_secs(5)).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

#[test]
fn nothing_leaks_over_many_requests_good_and_bad() {
    needs_root();
    let count = if std::env::var_os("KILN_LONG").is_some() { 1_000_000 } else { 50_000 };
    let edge = Watched::start(None);
    let round = |count: u64| {
        let asked = AtomicU64::new(0);
        std::thread::scope(|scope| {
            (0..THREADS).for_each(|_| drop(scope.spawn(|| ask(edge.address, &asked, count))))
        });
        edge.rest();
    };
    let pid = edge.process.id();
    let begun = Instant::now();
    round(count / 10);
    let (fds, kib) = (descriptors(pid), memory(pid));
    round(count);
    let (fds_now, kib_now) = (descriptors(pid), memory(pid));
    let took = begun.elapsed();
    println!("{count} requests: {fds} descriptors, then {fds_now}; {kib} KiB, then {kib_now}; {took:.0?}");
    // Connections to instances are kept, a few more or fewer of them.
    assert!(fds_now <= fds + 64, "{fds} descriptors became {fds_now}");
    assert!(kib_now <= kib + 8 * 1024, "{kib} KiB became {kib_now}");
    edge.end();
}

/// Who comes then waits, or is told; nobody is forgotten, and everything is as before when there are some again.
#[test]
fn without_descriptors_everybody_gets_an_answer_all_the_same() {
    const CLIENTS: usize = 60;
    needs_root();
    // It has half of them before anybody comes, and a client takes two.
    let edge = Watched::start(Some(44));
    let connect = || Client::new(TcpStream::connect(edge.address).unwrap());
    assert_eq!(connect().get("/").text(), "well");
    edge.rest();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    // Each leaves when it has its answer, and makes room.
    let reads = |mut client: Client| std::thread::spawn(move || client.read().status());
    let reading: Vec<_> = clients.into_iter().map(reads).collect();
    let statuses: Vec<u16> = reading.into_iter().map(|reader| reader.join().unwrap()).collect();
    println!("{statuses:?}");
    let refused = statuses.iter().filter(|status| **status != 200).count() as u64;
    assert!(statuses.iter().all(|status| [200, 503, 504].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
    edge.rest();
    assert_eq!(edge.client.stats().unwrap().failed, refused, "{statuses:?}");
    assert_eq!(connect().get("/").text(), "well");
    edge.end();
}

/// That the edge has no more is nobody else's fault, and it is said so.
#[test]
fn an_edge_without_descriptors_blames_no_instance() {
    const MOST: usize = 40;
    needs_root();
    let edge = Watched::start(Some(MOST));
    let pid = edge.process.id();
    let clients: Vec<Client> =
        (0..2 * MOST).map(|_| Client::new(TcpStream::connect(edge.address).unwrap())).collect();
    let begun = Instant::now();
    while descriptors(pid) < MOST {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} descriptors", descriptors(pid));
        std::thread::yield_now();
    }
    let ask = |mut client: Client| std::thread::spawn(move || client.get("/").status());
    let asking: Vec<_> = clients.into_iter().map(ask).collect();
    let statuses: Vec<u16> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert!(refused > 0 && statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    edge.rest();
    let told = edge.client.metrics().unwrap();
    let has = |line: &str| told.lines().any(|l| l == line);
    assert!(has(&format!("kiln_edge_refused_requests_total{{cause=\"exhausted\"}} {refused}")), "{told}");
    assert!(has("kiln_edge_refused_requests_total{cause=\"unreachable\"} 0"), "{told}");
    assert!(!has("kiln_edge_refused_connections_total{cause=\"exhausted\"} 0"), "{told}");
    assert!(has("kiln_edge_ejections_total 0"), "{told}");
    let answer = Client::new(TcpStream::connect(edge.address).unwrap()).get("/");
    assert_eq!(answer.text(), "well");
    edge.end();
}
