//! Nobody is dropped: all kinds of clients at once, through switches, switches back and successions of the edge. Every
//! request and every stream is accounted for, and the test fails on one.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kiln_edge::EdgeClient;
use kiln_model::{EdgeFleet, RouteTable};

use crate::h2::{block_on_without_end, exchange};
use crate::harness::{Edge, route};
use crate::instance::{Instance, ok};
use crate::wire::{Client, Message};

/// Pieces of a stream, and the time between two.
const PIECES: usize = 12;
const PACE: Duration = Duration::from_millis(8);

/// What happened, to be printed and to be judged.
#[derive(Default)]
struct Ledger {
    requests: AtomicU64,
    streams: AtomicU64,
    worst_micros: AtomicU64,
}

impl Ledger {
    fn answered(&self, since: Instant) {
        self.requests.fetch_add(1, Relaxed);
        self.worst_micros.fetch_max(since.elapsed().as_micros() as u64, Relaxed);
    }
}

/// What each kind of client needs.
#[derive(Clone)]
struct Load {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).expect("an open port at any time"))
    }

    fn ask(&self, client: &mut Client, request: &str) -> Message {
        let begun = Instant::now();
        let answer = client.send(request).try_read().expect("a whole answer");
        assert_eq!(answer.status(), 200, "{}", answer.text());
        self.ledger.answered(begun);
        answer
    }

    /// One request after another over one connection, until the edge asks to come again.
    fn kept(self) {
        let mut client = self.connect();
        while self.goes_on() {
            let answer = self.ask(&mut client, "GET /quick HTTP/1.1\r\nHost: a\r\n\r\n");
            if answer.header("connection") == Some("close") {
                client = self.connect();
            }
        }
    }

    fn fresh(self) {
        while self.goes_on() {
            self.ask(&mut self.connect(), "POST /quick HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        }
    }

    fn streams(self) {
        block_on_without_end(exchange(self.address, || {
            self.ledger.requests.fetch_add(1, Relaxed);
            self.goes_on()
        }));
    }

    fn events(self) {
        while self.goes_on() {
            let mut client = self.connect();
            client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.read_head().expect("a head").status(), 200);
            for n in 0..PIECES {
                let event = client.chunk().expect("no cut").expect("no early end");
                assert_eq!(event, format!("data: {n:03}\n\n").as_bytes());
            }
            assert_eq!(client.chunk(), Some(None), "the end of the events");
            self.ledger.streams.fetch_add(1, Relaxed);
        }
    }

    fn downloads(self) {
        while self.goes_on() {
            let mut client = self.connect();
            let head = client.send("GET /download HTTP/1.1\r\nHost: a\r\n\r\n").read_head().expect("a head");
            assert_eq!(client.read_body(&head).expect("a whole body").len(), PIECES * 1000);
            self.ledger.streams.fetch_add(1, Relaxed);
        }
    }

    fn uploads(self) {
        while self.goes_on() {
            let mut client = self.connect();
            client.send(format!(
                "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                PIECES * 1000
            ));
            for _ in 0..PIECES {
                client.send([b'u'; 1000]);
                thread::park_timeout(PACE);
            }
            let answer = client.try_read().expect("a whole answer");
            assert_eq!((answer.status(), answer.text()), (200, "12000"));
            self.ledger.streams.fetch_add(1, Relaxed);
        }
    }

    fn websockets(self) {
        while self.goes_on() {
            let mut client = self.connect();
            client.send("GET /talk HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            assert_eq!(client.read_head().expect("a head").status(), 101);
            for n in 0..PIECES as u8 {
                let frame = [0x81, 0x82, 0, 0, 0, 0, b'a', n];
                let mut back = [0; 8];
                client.send(frame).reader.read_exact(&mut back).expect("an echo");
                assert_eq!(back, frame);
                thread::park_timeout(PACE);
            }
            client.half_close();
            assert!(client.is_at_end());
            self.ledger.streams.fetch_add(1, Relaxed);
        }
    }
}

fn instance() -> Instance {
    Instance::new(|request, connection| {
        match request.start.split(' ').nth(1) {
            Some("/events") => {
                connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n");
                connection.send("Transfer-Encoding: chunked\r\n\r\n");
                for n in 0..PIECES {
                    connection.send(format!("b\r\ndata: {n:03}\n\n\r\n"));
                    thread::park_timeout(PACE);
                }
                connection.send("0\r\n\r\n");
            }
            Some("/download") => {
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECES * 1000));
                for _ in 0..PIECES {
                    connection.send([b'd'; 1000]);
                    thread::park_timeout(PACE);
                }
            }
            Some("/talk") => {
                connection.send(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                );
                let mut frame = [0; 8];
                while connection.reader.read_exact(&mut frame).is_ok() {
                    connection.send(frame);
                }
                return false;
            }
            Some("/upload") => drop(connection.send(ok(&request.body.len().to_string()))),
            _ => drop(connection.send(ok("quick"))),
        }
        true
    })
}

