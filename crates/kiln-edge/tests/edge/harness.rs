//! An edge in this process, and tables for it.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_edge::{Dial, EdgeClient, EdgeConfig, EdgeError, Limits, Sockets};
use kiln_model::{
    EdgeCounts, EdgeFleet, EdgeRoute, FleetCount, FleetId, Generation, InstanceId, RouteTable, Target,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::instance::Instance;
use crate::wire::Client;

/// Plain sockets, and instances that are ports of this host.
#[derive(Default)]
pub struct Ports(Mutex<HashMap<InstanceId, SocketAddr>>);

impl Dial for Ports {
    fn sockets(&self, instance: &InstanceId, count: u32) -> io::Result<Vec<OwnedFd>> {
        if !self.0.lock().unwrap().contains_key(instance) {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no instance {instance}")));
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = || rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
        (0..count).map(|_| Ok(socket()?)).collect()
    }

    fn address(&self, instance: &InstanceId, _: u16) -> SocketAddr {
        self.0.lock().unwrap()[instance]
    }
}

/// An edge on a free port of loopback.
pub struct Edge {
    pub address: SocketAddr,
    pub client: EdgeClient,
    ports: Arc<Ports>,
    version: Mutex<u64>,
    thread: Option<JoinHandle<Result<(), EdgeError>>>,
    _dir: tempfile::TempDir,
}

impl Edge {
    pub fn start() -> Self {
        Self::with(Limits::default(), 2)
    }

    pub fn with(limits: Limits, threads: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.sock");
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), threads, &path).unwrap();
        let address = kiln_edge::local(&sockets.listeners[0]).unwrap();
        let ports = Arc::<Ports>::default();
        let config = EdgeConfig { sockets, dial: ports.clone(), confinement: None, limits };
        let thread = Some(std::thread::spawn(move || kiln_edge::run(config)));
        let client = EdgeClient::connect(&path).unwrap();
        Self { address, client, ports, version: Mutex::new(0), thread, _dir: dir }
    }

    /// An edge with one route for everything to one fleet of these instances.
    pub fn serving(instances: &[&Instance]) -> Self {
        let edge = Self::start();
        edge.serve(instances);
        edge
    }

    pub fn serve(&self, instances: &[&Instance]) -> EdgeCounts {
        let fleet = self.fleet(1, instances);
        self.set(vec![route(None, "/", &[(&fleet.id, 1)])], vec![fleet])
    }

    /// The fleet of this generation, with its instances made reachable.
    pub fn fleet(&self, generation: u64, instances: &[&Instance]) -> EdgeFleet {
        let id = fleet_id(generation);
        let with_id = |(n, instance): (usize, &&Instance)| (id.instance(n as u32 + 1), instance.address);
        let known: Vec<_> = instances.iter().enumerate().map(with_id).collect();
        self.ports.0.lock().unwrap().extend(known.iter().cloned());
        EdgeFleet { id, port: 80, instances: known.into_iter().map(|(id, _)| id).collect() }
    }

    pub fn set(&self, routes: Vec<EdgeRoute>, fleets: Vec<EdgeFleet>) -> EdgeCounts {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        self.client.set_table(&RouteTable { version: *version, routes, fleets }).unwrap()
    }

    pub fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).unwrap())
    }

    /// The counts of fleet 1.
    pub fn count(&self) -> FleetCount {
        self.client.counts().unwrap().fleets.remove(0)
    }

    /// Waits, by the edge's own acknowledgement, until nothing is in flight at fleet 1.
    pub fn drained(&self) -> FleetCount {
        let counts = self.client.wait_drained(&[fleet_id(1)], Duration::from_secs(10)).unwrap();
        assert_eq!(counts.fleets[0].in_flight, 0);
        counts.fleets[0].clone()
    }

    pub fn join(mut self) -> Result<(), EdgeError> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.client.shutdown(Duration::ZERO);
            let _ = thread.join();
        }
    }
}

pub fn fleet_id(generation: u64) -> FleetId {
    FleetId {
        app: "hello".parse().unwrap(),
        service: "web".parse().unwrap(),
        generation: Generation(generation),
    }
}

pub fn route(host: Option<&str>, path: &str, targets: &[(&FleetId, u32)]) -> EdgeRoute {
    EdgeRoute {
        host: host.map(|h| h.parse().unwrap()),
        path: path.into(),
        service: "web".parse().unwrap(),
        targets: targets.iter().map(|(f, weight)| Target { fleet: (*f).clone(), weight: *weight }).collect(),
    }
}
