//! What an instance needs is there under its name, and nothing else is.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use common::Bench;
use kiln_engine::Broker;
use kiln_engine::embedded::broker;
use kiln_model::{Exit, Inside, InstanceOrder};

fn need(name: &str, last: u8, ports: &[u16]) -> Inside {
    let (address, ports) = (Ipv4Addr::new(127, 77, 0, last), ports.iter().copied().collect::<BTreeSet<_>>());
    Inside { name: name.parse().unwrap(), address, ports, store: None }
}

fn order(bench: &Bench, id: &str, script: &str, needs: Vec<Inside>) -> InstanceOrder {
    InstanceOrder { needs, ..bench.image.shell(id, script) }
}

fn broker(bench: &Bench) -> broker::Client {
    broker::Client::connect(&broker::socket_path(&bench.run_dir())).unwrap()
}

#[test]
fn what_is_needed_has_a_name_and_somebody_listens_before_the_program_runs() {
    let bench = Bench::new();
    let script = "cat /etc/hosts; echo hello | nc api 8080; echo end; sleep 1000";
    let order = order(&bench, "a", script, vec![need("api", 1, &[80, 8080]), need("db", 2, &[5432])]);
    bench.run(&order);
    let listeners = broker(&bench).listeners(&order.id).unwrap();
    let names: Vec<&str> = listeners.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["api", "api", "db"]);
    let addresses: Vec<String> = listeners.iter().map(|(_, l)| address(l)).collect();
    assert_eq!(addresses, ["127.77.0.1:80", "127.77.0.1:8080", "127.77.0.2:5432"]);
    let mut connection = accept(&listeners[1].1);
    let mut told = [0; 6];
    connection.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"hello\n");
    connection.write_all(b"from outside\n").unwrap();
    drop(connection);
    bench.wait_for_output(&order.id, "end");
    let output = bench.output(&order.id);
    assert!(output.contains("127.77.0.2\tdb\n") && output.contains("from outside\n"), "{output}");
    // Asked for again, as another edge would, they are the same.
    assert_eq!(broker(&bench).listeners(&order.id).unwrap().len(), 3);
}

fn address(listener: &OwnedFd) -> String {
    TcpListener::from(listener.try_clone().unwrap()).local_addr().unwrap().to_string()
}

fn accept(listener: &OwnedFd) -> TcpStream {
    let listener = TcpListener::from(listener.try_clone().unwrap());
    listener.set_nonblocking(false).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn an_instance_without_needs_reaches_nothing() {
    let bench = Bench::new();
    let outside = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = outside.local_addr().unwrap().port();
    let neighbour = order(&bench, "b", "nc -l -p 7777", vec![need("api", 1, &[80])]);
    bench.run(&neighbour);
    let places = ["127.0.0.1", "127.77.0.1", "10.0.0.5", "1.1.1.1", "localhost", "api", "db", "b"];
    let attempts: Vec<String> = places
        .iter()
        .flat_map(|place| {
            [80, 7777, port]
                .map(|port| format!("echo x | nc -w 1 {place} {port} && echo reached {place}:{port}"))
        })
        .collect();
    let (exit, output) = bench.script("a", &format!("{}; cat /etc/hosts; echo tried", attempts.join("; ")));
    assert_eq!(exit, Exit::Code { code: 0 });
    assert!(output.ends_with("127.0.0.1 localhost\ntried\n") && !output.contains("reached"), "{output}");
    assert_eq!(broker(&bench).listeners(&neighbour.id).unwrap().len(), 1);
}

#[test]
fn what_listened_inside_is_made_anew_where_it_went_with_keeper_and_holder() {
    let mut bench = Bench::new();
    let script =
        "while [ ! -e /tmp/again ]; do sleep 0.01; done; echo hello | nc api 8080; echo end; sleep 1000";
    let order = order(&bench, "a", script, vec![need("api", 1, &[80, 8080])]);
    let pid = bench.run(&order);
    let copies = broker(&bench).listeners(&order.id).unwrap();
    bench.kill_keeper_and_holder();
    bench.restart();
    // Who has a copy serves by it, and nobody else can listen in its place.
    let refused = format!("{:?}", broker(&bench).listeners(&order.id).unwrap_err());
    assert!(refused.contains("listen in its network again: Address already in use"), "{refused}");
    drop(copies);
    let listeners = broker(&bench).listeners(&order.id).unwrap();
    let addresses: Vec<String> = listeners.iter().map(|(_, l)| address(l)).collect();
    assert_eq!(addresses, ["127.77.0.1:80", "127.77.0.1:8080"]);
    fs::write(format!("/proc/{pid}/root/tmp/again"), "").unwrap();
    let mut connection = accept(&listeners[1].1);
    let mut told = [0; 6];
    connection.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"hello\n");
    // What was accepted goes on, and is no reason not to listen there once more.
    drop(listeners);
    bench.kill_keeper_and_holder();
    bench.restart();
    assert_eq!(broker(&bench).listeners(&order.id).unwrap().len(), 2);
    connection.write_all(b"from outside\n").unwrap();
    drop(connection);
    bench.wait_for_output(&order.id, "end");
    assert!(bench.output(&order.id).contains("from outside\n"));
    // The next keeper has them from this one.
    let before = bench.keeper_pid();
    bench.kill_keeper();
    bench.next_keeper(before);
    assert_eq!(broker(&bench).listeners(&order.id).unwrap().len(), 2);
}
