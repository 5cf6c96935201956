//! What a switch costs: `switch DIR` prints one line of JSON. An edge, two fleets and a client with a steady pace, in one
//! process; the client's figures and the backends' clocks are the evidence.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, service::service_fn};
use hyper_util::rt::TokioIo;
use kiln_edge::{Dial, Door, EdgeClient, EdgeConfig, EdgeSettings, Limits, Sockets};
use kiln_model::{
    Audience, EdgeFleet, EdgeRoute, FleetId, Generation, HttpsRule, InstanceId, Protocol, RouteTable, Target,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

const THREADS: usize = 2;
const SWITCHES: u32 = 8;
const RATE: u32 = 5_000;
const CONNECTIONS: u32 = 16;

fn main() {
    let dir = std::env::args().nth(1).expect("usage: switch DIR");
    let begun = Instant::now();
    let backends: [Arc<Backend>; 2] = [Backend::start(begun), Backend::start(begun)];
    let (client, address) = edge(Path::new(&dir), backends.each_ref().map(|b| b.address));
    client.set_table(&small(1, 0)).expect("a table");
    let (ended, times) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<(Duration, Duration)>>>::default());
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|n| {
            let (ended, times) = (ended.clone(), times.clone());
            std::thread::spawn(move || {
                let asked = ask(address, begun, n, &ended);
                times.lock().expect("times").extend(asked);
            })
        })
        .collect();
    pause(Duration::from_secs(1));
    let mut switches = Vec::new();
    for n in 0..SWITCHES {
        let old = &backends[n as usize % 2];
        let at = begun.elapsed();
        client.set_table(&small(u64::from(n) + 2, (n as usize + 1) % 2)).expect("a table");
        let took = begun.elapsed() - at;
        pause(Duration::from_millis(1_100));
        let last = Duration::from_nanos(old.last.load(SeqCst));
        switches.push((at, took, last.saturating_sub(at)));
    }
    let large: Vec<f64> = (0..9)
        .scan(id(u64::from(SWITCHES) % 2 + 1), |serves, n| {
            let table = large(1_000 + n, std::mem::replace(serves, id(1_000 + n)));
            let took = millis(timed(|| drop(client.set_table(&table).expect("a table"))));
            // As a deploy does, before the next one ends the fleet that has served.
            client
                .wait_drained(&[table.fleets[0].id.clone()], Duration::from_secs(10))
                .expect("nobody is left");
            Some(took)
        })
        .collect();
    ended.store(true, SeqCst);
    clients.into_iter().for_each(|client| client.join().expect("a client"));
    let times = times.lock().expect("times");
    let around = |from: i64, to: i64| -> Vec<f64> {
        let is_in = |at: Duration| {
            switches.iter().any(|(switch, ..)| {
                let since = at.as_micros() as i64 - switch.as_micros() as i64;
                (from..to).contains(&since)
            })
        };
        times.iter().filter(|(at, _)| is_in(*at)).map(|(_, took)| millis(*took)).collect()
    };
    let (before, during) = (around(-1_000_000, 0), around(0, 1_000_000));
    println!(
        "{{\"requests\":{},\"last_ms\":{:.3},\"swap_ms\":{:.3},\"p999_before_ms\":{:.3},\"p999_during_ms\":{:.3},\"large_swap_ms\":{:.3}}}",
        times.len(),
        quantile(switches.iter().map(|(_, _, last)| millis(*last)).collect(), 0.5),
        quantile(switches.iter().map(|(_, took, _)| millis(*took)).collect(), 0.5),
        quantile(before, 0.999),
        quantile(during, 0.999),
        quantile(large, 0.5),
    );
    client.shutdown(Duration::ZERO).expect("it ends");
}

