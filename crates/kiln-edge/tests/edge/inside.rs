//! What comes from inside instances goes to services of their own release and to the stores they need.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use kiln_edge::{EdgeSettings, Limits, Trust};
use kiln_model::{EdgeFleet, EdgeNeed, InstanceId, RouteTable, Target};

use crate::harness::{Edge, fleet_id, route};
use crate::instance::{Instance, ok};
use crate::wire::Client;

/// A caller of a generation that needs this, and where inside of it that is reached.
fn caller(edge: &Edge, generation: u64, name: &str, need: EdgeNeed) -> (EdgeFleet, SocketAddr) {
    let id = fleet_id(generation);
    let instance: InstanceId = id.instance(77);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let name: kiln_model::NeedName = name.parse().unwrap();
    let mut insides = edge.ports().1.lock().unwrap();
    insides.listeners.insert(instance.clone(), vec![(name.clone(), listener)]);
    drop(insides);
    let fleet = edge.fleet(generation, &[]);
    (EdgeFleet { callers: vec![instance], needs: BTreeMap::from([(name, need)]), ..fleet }, address)
}

fn to(fleet: &EdgeFleet) -> EdgeNeed {
    EdgeNeed::Service { targets: vec![Target { fleet: fleet.id.clone(), weight: 1 }] }
}

fn ask(address: SocketAddr) -> (u16, String) {
    let answer = Client::new(TcpStream::connect(address).unwrap()).get("/");
    (answer.status(), answer.text().to_owned())
}

#[test]
fn each_caller_reaches_the_services_of_its_own_release() {
    let edge = Edge::start();
    let (old, new) = (Instance::saying("old"), Instance::saying("new"));
    let (old, new) = (edge.fleet(1, &[&old]), edge.fleet(2, &[&new]));
    let (old_caller, old_door) = caller(&edge, 3, "api", to(&old));
    let (new_caller, new_door) = caller(&edge, 4, "api", to(&new));
    let fleets = vec![old.clone(), new, old_caller, new_caller.clone()];
    edge.set_table(RouteTable { fleets, ..RouteTable::default() });
    for _ in 0..20 {
        assert_eq!(ask(old_door), (200, "old".to_owned()));
        assert_eq!(ask(new_door), (200, "new".to_owned()));
    }
    // Requests of one connection go where the table says when they come.
    let mut client = Client::new(TcpStream::connect(new_door).unwrap());
    assert_eq!(client.get("/").text(), "new");
    let moved = EdgeFleet { needs: BTreeMap::from([("api".parse().unwrap(), to(&old))]), ..new_caller };
    edge.set_table(RouteTable { fleets: vec![old, moved], ..RouteTable::default() });
    assert_eq!(client.get("/").text(), "old");
    let counts = edge.client.counts().unwrap();
    assert_eq!(counts.fleets[0].failed, 0);
    // They are counted as requests from outside are, by who asks for what.
    let metrics = edge.client.metrics().unwrap();
    let line = metrics.lines().find(|l| l.starts_with("kiln_requests_total") && l.contains("2xx")).unwrap();
    assert!(line.contains("route=\"web -> api\"") && line.ends_with(" 21"), "{line}");
}

/// Whoever makes what listens may be short of something for a moment; nobody tells another table for that.
#[test]
fn a_caller_that_could_not_be_served_at_first_is_served_later() {
    let edge = Edge::start();
    let instance = Instance::saying("well");
    let fleet = edge.fleet(1, &[&instance]);
    let (caller, door) = caller(&edge, 2, "api", to(&fleet));
    edge.ports().1.lock().unwrap().short = 1;
    edge.set_table(RouteTable { fleets: vec![fleet, caller], ..RouteTable::default() });
    let waits = TcpStream::connect(door).unwrap();
    assert_eq!(Client::new(waits).get("/").text(), "well");
    assert_eq!(edge.ports().1.lock().unwrap().short, 0, "it was tried twice");
}

