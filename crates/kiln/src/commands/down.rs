//! `kiln down`

use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;
use kiln_api::this_process;
use kiln_control::contract::{Host, Unheard};
use kiln_control::{HostConfig, LocalHost};
use kiln_model::{Answer, Command, ExitCode, Failure};
use serde_json::json;

use crate::context::{Context, require_root, unexpected};
use crate::progress::reporter;

/// Stop everything a host runs, and the host; images, releases and the log stay
#[derive(Debug, Args)]
pub(crate) struct Down {}

pub(crate) fn run(_: &Down, context: &Context) -> Result<(), Failure> {
    let answer = match context.client() {
        Ok(client) => {
            let mut reporter = reporter(context.output);
            let answer = client.run(&Command::Down, &mut |stamped| reporter.event(&stamped));
            reporter.end();
            answer
        }
        Err(unreachable) => without_control(context, unreachable),
    };
    match answer? {
        Answer::Done => context.output.result(&json!({"down": true}), || "everything is stopped".into()),
        other => Err(unexpected(&other)),
    }
}

/// Where a control plane died and left keeper or edge behind, one is made for as long as it takes to end them.
fn without_control(context: &Context, unreachable: Failure) -> Result<Answer, Failure> {
    let root = context.named_root();
    let left_behind =
        ["keeper.sock", "edge.sock"].iter().any(|socket| root.join("run").join(socket).exists());
    if !left_behind {
        return Err(unreachable);
    }
    require_root("kiln down")?;
    let program = std::env::current_exe()
        .map_err(|e| Failure::new(ExitCode::Host, "could not find this program").because(e.to_string()))?;
    // Port 0: wherever the edge that is left listens.
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    LocalHost::start(HostConfig { root, listen, edge: None, acme: None, program })?.run(
        Command::Down,
        this_process(),
        &Unheard,
    )
}
