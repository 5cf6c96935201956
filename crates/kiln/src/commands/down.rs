//! `kiln down`

use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;
use kiln_api::{Client, this_process};
use kiln_control::contract::{Host, Unheard};
use kiln_control::{HostConfig, LocalHost};
use kiln_model::{Answer, Command, ExitCode, Failure};
use serde_json::json;

use crate::context::{Context, require_root, unexpected};
use crate::output;
use crate::progress::reporter;

/// Stop everything a host runs, and the host; images, releases and the log stay
///
/// What is under way is given up, and an edge that does not answer is ended.
#[derive(Debug, Args)]
pub(crate) struct Down {}

pub(crate) fn run(_: &Down, context: &Context) -> Result<(), Failure> {
    let unrecorded = match context.client() {
        Ok(client) => by_control(context, &client)?,
        Err(unreachable) => without_control(context, unreachable)?,
    };
    output::warn(unrecorded.iter().map(warning).collect::<Vec<_>>().as_slice());
    let told = json!({"down": true, "recorded": unrecorded.is_none()});
    context.output.result(&told, || "everything is stopped".into())
}

/// What it means that the log does not tell of it, for this reason.
pub(super) fn warning(why: &Failure) -> String {
    format!(
        "the operation log says nothing of this ({}): the next control plane that can start brings up again what \
         served; `kiln serve` says what it takes for that",
        why.message
    )
}

/// Why it is not in the log, if so.
fn by_control(context: &Context, client: &Client) -> Result<Option<Failure>, Failure> {
    let mut reporter = reporter(context.output);
    let answer = client.run(&Command::Down, &mut |stamped| reporter.event(&stamped));
    reporter.end();
    is_done(answer?)
}

fn is_done(answer: Answer) -> Result<Option<Failure>, Failure> {
    match answer {
        Answer::Done => Ok(None),
        Answer::Unrecorded(why) => Ok(Some(why)),
        other => Err(unexpected(&other)),
    }
}

/// Where a control plane died and left keeper or edge behind, one is made for as long as it takes to end them. Where
/// there cannot be one, for the log cannot be read say, they are ended all the same: nothing may be left that no command
/// of Kiln can end. Why it is not in the log, if so.
fn without_control(context: &Context, unreachable: Failure) -> Result<Option<Failure>, Failure> {
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
    let config = HostConfig { root, listen, edge: None, acme: None, program };
    match LocalHost::start(config.clone()) {
        Ok(host) => is_done(host.run(Command::Down, this_process(), &Unheard)?),
        // What keeps both from it is told once.
        Err(why) => LocalHost::end_without_history(&config).map(|()| Some(why.clone())).map_err(|_| why),
    }
}