/// It stays in the table for what its own release asks, and its users have had their time all the same.
#[test]
fn a_fleet_that_is_parted_ends_what_is_in_flight_and_answers_its_own_release() {
    let (began, begun) = std::sync::mpsc::channel();
    let (release, hold) = std::sync::mpsc::channel::<()>();
    let hold = std::sync::Mutex::new(hold);
    let web = Instance::new(move |request, connection| {
        if request.start.contains("/slow") {
            began.send(()).unwrap();
            let _ = hold.lock().unwrap().recv();
        }
        connection.send(ok("web"));
        true
    });
    let edge = Edge::start();
    let fleet = edge.fleet(1, &[&web]);
    let (caller, door) = caller(&edge, 2, "web", to(&fleet));
    let put = |is_routed: bool, parted: bool| {
        let routes = is_routed.then(|| route(None, "/", &[(&fleet.id, 1)])).into_iter().collect();
        let fleets = vec![EdgeFleet { parted, ..fleet.clone() }, EdgeFleet { parted, ..caller.clone() }];
        edge.set_table(RouteTable { routes, fleets, ..RouteTable::default() })
    };
    // Each time that it was live again.
    for _ in 0..2 {
        put(true, false);
        let mut client = edge.connect();
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        begun.recv().unwrap();
        assert_eq!(put(false, false).gone, [], "it drains");
        let gone = put(false, true).gone;
        let cut: Vec<_> = gone.iter().filter(|g| g.fleet == fleet.id).map(|g| (g.cut, g.in_flight)).collect();
        assert_eq!((cut, client.read().status()), (vec![(1, 0)], 502));
        assert_eq!(ask(door), (200, "web".to_owned()));
        assert_eq!(put(false, true).gone, [], "it is parted once");
        // A request is counted when its answer has gone, which its client may hear of first.
        let labels = "app=\"hello\",service=\"web\",release=\"\",generation=\"1\",route=\"web -> web\"";
        edge.tells(&format!("kiln_requests_total{{{labels},status=\"2xx\"}} 1"));
        let metrics = edge.client.metrics().unwrap();
        let is_it =
            |l: &&str| l.starts_with("kiln_requests_total") && l.contains("web -> web") && l.contains("2xx");
        let lines: Vec<&str> = metrics.lines().filter(is_it).collect();
        assert!(lines.len() == 1 && lines[0].ends_with(" 1"), "{lines:?}");
        release.send(()).unwrap();
    }
}

/// Every instance has a 127.0.0.1 of its own, and whatever runs in one asks from there.
#[test]
fn whom_the_host_trusts_is_nobody_inside_an_instance() {
    let trust = Trust(vec!["127.0.0.0/8".parse().unwrap()]);
    let settings = EdgeSettings { trust, ..EdgeSettings::default() };
    let edge = Edge::with_settings(Limits::default(), 1, settings);
    let api = Instance::saying("api");
    let fleet = edge.fleet(1, &[&api]);
    let (caller, door) = caller(&edge, 2, "api", to(&fleet));
    edge.set_table(RouteTable { fleets: vec![fleet, caller], ..RouteTable::default() });
    // On both ways.
    for connection in ["keep-alive", "close"] {
        let said = format!("X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nConnection: {connection}");
        let mut client = Client::new(TcpStream::connect(door).unwrap());
        client.send(format!("GET / HTTP/1.1\r\nHost: api\r\n{said}\r\n\r\n"));
        assert_eq!(client.read().text(), "api");
        let seen = api.seen().pop().unwrap();
        let heard = (seen.header("x-forwarded-for"), seen.header("x-real-ip"));
        assert_eq!(heard, (Some("127.0.0.1"), None), "{connection}");
    }
}

