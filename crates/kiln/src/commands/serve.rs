//! `kiln serve`

use clap::Args;
use kiln_model::Failure;

use crate::args::EdgeArgs;
use crate::context::{Context, require_root};
use crate::foreground::Already;
use crate::local::Local;
use crate::{output, progress};

const EXAMPLES: &str = "\
Examples:
  kiln serve                         with the state in /var/lib/kiln
  kiln serve --listen 0.0.0.0:80 --listen-tls 0.0.0.0:443
                                     for the world; certificates are named in each app's kiln.toml
  kiln deploy DIR                    has it run an app, from another terminal
  kiln down                          ends it with all that runs in it";

/// The host daemon: control plane, API on a Unix socket, keeper and edge as its own processes
///
/// Ctrl-C and SIGTERM end only the control plane: instances run on and the edge serves on, and the next `kiln serve`
/// on the same state takes them over. `kiln down` ends everything.
///
/// SIGUSR2 replaces the edge by the program as it is on the disk then, and so does a `kiln serve` that is newer than
/// the edge it finds: the listening sockets are handed over, and who is connected stays until done.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    #[command(flatten)]
    edge: EdgeArgs,
}

pub(crate) fn run(args: &Serve, context: &Context) -> Result<(), Failure> {
    require_root("kiln serve")?;
    let reporter = progress::reporter(context.output);
    let mut local = Local::start(context, context.root(None), &args.edge, reporter)?;
    let (address, socket) = (local.host.address(), local.host.socket());
    let https = local.host.https_address();
    let ready = serde_json::json!({"address": address, "https_address": https, "socket": socket});
    context
        .output
        .result(&ready, || format!("serving at {address}, taking commands on {}", socket.display()))?;
    // A daemon's stdout is no place for a picture: `kiln status --watch` draws one wherever it is wanted.
    let already = local.foreground.wait();
    local.leave();
    output::aside(match already {
        Already::Down => "everything is down",
        Already::Serving => "the host leaves; what runs in it serves on (`kiln serve` takes over again)",
    });
    Ok(())
}
