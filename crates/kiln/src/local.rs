//! A host of our own: started, given a door, entered among the hosts of this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_api::{Registered, Registration, Server, this_process};
use kiln_control::{HostConfig, LocalHost, refused_by_system, with_remedy};
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
        let program = std::env::current_exe().map_err(|e| refused_by_system("find this program", &e))?;
        let host = Arc::new(LocalHost::start(HostConfig {
            root,
            listen: edge.listen,
            edge: Some(edge.options()),
            acme: edge.acme(),
            program,
        })?);
        // What is of no use without a door does not stay.
        Self::open(context, host.clone(), reporter, mailbox).inspect_err(|_| host.withdraw())
    }

    /// Opens the door of a host.
    fn open(
        context: &Context,
        host: Arc<LocalHost>,
        reporter: Box<dyn Reporter>,
        mailbox: Mailbox,
    ) -> Result<Self, Failure> {
        // It waits for signals as long as this process lives, and keeps nothing from being cleaned up before.
        let renewed = Arc::downgrade(&host);
        signals::on_renewal(move || match renewed.upgrade().map(|host| host.renew_edge()) {
            Some(Ok(())) => output::aside("the edge has a successor"),
            Some(Err(failure)) => failure::tell(&failure),
            None => {}
        })?;
        let foreground = Foreground::new(host.clone(), this_process(), reporter, mailbox);
        let server = Server::start(&host.socket(), foreground.behind_the_door())
            .map_err(|e| with_remedy(Failure::from_error(ExitCode::Host, &e), &e))?;
        let registered = context.registry.register(&registration(&host));
        let _registered =
            registered.map_err(|e| refused_by_system("enter the host among those of this machine", &e))?;
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
