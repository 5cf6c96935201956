//! The edge process, seen from the control plane that decides what it serves by.
//!
//! Control holds the listening sockets too, so that clients find an open port while no edge runs. An edge is replaced
//! by a successor that has the same sockets and the same table before it accepts; the old one then *leaves*: it takes
//! nobody new, sees who is connected to the end, and is counted with until it is gone.

mod access_log;
mod certificates;
mod command;
mod errand;
mod ledger;
mod live;
mod process;
mod redirects;
mod succession;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use kiln_edge::{Certificate, Door, EdgeClient, EdgeError, Inheritance, Listener, Sockets, bind_control};
use kiln_model::{Evidence, ExitCode, Failure, FleetId, Release, RouteTable};
use kiln_store::Store;

use super::Origin;
use crate::host::{HostConfig, failure as failures};
use crate::sync::lock;
use crate::world::Trouble;
use access_log::AccessLog;
use certificates::Shelf;
pub(in crate::host) use certificates::{inspect, names};
use command::EdgeCommand;
pub use command::EdgeOptions;
use ledger::Ledger;
pub(super) use live::LiveEdge;
use process::Process;

/// Threads of the edge. Each serves a share of the connections; more than the machine has processors helps nobody.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(8)
}

/// The edge's process.
pub(crate) struct EdgeProcess {
    path: PathBuf,
    client: EdgeClient,
    address: SocketAddr,
    origin: Origin,
    command: EdgeCommand,
    access_log: Option<AccessLog>,
    held: Mutex<Held>,
    /// Certificates that the host got itself.
    automatic: Mutex<Vec<Certificate>>,
    /// Doors of the table in force at which somebody else listens, in words.
    shut: Mutex<Vec<String>>,
    /// What people should know of the certificates there are, and of who needs some.
    warnings: Mutex<Vec<String>>,
    /// What each process was last known to have seen of a fleet.
    seen: Mutex<BTreeMap<(u32, FleetId), Evidence>>,
    ledger: Mutex<Ledger>,
    /// Held while a successor comes up.
    renewing: Mutex<()>,
}

/// What there is of it at the moment.
#[derive(Default)]
struct Held {
    listeners: Vec<Listener>,
    process: Option<Process>,
    /// What it was last told to serve by.
    table: Option<RouteTable>,
    certificates: Shelf,
    /// Those it took over from.
    leaving: Vec<Leaving>,
}

/// An edge that has a successor.
struct Leaving {
    client: EdgeClient,
    process: Option<Process>,
}

/// How long an edge that did not come up may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The name of the document that says where an edge that outlived its control plane listens.
const ADDRESS: &str = "edge-address";

impl EdgeProcess {
    /// Starts an edge, or takes over the one that runs already.
    pub(crate) fn start(config: &HostConfig, store: &Store) -> Result<Self, Failure> {
        let path = store.run_dir().join("edge.sock");
        let command = EdgeCommand::new(config, store.root());
        if let Ok(client) = EdgeClient::connect(&path) {
            return Self::take_over(client, path, config, store, command);
        }
        let mut listeners = Listener::bind(Door::Http, config.listen, threads()).map_err(failure)?;
        for (door, at, threads) in command.doors() {
            listeners.extend(Listener::bind(door, at, threads).map_err(failure)?);
        }
        let held = Held { listeners, ..Held::default() };
        let address = address(&held.listeners, Door::Http).unwrap_or(config.listen);
        store.put_state(ADDRESS, &address.to_string()).map_err(|e| failures::store(&e))?;
        let client = EdgeClient::at(&path);
        let access_log = AccessLog::of(config, store);
        let edge = Self::of((path, client), (address, Origin::Ours), command, access_log, held);
        let log = edge.path.with_file_name("edge.log");
        let before = std::fs::metadata(&log).map_or(0, |log| log.len());
        let started = edge.start_another(&mut lock(&edge.held)).and_then(|()| edge.client.counts().map(drop));
        match started {
            Ok(()) => Ok(edge),
            Err(error) => {
                // One that ends by itself says why, and may not have done so when its connection is gone.
                let watched = lock(&edge.held).process.as_ref().and_then(Process::watch);
                let _ = watched.is_some_and(|watched| process::ends_within(&watched, LAST_WORDS));
                // Neither a process nor its socket stays of an edge that did not come up.
                let _ = edge.end();
                Err(match said_since(&log, before) {
                    Some(said) => failure(error).because(format!("it said: {said}")),
                    None => failure(error),
                })
            }
        }
    }

