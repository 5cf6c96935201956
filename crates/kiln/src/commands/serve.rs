//! `kiln serve`

use std::net::SocketAddr;

use clap::Args;
use kiln_model::Failure;

use super::status;
use crate::context::{Context, require_root};
use crate::foreground::Already;
use crate::live::Live;
use crate::local::Local;
use crate::{output, progress};

const EXAMPLES: &str = "\
Examples:
  kiln serve                         with the state in /var/lib/kiln
  kiln serve --listen 0.0.0.0:80     for the world
  kiln deploy DIR                    has it run an app, from another terminal
  kiln down                          ends it with all that runs in it";

/// The host daemon: control plane, API on a Unix socket, keeper and edge as its own processes
///
/// Ctrl-C and SIGTERM end only the control plane: instances run on and the edge serves on, and the next `kiln serve`
/// on the same state takes them over. `kiln down` ends everything.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// Where the apps are reached
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

pub(crate) fn run(args: &Serve, context: &Context) -> Result<(), Failure> {
    require_root("kiln serve")?;
    let reporter = progress::reporter(context.output);
    let mut local = Local::start(context, context.root(None), args.listen, reporter)?;
    let (address, socket) = (local.host.address(), local.host.socket());
    let ready = serde_json::json!({"address": address, "socket": socket});
    context
        .output
        .result(&ready, || format!("serving at {address}, taking commands on {}", socket.display()))?;
    // A daemon's stdout is no place for a picture: `kiln status --watch` draws one wherever it is wanted.
    let already =
        local.foreground.watch(Live::plain(Box::new(std::io::sink())), status::picture(context.output));
    local.leave();
    output::aside(match already {
        Already::Down => "everything is down",
        Already::Serving => "the host leaves; what runs in it serves on (`kiln serve` takes over again)",
    });
    Ok(())
}
