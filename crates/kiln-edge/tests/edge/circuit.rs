//! How much a fleet takes at a time, and requests that are made to wait.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kiln_edge::Limits;
use kiln_model::{Circuit, EdgeFleet, EdgeRoute, Millis, RouteTable, TcpRoute};

use crate::harness::{Edge, fleet_id, route};
use crate::instance::{Instance, ok};

/// Instances that answer when they may.
#[derive(Default, Clone)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn instance(&self) -> Instance {
        let gate = self.clone();
        Instance::new(move |_, connection| {
            let opened = gate.0.1.wait_while(gate.0.0.lock().unwrap(), |open| !*open);
            drop(opened.unwrap());
            connection.send(ok("done"));
            true
        })
    }
}

fn limited(edge: &Edge, instance: &Instance, in_flight: u64, queue: u64, queue_time: u64) {
    let circuit = Some(Circuit { in_flight, queue, queue_time: Millis(queue_time) });
    let fleet = EdgeFleet { circuit, ..edge.fleet(1, &[instance]) };
    edge.set(vec![route(None, "/", &[(&fleet.id, 1)])], vec![fleet]);
}

fn figure(edge: &Edge, name: &str) -> u64 {
    let text = edge.client.metrics().unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until a figure is what it should be.
fn until(edge: &Edge, name: &str, value: u64) {
    let begun = Instant::now();
    while figure(edge, name) != value {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{name} is {} and never {value}",
            figure(edge, name)
        );
        std::thread::yield_now();
    }
}

#[test]
fn what_is_too_much_waits_and_what_is_far_too_much_is_refused() {
    let gate = Gate::default();
    let instance = gate.instance();
    let edge = Edge::start();
    limited(&edge, &instance, 2, 3, 60_000);
    let mut waiting: Vec<_> = (0..5)
        .map(|_| {
            let mut client = edge.connect();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    until(&edge, "kiln_fleet_in_flight_requests{", 2);
    until(&edge, "kiln_fleet_waiting_requests{", 3);
    // The instance counts a connection when it accepts it, which may be later than the edge has it.
    let begun = Instant::now();
    while instance.connections() < 2 && begun.elapsed() < Duration::from_secs(20) {
        std::thread::yield_now();
    }
    assert_eq!((edge.count().in_flight, instance.connections()), (2, 2));
    let refused = edge.connect().get("/");
    assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("1")));
    assert_eq!(figure(&edge, "kiln_fleet_overloaded_requests_total{"), 1);
    assert_eq!(figure(&edge, "kiln_edge_refused_requests_total{cause=\"overloaded\"}"), 1);
    gate.open();
    assert!(waiting.iter_mut().all(|client| client.read().text() == "done"));
    let count = edge.drained();
    assert_eq!((count.served, count.failed, figure(&edge, "kiln_fleet_waiting_requests{")), (6, 1, 0));
}

#[test]
fn who_has_waited_too_long_is_refused() {
    let gate = Gate::default();
    let instance = gate.instance();
    let edge = Edge::start();
    limited(&edge, &instance, 1, 10, 50);
    let mut first = edge.connect();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until(&edge, "kiln_fleet_in_flight_requests{", 1);
    assert_eq!(edge.connect().get("/").status(), 503);
    assert_eq!(figure(&edge, "kiln_fleet_overloaded_requests_total{"), 1);
    gate.open();
    assert_eq!(first.read().text(), "done");
    assert_eq!(edge.connect().get("/").text(), "done");
    let count = edge.drained();
    assert_eq!((count.served, count.failed), (3, 1), "what was not let in is answered for");
}

#[test]
fn who_waited_through_a_pause_has_the_whole_time_in_the_queue_as_well() {
    let gate = Gate::default();
    let instance = gate.instance();
    let edge = Edge::start();
    let circuit = Some(Circuit { in_flight: 1, queue: 10, queue_time: Millis(500) });
    let fleets = [EdgeFleet { circuit, ..edge.fleet(1, &[&instance]) }];
    edge.set_table(held(Some(60_000), &fleets, 1));
    let mut clients: Vec<_> = (0..3).map(|_| edge.connect()).collect();
    clients.iter_mut().for_each(|client| _ = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    until(&edge, "kiln_edge_in_flight_requests", 3);
    assert!(
        clients[0].is_silent_for(Duration::from_millis(600)),
        "longer than anybody may wait in the queue"
    );
    edge.set_table(held(None, &fleets, 1));
    until(&edge, "kiln_fleet_waiting_requests{", 2);
    gate.open();
    assert!(clients.iter_mut().all(|client| client.read().text() == "done"));
    assert_eq!(figure(&edge, "kiln_fleet_overloaded_requests_total{"), 0);
}

/// Many at once through a narrow door: nobody is forgotten, and never are there more than there may be.
#[test]
fn nobody_waits_for_ever() {
    let most = Arc::new(Mutex::new((0_u32, 0_u32)));
    let seen = most.clone();
    let instance = Instance::new(move |_, connection| {
        let mut now = seen.lock().unwrap();
        now.0 += 1;
        now.1 = now.1.max(now.0);
        drop(now);
        std::thread::yield_now();
        seen.lock().unwrap().0 -= 1;
        connection.send(ok("done"));
        true
    });
    let edge = Edge::start();
    limited(&edge, &instance, 3, 1000, 60_000);
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                let mut client = edge.connect();
                (0..100).for_each(|n| assert_eq!(client.get("/").text(), "done", "request {n}"));
            });
        }
    });
    assert!(most.lock().unwrap().1 <= 3, "{} at once", most.lock().unwrap().1);
    assert_eq!(figure(&edge, "kiln_fleet_overloaded_requests_total{"), 0);
}

