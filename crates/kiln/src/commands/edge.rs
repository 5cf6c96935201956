//! `kiln edge`, which `kiln serve` and `kiln up` start.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use kiln_control::with_remedy;
use kiln_edge::{Confinement, Dial, EdgeConfig, EdgeSettings, Limits, Network, Sockets, Trust};
use kiln_engine::embedded::broker;
use kiln_engine::{Broker, EngineError};
use kiln_model::{ExitCode, Failure, InstanceId, NeedName};
use rustix::io::Errno;

use crate::context::Context;

/// The user and group the edge becomes: far from those of people, packages and instances, so that it owns nothing.
pub(crate) const USER: u32 = 0x0FFF_0080;

/// The data plane of a host; started by `kiln serve`, not by hand
#[derive(Debug, Args)]
pub(crate) struct Edge {
    /// Peers whose word is taken
    #[arg(long)]
    trust: Vec<Network>,
    /// They begin with a PROXY protocol header
    #[arg(long)]
    proxy_protocol: bool,
    /// A line for each request on stdout
    #[arg(long)]
    access_log: bool,
    /// What the one who starts it calls it
    #[arg(long, default_value = "")]
    identity: String,
}

pub(crate) fn run(args: &Edge, context: &Context) -> Result<(), Failure> {
    let failed = |e| with_remedy(Failure::from_error(ExitCode::Host, &e), &e);
    let broker = to_broker(&context.root(None).join("run"))?;
    let config = EdgeConfig {
        sockets: Sockets::inherited().map_err(failed)?,
        dial: Arc::new(ThroughKeeper(broker)),
        confinement: Some(Confinement { uid: USER, gid: USER }),
        limits: Limits::default(),
        settings: EdgeSettings {
            trust: Trust(args.trust.clone()),
            proxy_headers: args.proxy_protocol,
            access_log: args.access_log,
            identity: args.identity.clone(),
        },
    };
    kiln_edge::run(config).map_err(failed)
}

/// The way to the broker, which stays when the edge is another user that reaches neither the state directory nor any
/// file: by name from its working directory. So it finds the next keeper when this one is gone.
fn to_broker(run_dir: &Path) -> Result<broker::Client, Failure> {
    let failed = |e: &dyn std::error::Error| {
        Failure::from_error(ExitCode::Host, e).hint("the edge is started by `kiln serve`, after the keeper")
    };
    std::env::set_current_dir(run_dir).map_err(|e| failed(&e))?;
    let name = broker::socket_path(Path::new(""));
    broker::Client::connect(&name).map_err(|e| failed(&e))
}

/// Whether there is no keeper, or it is just ending.
fn is_away(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof)
}

/// The system's own error, if this process may have no more descriptors; else all that there is to say.
fn said(error: EngineError) -> io::Error {
    match &error {
        EngineError::Unreachable { source, .. } => match Errno::from_io_error(source) {
            Some(errno @ (Errno::MFILE | Errno::NFILE)) => errno.into(),
            _ => io::Error::other(error),
        },
        EngineError::NoSuchInstance(_) => io::Error::new(io::ErrorKind::NotFound, error),
        _ => io::Error::other(error),
    }
}

/// Sockets into instances, from whatever keeper there is.
struct ThroughKeeper(broker::Client);

impl Dial for ThroughKeeper {
    fn sockets(&self, instance: &InstanceId, count: u32) -> io::Result<Vec<OwnedFd>> {
        self.0.sockets(instance, count).map_err(|error| match error {
            EngineError::Unreachable { ref source, .. } if is_away(source) => {
                io::Error::new(io::ErrorKind::NotConnected, error)
            }
            error => said(error),
        })
    }

    fn listeners(&self, instance: &InstanceId) -> io::Result<Vec<(NeedName, OwnedFd)>> {
        self.0.listeners(instance).map_err(said)
    }

    fn store(&self, instance: &InstanceId, need: &NeedName) -> io::Result<OwnedFd> {
        self.0.store(instance, need).map_err(said)
    }
}
