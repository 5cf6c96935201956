//! A host of our own: started, given a door, entered among the hosts of this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_api::{Registered, Registration, Server, this_process};
use kiln_control::{HostConfig, LocalHost};
use kiln_model::{ExitCode, Failure, Timestamp};

use crate::args::EdgeArgs;
use crate::context::Context;
use crate::foreground::{Foreground, Happening, Mailbox};
use crate::progress::Reporter;
use crate::{failure, output, signals};

/// A host that runs in this process.
pub(crate) struct Local {
    pub(crate) host: Arc<LocalHost>,
    pub(crate) foreground: Foreground,
    server: Server,
    _registered: Registered,
}

impl Local {
    /// Starts a host whose state is in `root` and whose edge does what `edge` says. Ctrl-C is heard from the beginning.
    pub(crate) fn start(
        context: &Context,
        root: PathBuf,
        edge: &EdgeArgs,
        reporter: Box<dyn Reporter>,
    ) -> Result<Self, Failure> {
        let mailbox = Mailbox::new();
        let post = mailbox.post.clone();
        signals::watch(move || drop(post.send(Happening::Interrupted)))?;
        let program = std::env::current_exe().map_err(|e| unable("find this program", &e))?;
        let host = Arc::new(LocalHost::start(HostConfig {
            root,
            listen: edge.listen,
            edge: Some(edge.options()),
            acme: edge.acme(),
            program,
        })?);
        let renewed = host.clone();
        signals::on_renewal(move || match renewed.renew_edge() {
            Ok(()) => output::aside("the edge has a successor"),
            Err(failure) => failure::tell(&failure),
        })?;
        let foreground = Foreground::new(host.clone(), this_process(), reporter, mailbox);
        let server = Server::start(&host.socket(), foreground.behind_the_door())
            .map_err(|e| Failure::from_error(ExitCode::Host, &e))?;
        let registered = context.registry.register(&registration(&host));
        let _registered = registered.map_err(|e| unable("enter the host among those of this machine", &e))?;
        Ok(Self { host, foreground, server, _registered })
    }

    /// Closes the door, and leaves everything that runs as it is.
    pub(crate) fn leave(self) {
        self.host.leave();
        self.server.stop();
    }
}

fn registration(host: &LocalHost) -> Registration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Registration {
        pid: std::process::id(),
        root: host.root().to_owned(),
        socket: host.socket(),
        listen: host.address().trim_start_matches("http://").to_owned(),
        started: Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn unable(attempted: &str, error: &std::io::Error) -> Failure {
    Failure::new(ExitCode::Host, format!("could not {attempted}")).because(error.to_string())
}