fn timed(act: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    act();
    begun.elapsed()
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn quantile(mut all: Vec<f64>, share: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let at = (all.len() as f64 * share) as usize;
    all.get(at.min(all.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

fn pause(span: Duration) {
    let begun = Instant::now();
    while let Some(left) = span.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// One connection that asks at its pace; when each request was sent, and how long it took.
fn ask(address: SocketAddr, begun: Instant, number: u32, ended: &AtomicBool) -> Vec<(Duration, Duration)> {
    let mut stream = TcpStream::connect(address).expect("the edge");
    stream.set_nodelay(true).expect("an option");
    let every = Duration::from_secs(1) * CONNECTIONS / RATE;
    let (mut times, mut due) = (Vec::new(), begun.elapsed() + every * number / CONNECTIONS);
    let mut answer = [0; 4096];
    while !ended.load(SeqCst) {
        pause(due.saturating_sub(begun.elapsed()));
        let at = begun.elapsed();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        let mut have = 0;
        // The body is the last thing, and always the same.
        while !answer[..have].ends_with(b"hello, world\n") {
            let length = stream.read(&mut answer[have..]).expect("an answer");
            assert!(length > 0, "a connection was closed");
            have += length;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "an answer that is none");
        times.push((at, begun.elapsed() - at));
        due = (due + every).max(begun.elapsed());
    }
    times
}

struct Backend {
    address: SocketAddr,
    /// When the last request came, in nanoseconds since the beginning.
    last: AtomicU64,
}

impl Backend {
    fn start(begun: Instant) -> Arc<Self> {
        let socket =
            kiln_edge::bind("127.0.0.1:0".parse().expect("an address"), 1).expect("a port").remove(0);
        let address = kiln_edge::local(&socket).expect("an address");
        let backend = Arc::new(Self { address, last: AtomicU64::new(0) });
        let shared = backend.clone();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::from_std(socket.into()).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    let shared = shared.clone();
                    let service = service_fn(move |_| {
                        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                        shared.last.store(nanos, SeqCst);
                        async {
                            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(
                                b"hello, world\n",
                            ))))
                        }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    tokio::task::spawn_local(http.serve_connection(TokioIo::new(stream), service));
                }
            });
        });
        backend
    }
}

/// Instances of a generation are all the same backend.
struct Two([SocketAddr; 2]);

impl Dial for Two {
    fn sockets(&self, _: &InstanceId, count: u32) -> io::Result<Vec<OwnedFd>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = || rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
        (0..count).map(|_| Ok(socket()?)).collect()
    }

    fn address(&self, id: &InstanceId, _: u16) -> SocketAddr {
        let generation = id.as_str().split('-').nth(2).and_then(|part| part.parse::<usize>().ok());
        self.0[generation.expect("an instance of this bench").wrapping_sub(1) % 2]
    }
}

fn edge(dir: &Path, backends: [SocketAddr; 2]) -> (EdgeClient, SocketAddr) {
    let path = dir.join("switch.sock");
    let sockets = Sockets::bind("127.0.0.1:0".parse().expect("an address"), THREADS, &path).expect("ports");
    let address = sockets.address(Door::Http).expect("a door");
    let (dial, limits, settings) = (Arc::new(Two(backends)), Limits::default(), EdgeSettings::default());
    let config = EdgeConfig { sockets, dial, confinement: None, limits, settings };
    std::thread::spawn(move || kiln_edge::run(config));
    (EdgeClient::connect(&path).expect("an edge"), address)
}

fn id(generation: u64) -> FleetId {
    FleetId {
        app: "bench".parse().expect("a name"),
        service: "web".parse().expect("a name"),
        generation: Generation(generation),
    }
}

fn fleet(id: FleetId, instances: u32) -> EdgeFleet {
    EdgeFleet {
        instances: (1..=instances).map(|serial| id.instance(serial)).collect(),
        id,
        port: 80,
        release: None,
        protocol: Protocol::Http1,
        circuit: None,
        callers: vec![],
        needs: Default::default(),
        parted: false,
    }
}

fn route(host: Option<String>, generation: u64) -> EdgeRoute {
    EdgeRoute {
        host: host.map(|host| host.parse().expect("a host")),
        path: "/".into(),
        service: "web".parse().expect("a name"),
        targets: vec![Target { fleet: id(generation), weight: 1 }],
        https: HttpsRule::Optional,
        audience: Audience::Everybody,
        hold: None,
        max_body: None,
        timeout: None,
    }
}

/// Both fleets, and everything goes to one of them.
fn small(version: u64, to: usize) -> RouteTable {
    let routes = vec![route(None, to as u64 + 1)];
    RouteTable { version, routes, fleets: vec![fleet(id(1), 4), fleet(id(2), 4)], ..RouteTable::default() }
}

/// 10,000 routes and 1,000 instances beside them: all routes are sent to a new fleet, and the one that served stays.
fn large(version: u64, serves: FleetId) -> RouteTable {
    let hosts = (0..10_000).map(|n| route(Some(format!("host-{n}.example.com")), version));
    let routes = hosts.chain([route(None, version)]).collect();
    let fleets = vec![fleet(serves, 500), fleet(id(version), 500)];
    RouteTable { version, routes, fleets, ..RouteTable::default() }
}
