//! An edge in this process, and tables for it.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln_edge::{Dial, Door, EdgeClient, EdgeConfig, EdgeError, EdgeSettings, Limits, Listener, Sockets};
use kiln_model::{
    EdgeCounts, EdgeFleet, EdgeRoute, FleetCount, FleetId, Generation, HttpsRule, InstanceId, NeedName,
    Protocol, RouteTable, Target,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::instance::Instance;
use crate::wire::Client;

/// What gives privileges up, or is somebody else, has to have some.
pub fn needs_root() {
    assert!(rustix::process::getuid().is_root(), "run this test as root");
}

/// Plain sockets, and instances that are ports of this host.
#[derive(Default)]
pub struct Ports(Mutex<HashMap<InstanceId, SocketAddr>>, pub Mutex<Insides>);

/// What listens inside of instances, and where stores are.
#[derive(Default)]
pub struct Insides {
    pub listeners: HashMap<InstanceId, Vec<(NeedName, TcpListener)>>,
    pub stores: HashMap<NeedName, SocketAddr>,
    /// How often there is nobody who could make sockets.
    pub away: u32,
    /// How often whoever makes sockets can make none, nor listen.
    pub short: u32,
}

impl Insides {
    fn have_room(&mut self) -> io::Result<()> {
        match self.short.checked_sub(1) {
            Some(left) => self.short = left,
            None => return Ok(()),
        }
        Err(io::Error::other("there are no descriptors"))
    }
}

impl Dial for Ports {
    fn sockets(&self, instance: &InstanceId, count: u32) -> io::Result<Vec<OwnedFd>> {
        if !self.0.lock().unwrap().contains_key(instance) {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no instance {instance}")));
        }
        let mut insides = self.1.lock().unwrap();
        if let Some(left) = insides.away.checked_sub(1) {
            insides.away = left;
            return Err(io::ErrorKind::NotConnected.into());
        }
        insides.have_room()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = || rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
        (0..count).map(|_| Ok(socket()?)).collect()
    }

    fn listeners(&self, instance: &InstanceId) -> io::Result<Vec<(NeedName, OwnedFd)>> {
        let mut insides = self.1.lock().unwrap();
        insides.have_room()?;
        let of = insides.listeners.get(instance).into_iter().flatten();
        of.map(|(name, listener)| Ok((name.clone(), listener.try_clone()?.into()))).collect()
    }

    fn store(&self, _: &InstanceId, need: &NeedName) -> io::Result<OwnedFd> {
        let address = self.1.lock().unwrap().stores.get(need).copied().ok_or(io::ErrorKind::NotFound)?;
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        Ok(stream.into())
    }

    fn address(&self, instance: &InstanceId, _: u16) -> SocketAddr {
        self.0.lock().unwrap()[instance]
    }
}

/// An edge on a free port of loopback.
pub struct Edge {
    pub address: SocketAddr,
    pub https: SocketAddr,
    pub client: EdgeClient,
    ports: Arc<Ports>,
    version: Mutex<u64>,
    thread: Option<JoinHandle<Result<(), EdgeError>>>,
    dir: tempfile::TempDir,
    successions: u32,
}

impl Edge {
    pub fn start() -> Self {
        Self::with(Limits::default(), 2)
    }

    pub fn with(limits: Limits, threads: usize) -> Self {
        Self::with_settings(limits, threads, EdgeSettings::default())
    }

    /// Another edge on the sockets of this one and with its table; this one leaves. What instances there are stays
    /// known to both.
    pub fn succeed(&mut self) -> JoinHandle<Result<(), EdgeError>> {
        let inheritance = self.client.hand_over().unwrap();
        let path = self.dir.path().join(format!("edge-{}.sock", self.successions));
        self.successions += 1;
        let control = kiln_edge::bind_control(&path).unwrap();
        let sockets = Sockets { control, listeners: inheritance.listeners };
        let (limits, settings) = (Limits::default(), EdgeSettings::default());
        let config = EdgeConfig { sockets, dial: self.ports.clone(), confinement: None, limits, settings };
        let thread = std::thread::spawn(move || kiln_edge::run(config));
        let client = EdgeClient::connect(&path).unwrap();
        client.set_certificates(&inheritance.certificates).unwrap();
        client.set_table(&inheritance.table.unwrap()).unwrap();
        self.client.leave(Duration::from_secs(60)).unwrap();
        self.client = client;
        self.thread.replace(thread).unwrap()
    }

    pub fn with_settings(limits: Limits, threads: usize, settings: EdgeSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.sock");
        let any = "127.0.0.1:0".parse().unwrap();
        let mut sockets = Sockets::bind(any, threads, &path).unwrap();
        sockets.listeners.extend(Listener::bind(Door::Https, any, threads).unwrap());
        let https = sockets.address(Door::Https).unwrap();
        let address = sockets.address(Door::Http).unwrap();
        let ports = Arc::<Ports>::default();
        let config = EdgeConfig { sockets, dial: ports.clone(), confinement: None, limits, settings };
        let thread = Some(std::thread::spawn(move || kiln_edge::run(config)));
        let client = EdgeClient::connect(&path).unwrap();
        Self { address, https, client, ports, version: Mutex::new(0), thread, dir, successions: 0 }
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
        EdgeFleet {
            id,
            port: 80,
            instances: known.into_iter().map(|(id, _)| id).collect(),
            release: None,
            protocol: Protocol::Http1,
            circuit: None,
            callers: vec![],
            needs: Default::default(),
            parted: false,
        }
    }

    pub fn set(&self, routes: Vec<EdgeRoute>, fleets: Vec<EdgeFleet>) -> EdgeCounts {
        self.set_table(RouteTable { routes, fleets, ..RouteTable::default() })
    }

    pub fn set_table(&self, table: RouteTable) -> EdgeCounts {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        self.client.set_table(&RouteTable { version: *version, ..table }).unwrap()
    }

    /// What the edge asks when it is to reach into instances.
    pub fn ports(&self) -> &Ports {
        &self.ports
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

    /// Waits until the edge tells a figure with this line.
    pub fn tells(&self, figure: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.client.metrics().unwrap().lines().any(|line| line == figure) {
            assert!(Instant::now() < deadline, "no {figure} in\n{}", self.client.metrics().unwrap());
            std::thread::yield_now();
        }
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
        https: HttpsRule::Optional,
        audience: kiln_model::Audience::Everybody,
        hold: None,
        max_body: None,
        timeout: None,
    }
}