    fn of(
        (path, client): (PathBuf, EdgeClient),
        (address, origin): (SocketAddr, Origin),
        command: EdgeCommand,
        access_log: Option<AccessLog>,
        held: Held,
    ) -> Self {
        let (automatic, warnings, shut, seen, ledger, renewing) = Default::default();
        let held = Mutex::new(held);
        Self {
            path,
            client,
            address,
            origin,
            command,
            access_log,
            held,
            automatic,
            warnings,
            shut,
            seen,
            ledger,
            renewing,
        }
    }

    /// The edge that a control plane before this one started serves on, at the address it had. If it is not what this
    /// one would start, because there is a newer program or because it is to do something else, it gets a successor.
    fn take_over(
        client: EdgeClient,
        path: PathBuf,
        config: &HostConfig,
        store: &Store,
        command: EdgeCommand,
    ) -> Result<Self, Failure> {
        let Inheritance { listeners, identity, pid, table, certificates } =
            client.hand_over().map_err(failure)?;
        let recorded: Option<String> = store.state(ADDRESS).map_err(|e| failures::store(&e))?;
        let recorded = recorded.and_then(|a| a.parse().ok());
        let address = address(&listeners, Door::Http).or(recorded).unwrap_or(config.listen);
        listens_there("--listen", address, config.listen)?;
        for (door, wanted, _) in command.doors() {
            let option = if door == Door::Metrics { "--metrics" } else { "--listen-tls" };
            self::address(&listeners, door).map_or(Ok(()), |there| listens_there(option, there, wanted))?;
        }
        let process = Some(Process::other(pid));
        let leaving = succession::left_behind(&path);
        let held = Held { listeners, process, table, certificates: Shelf::of(certificates), leaving };
        let access_log = AccessLog::of(config, store);
        let edge = Self::of((path, client), (address, Origin::Found), command, access_log, held);
        edge.catch_up(&identity, config).map_err(|trouble| failures::no_edge(&trouble))?;
        Ok(edge)
    }