fn held(wait: Option<u64>, fleets: &[EdgeFleet], target: u64) -> RouteTable {
    let hold = wait.map(Millis);
    let route = EdgeRoute { hold, ..route(None, "/", &[(&fleet_id(target), 1)]) };
    RouteTable { routes: vec![route], fleets: fleets.to_vec(), ..RouteTable::default() }
}

#[test]
fn paused_requests_wait_and_go_where_the_next_table_says() {
    let (old, new) = (Instance::saying("old"), Instance::saying("new"));
    let edge = Edge::start();
    let fleets = [edge.fleet(1, &[&old]), edge.fleet(2, &[&new])];
    edge.set_table(held(Some(60_000), &fleets, 1));
    let mut clients: Vec<_> = (0..20).map(|_| edge.connect()).collect();
    clients.iter_mut().for_each(|client| _ = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    until(&edge, "kiln_edge_in_flight_requests", 20);
    assert_eq!((old.connections(), new.connections()), (0, 0));
    // Another table that still holds them is no reason to go.
    edge.set_table(held(Some(60_000), &fleets, 2));
    assert_eq!(figure(&edge, "kiln_edge_in_flight_requests"), 20);
    edge.set_table(held(None, &fleets, 2));
    assert!(clients.iter_mut().all(|client| client.read().text() == "new"));
    assert_eq!(old.connections(), 0);
}

#[test]
fn a_pause_has_an_end_for_everybody() {
    let instance = Instance::saying("here");
    let edge = Edge::with(Limits { queue: 2, ..Limits::default() }, 1);
    let fleets = [edge.fleet(1, &[&instance])];
    edge.set_table(held(Some(100), &fleets, 1));
    let (begun, answer) = (Instant::now(), edge.connect().get("/"));
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));
    assert!(
        begun.elapsed() >= Duration::from_millis(100) && answer.text().contains("paused"),
        "{}",
        answer.text()
    );
    // More than may wait do not.
    edge.set_table(held(Some(60_000), &fleets, 1));
    let mut two: Vec<_> = (0..2).map(|_| edge.connect()).collect();
    two.iter_mut().for_each(|client| _ = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    until(&edge, "kiln_edge_in_flight_requests", 2);
    assert_eq!(edge.connect().get("/").status(), 503);
    assert_eq!(figure(&edge, "kiln_edge_refused_requests_total{cause=\"paused\"}"), 2);
    edge.set_table(held(None, &fleets, 1));
    assert!(two.iter_mut().all(|client| client.read().text() == "here"));
    let count = edge.drained();
    assert_eq!((count.served, count.failed), (4, 2), "what waited in vain is answered for");
    assert_eq!(figure(&edge, &answered("5xx")), 2, "at its route, too");
}

/// The figure of what is answered at the only route.
fn answered(status: &str) -> String {
    let labels = "app=\"hello\",service=\"web\",release=\"\",generation=\"1\",route=\"*/\"";
    format!("kiln_requests_total{{{labels},status=\"{status}\"}}")
}

#[test]
fn who_is_refused_for_want_of_room_or_of_instances_is_counted_at_its_route() {
    let instance = Instance::saying("here");
    let edge = Edge::start();
    limited(&edge, &instance, 0, 0, 0);
    assert_eq!(edge.connect().get("/").status(), 503);
    assert_eq!(figure(&edge, &answered("5xx")), 1);
    edge.serve(&[]);
    assert_eq!(edge.connect().get("/").status(), 503);
    assert_eq!(figure(&edge, &answered("5xx")), 2);
}

#[test]
fn connections_wait_too() {
    let instance = Instance::saying("over tcp");
    let edge = Edge::start();
    let listeners =
        kiln_edge::Listener::bind(kiln_edge::Door::Http, "127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let address = kiln_edge::local(&listeners[0].socket).unwrap();
    let door = kiln_edge::Door::Tcp(address.port());
    let listeners: Vec<_> =
        listeners.into_iter().map(|l| kiln_edge::Listener { door, socket: l.socket }).collect();
    edge.client.listen(&listeners).unwrap();
    let fleets = vec![edge.fleet(1, &[&instance])];
    let table = |hold: Option<u64>| RouteTable {
        tcp: vec![TcpRoute {
            port: address.port(),
            service: "web".parse().unwrap(),
            targets: vec![kiln_model::Target { fleet: fleet_id(1), weight: 1 }],
            hold: hold.map(Millis),
        }],
        fleets: fleets.clone(),
        ..RouteTable::default()
    };
    edge.set_table(table(Some(60_000)));
    let mut client = crate::wire::Client::new(std::net::TcpStream::connect(address).unwrap());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until(&edge, "kiln_edge_in_flight_requests", 1);
    assert_eq!(instance.connections(), 0);
    edge.set_table(table(None));
    assert_eq!(client.read().text(), "over tcp");
}
