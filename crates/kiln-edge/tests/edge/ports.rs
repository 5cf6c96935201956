//! What the edge tells of ports whose connections it passes on as they are.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use kiln_edge::{Door, Listener};
use kiln_model::{EdgeFleet, RouteTable, Target, TcpRoute};

use crate::harness::{Edge, fleet_id};
use crate::instance::Instance;

/// A door that is passed on.
fn door(edge: &Edge) -> SocketAddr {
    let listeners = Listener::bind(Door::Http, "127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let address = kiln_edge::local(&listeners[0].socket).unwrap();
    let door = Door::Tcp(address.port());
    let listeners: Vec<_> = listeners.into_iter().map(|l| Listener { door, socket: l.socket }).collect();
    edge.client.listen(&listeners).unwrap();
    address
}

fn table(port: u16, fleets: &[EdgeFleet]) -> RouteTable {
    let targets = fleets.iter().map(|fleet| Target { fleet: fleet.id.clone(), weight: 1 }).collect();
    let tcp = vec![TcpRoute { port, service: "web".parse().unwrap(), targets, hold: None }];
    RouteTable { tcp, fleets: fleets.to_vec(), ..RouteTable::default() }
}

/// Waits for the end of a connection that nobody takes.
fn refused(address: SocketAddr) {
    let mut client = TcpStream::connect(address).unwrap();
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn what_goes_through_a_port_is_told_by_port_and_fleet() {
    let echo = Instance::raw(|connection| {
        let mut words = [0; 5];
        connection.reader.read_exact(&mut words).unwrap();
        connection.send([&words[..], b" yourself"].concat());
        let _ = connection.reader.read(&mut [0]);
    });
    let edge = Edge::start();
    let address = door(&edge);
    let port = address.port();
    let fleet = edge.fleet(1, &[&echo]);
    edge.set_table(table(port, std::slice::from_ref(&fleet)));
    let labels = |generation: u64| {
        format!("app=\"hello\",service=\"web\",release=\"\",generation=\"{generation}\",port=\"{port}\"")
    };
    let tells = |name: &str, labels: &str, value: u64| edge.tells(&format!("{name}{{{labels}}} {value}"));
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 14]).unwrap();
    // While it goes on, not when it has ended.
    for (name, value) in [
        ("kiln_tcp_connections_total", 1),
        ("kiln_tcp_open_connections", 1),
        ("kiln_tcp_received_bytes_total", 5),
        ("kiln_tcp_sent_bytes_total", 14),
    ] {
        tells(name, &labels(1), value);
    }
    drop(client);
    tells("kiln_tcp_open_connections", &labels(1), 0);
    edge.tells("kiln_edge_refused_requests_total{cause=\"client_left\"} 0");

    // Nobody there, nobody well, nobody meant.
    let gone = edge.fleet(2, &[&Instance::refusing()]);
    edge.set_table(table(port, std::slice::from_ref(&gone)));
    refused(address);
    let failed = "kiln_tcp_failed_connections_total";
    tells(failed, &format!("{},cause=\"unreachable\"", labels(2)), 1);
    edge.set_table(table(port, &[EdgeFleet { instances: vec![], ..gone }]));
    refused(address);
    tells(failed, &format!("{},cause=\"no_instance\"", labels(2)), 1);
    tells("kiln_tcp_connections_total", &labels(2), 2);
    edge.set_table(table(port, &[]));
    refused(address);
    tells(failed, &format!("service=\"web\",port=\"{port}\",cause=\"no_target\""), 1);
    // With its fleet a series goes.
    assert!(!edge.client.metrics().unwrap().contains(&labels(fleet_id(1).generation.0)));
}