/// They all have the address 127.0.0.1, and so may a client of the host.
#[test]
fn each_instance_may_have_as_many_connections_as_a_client() {
    let trust = Trust(vec!["127.0.0.0/8".parse().unwrap()]);
    for settings in [EdgeSettings::default(), EdgeSettings { trust, ..EdgeSettings::default() }] {
        let edge = Edge::with_settings(Limits { client_connections: 2, ..Limits::default() }, 1, settings);
        let fleet = edge.fleet(1, &[&Instance::saying("api")]);
        let (one, one_door) = caller(&edge, 2, "api", to(&fleet));
        let (other, other_door) = caller(&edge, 3, "api", to(&fleet));
        let routes = vec![route(None, "/", &[(&fleet.id, 1)])];
        edge.set_table(RouteTable { routes, fleets: vec![fleet, one, other], ..RouteTable::default() });
        let connect = |door| Client::new(TcpStream::connect(door).unwrap());
        let doors = [one_door, one_door, other_door, other_door, edge.address, edge.address];
        let mut kept: Vec<Client> = doors.map(connect).into_iter().collect();
        assert!(kept.iter_mut().all(|client| client.get("/").text() == "api"));
        assert!(connect(one_door).is_at_end() && connect(other_door).is_at_end());
        edge.tells("kiln_edge_refused_connections_total{cause=\"too_many\"} 2");
    }
}

#[test]
fn a_service_without_instances_is_told_apart_from_one_that_answers() {
    let edge = Edge::start();
    let empty = edge.fleet(1, &[]);
    let (caller, door) = caller(&edge, 2, "api", to(&empty));
    edge.set_table(RouteTable { fleets: vec![empty, caller], ..RouteTable::default() });
    assert_eq!(ask(door).0, 503);
}

#[test]
fn a_store_gets_bytes_as_they_are_and_one_that_is_down_resets() {
    let edge = Edge::start();
    let store = TcpListener::bind("127.0.0.1:0").unwrap();
    let name: kiln_model::NeedName = "db".parse().unwrap();
    edge.ports().1.lock().unwrap().stores.insert(name, store.local_addr().unwrap());
    let (fleet, door) = caller(&edge, 1, "db", EdgeNeed::Store);
    edge.set_table(RouteTable { fleets: vec![fleet], ..RouteTable::default() });
    let mut client = TcpStream::connect(door).unwrap();
    client.write_all(b"\x00\xffquery").unwrap();
    let (mut stored, _) = store.accept().unwrap();
    let mut query = [0; 7];
    stored.read_exact(&mut query).unwrap();
    assert_eq!(&query, b"\x00\xffquery");
    stored.write_all(b"rows").unwrap();
    drop(stored);
    let mut rows = Vec::new();
    client.read_to_end(&mut rows).unwrap();
    assert_eq!(rows, b"rows");
    // It holds up nobody: it was in flight at no fleet.
    assert_eq!(edge.client.counts().unwrap().fleets[0].in_flight, 0);

    let before = edge.client.stats().unwrap().failed;
    drop(store);
    let mut refused = TcpStream::connect(door).unwrap();
    refused.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(refused.read(&mut [0]).is_err(), "neither an answer nor a proper end");
    assert_eq!(edge.client.stats().unwrap().failed, before + 1);
    let who = "app=\"hello\",service=\"web\",need=\"db\",cause=\"unreachable\"";
    edge.tells(&format!("kiln_edge_failed_stores_total{{{who}}} 1"));
}

#[test]
fn an_instance_that_is_no_caller_any_more_is_not_listened_to() {
    let edge = Edge::start();
    let api = Instance::saying("api");
    let api = edge.fleet(1, &[&api]);
    let (caller, door) = caller(&edge, 2, "api", to(&api));
    edge.set_table(RouteTable { fleets: vec![api.clone(), caller.clone()], ..RouteTable::default() });
    assert_eq!(ask(door).0, 200);
    edge.ports().1.lock().unwrap().listeners.clear();
    edge.set_table(RouteTable {
        fleets: vec![api, EdgeFleet { callers: vec![], ..caller }],
        ..RouteTable::default()
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(door).is_ok() {
        assert!(Instant::now() < deadline, "it is still listened to");
    }
}