/// The edge and those it took over from, told and asked together, as control does it.
struct Edges {
    edge: Edge,
    older: Vec<EdgeClient>,
    threads: Vec<JoinHandle<Result<(), kiln_edge::EdgeError>>>,
    version: u64,
}

impl Edges {
    fn set(&mut self, live: &EdgeFleet, fleets: &[&EdgeFleet]) {
        self.version += 1;
        let routes = vec![route(None, "/", &[(&live.id, 1)])];
        let fleets = fleets.iter().map(|f| (*f).clone()).collect();
        let table = RouteTable { version: self.version, routes, fleets, ..RouteTable::default() };
        let counts = self.edge.client.set_table(&table).unwrap();
        let older = self.older.iter().filter_map(|older| older.set_table(&table).ok());
        for gone in older.chain([counts]).flat_map(|counts| counts.gone) {
            assert_eq!((gone.in_flight, gone.cut, gone.failed), (0, 0, 0), "{gone:?}");
        }
    }

    fn drained(&self, fleet: &EdgeFleet) {
        for client in self.older.iter().chain([&self.edge.client]) {
            // One that has ended has nothing in flight.
            let Ok(counts) = client.wait_drained(std::slice::from_ref(&fleet.id), Duration::from_secs(20))
            else {
                continue;
            };
            let count = counts.fleets.iter().find(|c| c.fleet == fleet.id);
            assert_eq!(count.map_or(0, |c| c.in_flight), 0);
        }
    }

    fn succeed(&mut self) {
        self.older.push(self.edge.client.clone());
        self.threads.push(self.edge.succeed());
        self.older.retain(|older| older.counts().is_ok());
    }
}

/// How long to go on: so many switches, or for a time.
struct Extent {
    begun: Instant,
    switches: u64,
    at_least: Duration,
}

impl Extent {
    fn chosen() -> Self {
        let minutes = std::env::var("KILN_SOAK_MINUTES").ok().and_then(|m| m.parse::<u64>().ok());
        let is_long = std::env::var_os("KILN_LONG").is_some();
        let switches = if is_long { 300 } else { 12 };
        Self { begun: Instant::now(), switches, at_least: Duration::from_secs(60 * minutes.unwrap_or(0)) }
    }

    fn goes_on(&self, done: u64) -> bool {
        done < self.switches || self.begun.elapsed() < self.at_least
    }
}

#[test]
fn nobody_is_dropped_whatever_they_are_doing() {
    let extent = Extent::chosen();
    let edge = Edge::start();
    let load = Load { address: edge.address, stop: Arc::default(), ledger: Arc::default() };
    // Instances outlive their fleets here, so that a test of hours makes no more of them.
    let instances: Vec<[Instance; 2]> = (0..3).map(|_| [instance(), instance()]).collect();
    let fleet = |edge: &Edge, n: u64| {
        let [a, b] = &instances[n as usize % 3];
        edge.fleet(n + 1, &[a, b])
    };
    let mut live = fleet(&edge, 0);
    let mut edges = Edges { edge, older: Vec::new(), threads: Vec::new(), version: 0 };
    edges.set(&live, &[&live]);
    let kinds: [fn(Load); 9] = [
        Load::kept,
        Load::kept,
        Load::fresh,
        Load::fresh,
        Load::streams,
        Load::events,
        Load::downloads,
        Load::uploads,
        Load::websockets,
    ];
    let clients: Vec<_> =
        kinds.map(|kind| (kind, load.clone())).map(|(k, l)| thread::spawn(move || k(l))).into();
    let (mut switches, mut successions) = (0, 0);
    while extent.goes_on(switches) && clients.iter().all(|c| !c.is_finished()) {
        switches += 1;
        let next = fleet(&edges.edge, switches);
        edges.set(&next, &[&live, &next]);
        if switches % 3 == 0 {
            // Back again at once, before the other has drained.
            edges.set(&live, &[&live, &next]);
            edges.drained(&next);
            edges.set(&live, &[&live]);
        } else {
            edges.drained(&live);
            edges.set(&next, &[&next]);
            live = next;
        }
        if switches % 4 == 0 {
            edges.succeed();
            successions += 1;
        }
    }
    load.stop.store(true, Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("nothing was dropped"));
    let Ledger { requests, streams, worst_micros } = &*load.ledger;
    let (requests, streams) = (requests.load(Relaxed), streams.load(Relaxed));
    println!(
        "{requests} requests, {streams} streams, {switches} switches, {successions} successions, 0 failures, worst \
         latency {:?}",
        Duration::from_micros(worst_micros.load(Relaxed))
    );
    assert!(requests > 100 && streams > 5 * switches / 4, "{requests} requests and {streams} streams");
    edges.threads.into_iter().for_each(|edge| edge.join().unwrap().unwrap());
    assert_eq!(edges.edge.client.stats().unwrap().failed, 0);
}