    fn catch_up(&self, identity: &str, config: &HostConfig) -> Result<(), Trouble> {
        if config.edge.is_none() {
            return Ok(());
        }
        let mut held = lock(&self.held);
        if identity != self.command.identity() {
            self.succeed(&mut held)?;
        }
        for (door, at, threads) in self.command.doors() {
            if address(&held.listeners, door).is_none() {
                let listeners = Listener::bind(door, at, threads).map_err(|e| Trouble::of(&e))?;
                self.open(&mut held, listeners)?;
            }
        }
        Ok(())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients find HTTPS, if it is served.
    pub(crate) fn https_address(&self) -> Option<SocketAddr> {
        address(&lock(&self.held).listeners, Door::Https)
    }

    /// What is doubtful about serving a release here: who is sent to https, and finds nobody there.
    pub(crate) fn doubt(&self, release: &Release) -> Option<String> {
        redirects::of_release(release).filter(|_| !self.has_https(&lock(&self.held).listeners))
    }

    /// Whether https is served here, or by somebody whose word is taken.
    fn has_https(&self, listeners: &[Listener]) -> bool {
        self.command.trusts() || address(listeners, Door::Https).is_some()
    }

    /// Serves at one more door.
    fn open(&self, held: &mut Held, listeners: Vec<Listener>) -> Result<(), Trouble> {
        self.client.listen(&listeners).map_err(|e| Trouble::of(&e))?;
        held.listeners.extend(listeners);
        Ok(())
    }

    /// Starts an edge on the sockets there are.
    fn start_another(&self, held: &mut Held) -> Result<(), EdgeError> {
        let sockets = sockets(&self.path, &held.listeners)?;
        held.process = Some(Process::ours(self.command.spawn(&sockets)?));
        Ok(())
    }

    /// Begins another access log when the one there is has become large.
    pub(crate) fn look_after_log(&self) -> Result<(), Trouble> {
        let Some(log) = &self.access_log else { return Ok(()) };
        let leaving = self.leaving();
        let edges: Vec<&EdgeClient> = std::iter::once(&self.client).chain(&leaving).collect();
        log.look(&edges).map_err(|e| Trouble::of(&e))
    }

    /// All its figures, in Prometheus's text format.
    pub(crate) fn metrics(&self) -> Result<String, Trouble> {
        self.client.metrics().map_err(|e| Trouble::of(&e))
    }

    /// Ends an edge that does not answer, so that another one takes its place.
    pub(crate) fn end_if_stuck(&self) {
        if self.client.counts().is_err()
            && let Some(process) = &lock(&self.held).process
        {
            process.kill();
        }
    }

    /// Ends the edge; what is in flight may go on for a moment.
    pub(crate) fn end(&self) -> Result<(), Trouble> {
        const GRACE: Duration = Duration::from_secs(2);
        let mut held = lock(&self.held);
        held.listeners.clear();
        for leaving in std::mem::take(&mut held.leaving) {
            let _ = leaving.client.shutdown(Duration::ZERO);
            succession::forget(leaving);
        }
        let ended = self.client.shutdown(GRACE);
        if let Some(process) = held.process.take() {
            // It may be stuck; it is ours to end.
            process.finish(ended.is_err());
        }
        let _ = std::fs::remove_file(&self.path);
        ended.map(drop).map_err(|e| Trouble::of(&e))
    }

    /// Ends it if this control plane has started it.
    pub(crate) fn withdraw(&self) {
        if self.origin == Origin::Ours {
            let _ = self.end();
        }
    }
}

/// Nobody is promised a door that is open elsewhere: an edge goes on with the sockets there are.
fn listens_there(option: &str, there: SocketAddr, wanted: SocketAddr) -> Result<(), Failure> {
    if wanted.port() == 0 || wanted == there {
        return Ok(());
    }
    let message = format!("the edge of this host listens on {there}, not on {wanted}");
    let hint = format!("give {option} {there}, to take it over; `kiln down` ends it, and all that it serves");
    Err(Failure::new(ExitCode::Host, message).hint(hint))
}

fn address(listeners: &[Listener], door: Door) -> Option<SocketAddr> {
    let listener = listeners.iter().find(|l| l.door == door)?;
    kiln_edge::local(&listener.socket).ok()
}

/// The sockets for an edge that takes orders at `control`.
fn sockets(control: &std::path::Path, listeners: &[Listener]) -> Result<Sockets, EdgeError> {
    let cloned: std::io::Result<Vec<Listener>> = listeners.iter().map(Listener::try_clone).collect();
    let listeners = cloned.map_err(|source| EdgeError::Spawn { source })?;
    Ok(Sockets { control: bind_control(control)?, listeners })
}

/// What was written to a log, if anything was.
fn said_since(log: &std::path::Path, before: u64) -> Option<String> {
    let text = std::fs::read(log).ok()?;
    let said = String::from_utf8_lossy(text.get(usize::try_from(before).ok()?..)?).trim().to_owned();
    (!said.is_empty()).then_some(said)
}

fn failure(error: EdgeError) -> Failure {
    let failure = failures::with_remedy(Failure::from_error(ExitCode::Host, &error), &error);
    match error {
        EdgeError::AddressInUse { .. } => {
            failure.hint("choose another address with --listen, or end the program that has this one (`ss -ltnp` shows it)")
        }
        _ => failure,
    }
}
