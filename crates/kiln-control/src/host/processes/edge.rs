//! The edge process, and the core's view of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_edge::{EdgeClient, EdgeError, Sockets};
use kiln_model::{EdgeCounts, ExitCode, Failure, FleetId, RouteTable};
use kiln_store::Store;

use super::super::driver::Waker;
use crate::sync::lock;
use crate::world::{Edge, Trouble};

/// Threads of the edge. Each serves a share of the connections; more than the machine has processors helps nobody.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(8)
}

/// The edge's process. While this holds its sockets, clients find an open port even when no edge runs.
pub(crate) struct EdgeProcess {
    client: EdgeClient,
    address: SocketAddr,
    command: EdgeCommand,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    sockets: Option<Sockets>,
    child: Option<Child>,
}

/// How the edge is started.
struct EdgeCommand {
    program: PathBuf,
    root: PathBuf,
}

impl EdgeCommand {
    fn spawn(&self, sockets: &Sockets) -> Result<Child, EdgeError> {
        let mut command = Command::new(&self.program);
        command.env_clear().arg("edge").arg("--root").arg(&self.root);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(super::complaints(&self.root, "edge"));
        kiln_edge::spawn(command, sockets)
    }
}

/// The name of the document that says where an edge that outlived its control plane listens.
const ADDRESS: &str = "edge-address";

impl EdgeProcess {
    /// Starts an edge on `listen`, or takes over the one that runs already.
    pub(crate) fn start(
        program: &std::path::Path,
        listen: SocketAddr,
        store: &Store,
    ) -> Result<Self, Failure> {
        let path = store.run_dir().join("edge.sock");
        let command = EdgeCommand { program: program.to_owned(), root: store.root().to_owned() };
        match Sockets::bind(listen, threads(), &path) {
            Ok(sockets) => {
                let address = kiln_edge::local(&sockets.listeners[0])
                    .map_err(|e| super::super::failure::system("find out where the edge listens", &e))?;
                store
                    .put_state(ADDRESS, &address.to_string())
                    .map_err(|e| super::super::failure::store(&e))?;
                let child = command.spawn(&sockets).map_err(failure)?;
                let client = EdgeClient::connect(&path).map_err(failure)?;
                let held = Mutex::new(Held { sockets: Some(sockets), child: Some(child) });
                Ok(Self { client, address, command, held })
            }
            Err(busy) => Self::take_over(&path, listen, store, command, busy),
        }
    }

    /// The edge that a control plane before this one started serves on, at the address it had.
    fn take_over(
        path: &std::path::Path,
        listen: SocketAddr,
        store: &Store,
        command: EdgeCommand,
        busy: EdgeError,
    ) -> Result<Self, Failure> {
        let recorded: Option<String> = store.state(ADDRESS).map_err(|e| super::super::failure::store(&e))?;
        let address: Option<SocketAddr> = recorded.and_then(|a| a.parse().ok());
        match (EdgeClient::connect(path), address) {
            (Ok(client), Some(address)) if listen.port() == 0 || listen == address => {
                Ok(Self { client, address, command, held: Mutex::default() })
            }
            (Ok(_), Some(address)) => {
                let message = format!("the edge of this host listens on {address}, not on {listen}");
                Err(Failure::new(ExitCode::Host, message)
                    .hint(format!("give --listen {address}, to take it over")))
            }
            _ => Err(failure(busy)),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn client(&self) -> EdgeClient {
        self.client.clone()
    }

    /// Starts another edge if this one is gone. Whether it did.
    pub(crate) fn revive(&self) -> Result<bool, Trouble> {
        let mut held = lock(&self.held);
        let gone = match &mut held.child {
            Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
            // Taken over from another control plane, or just ended.
            None => self.client.counts().is_err(),
        };
        if !gone {
            return Ok(false);
        }
        self.start_another(&mut held)?;
        Ok(true)
    }

    fn start_another(&self, held: &mut Held) -> Result<(), Trouble> {
        if held.sockets.is_none() {
            let path = self.command.root.join("run/edge.sock");
            let bound = Sockets::bind(self.address, threads(), &path).map_err(|e| Trouble::of(&e))?;
            held.sockets = Some(bound);
        }
        if let Some(sockets) = &held.sockets {
            held.child = Some(self.command.spawn(sockets).map_err(|e| Trouble::of(&e))?);
        }
        Ok(())
    }

    /// Ends this edge and starts another one on the same listening sockets.
    pub(crate) fn replace(&self) -> Result<(), Trouble> {
        let ended = self.client.shutdown(Duration::from_millis(200));
        let mut held = lock(&self.held);
        if let Some(mut child) = held.child.take() {
            if ended.is_err() {
                // It may be stuck; it is ours to end.
                let _ = child.kill();
            }
            let _ = child.wait();
            return self.start_another(&mut held);
        }
        // It is not ours, so that its end is seen only by its address becoming free.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match self.start_another(&mut held) {
                Err(_) if Instant::now() < deadline => std::thread::park_timeout(Duration::from_millis(10)),
                result => return result,
            }
        }
    }

    /// The same, but only if another control plane started it.
    pub(crate) fn replace_if_taken_over(&self) -> Result<(), Trouble> {
        if lock(&self.held).child.is_some() { Ok(()) } else { self.replace() }
    }

    /// Ends the edge; what is in flight may go on for a moment.
    pub(crate) fn end(&self) -> Result<(), Trouble> {
        const GRACE: Duration = Duration::from_secs(2);
        let ended = self.client.shutdown(GRACE);
        let mut held = lock(&self.held);
        held.sockets = None;
        if let Some(mut child) = held.child.take() {
            if ended.is_err() {
                // It may be stuck; it is ours to end.
                let _ = child.kill();
            }
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.command.root.join("run/edge.sock"));
        ended.map(drop).map_err(|e| Trouble::of(&e))
    }
}

fn failure(error: EdgeError) -> Failure {
    let failure = Failure::from_error(ExitCode::Host, &error);
    match error {
        EdgeError::AddressInUse { .. } => {
            failure.hint("choose another address with --listen, or end the program that has this one (`ss -ltnp` shows it)")
        }
        _ => failure,
    }
}

/// The edge as the core sees it.
#[derive(Clone)]
pub(crate) struct LiveEdge {
    pub(crate) client: EdgeClient,
    pub(crate) waker: Arc<Waker>,
    pub(crate) waiting: Arc<Mutex<BTreeSet<Vec<FleetId>>>>,
}

impl Edge for LiveEdge {
    fn set_table(&self, table: &RouteTable) -> Result<EdgeCounts, Trouble> {
        self.client.set_table(table).map_err(|e| Trouble::of(&e))
    }

    fn counts(&self) -> Result<EdgeCounts, Trouble> {
        self.client.counts().map_err(|e| Trouble::of(&e))
    }

    fn wake_when_drained(&self, fleets: &[FleetId]) {
        if !lock(&self.waiting).insert(fleets.to_vec()) {
            return;
        }
        let (edge, waited_for) = (self.clone(), fleets.to_vec());
        let wait = move || {
            // Drained, timed out or failed: in any case the core looks for itself.
            let _ = edge.client.wait_drained(&waited_for, Duration::from_secs(10));
            lock(&edge.waiting).remove(&waited_for);
            edge.waker.wake();
        };
        if std::thread::Builder::new().name("drain".into()).spawn(wait).is_err() {
            lock(&self.waiting).remove(fleets);
        }
    }
}
