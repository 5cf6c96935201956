//! `kiln edge`, which `kiln serve` and `kiln up` start.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use clap::Args;
use kiln_edge::{Confinement, Dial, EdgeConfig, EdgeSettings, Limits, Network, Sockets, Trust};
use kiln_engine::embedded::broker;
use kiln_model::{ExitCode, Failure, InstanceId};

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
    let failed = |e| Failure::from_error(ExitCode::Host, &e);
    // Made now: once confined, the edge reaches no path any more.
    let broker =
        broker::Client::connect(&broker::socket_path(&context.root(None).join("run"))).map_err(|e| {
            Failure::from_error(ExitCode::Host, &e)
                .hint("the edge is started by `kiln serve`, after the keeper")
        })?;
    let config = EdgeConfig {
        sockets: Sockets::inherited().map_err(failed)?,
        dial: Arc::new(ThroughKeeper(broker)),
        confinement: Some(Confinement { uid: USER, gid: USER }),
        limits: Limits::default(),
        settings: EdgeSettings {
            trust: Trust(args.trust.clone()),
            proxy_headers: args.proxy_protocol,
            identity: args.identity.clone(),
        },
    };
    kiln_edge::run(config).map_err(failed)
}

/// Sockets into instances, from the keeper this edge was started beside. When that one dies its instances die with
/// it, and control starts another of both.
struct ThroughKeeper(broker::Client);

impl Dial for ThroughKeeper {
    fn sockets(&self, instance: &InstanceId, count: u32) -> io::Result<Vec<OwnedFd>> {
        self.0.sockets(instance, count).map_err(io::Error::other)
    }
}
