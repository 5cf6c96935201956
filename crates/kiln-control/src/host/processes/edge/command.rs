//! How an edge is started, and how it is known which one would be.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use kiln_edge::{Door, EdgeError, Network, Sockets};
use kiln_model::ByteSize;

use super::super::program::Program;
use crate::host::HostConfig;

/// What the operator decides about the edge of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EdgeOptions {
    /// Where HTTPS is served, if it is.
    pub listen_tls: Option<SocketAddr>,
    /// Peers whose word is taken about where a request came from.
    pub trust: Vec<Network>,
    /// Whether connections from these begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Where figures for Prometheus are served, if they are.
    pub metrics: Option<SocketAddr>,
    /// Whether each request leaves a line in the access log, and how large that becomes before another is begun.
    pub access_log: Option<ByteSize>,
}

/// How the edge is started.
pub(super) struct EdgeCommand {
    program: Program,
    root: PathBuf,
    options: Vec<String>,
    doors: Vec<(Door, SocketAddr, usize)>,
}

impl EdgeCommand {
    pub(super) fn new(config: &HostConfig, root: &Path) -> Self {
        let (mut options, mut doors) = (Vec::new(), Vec::new());
        if let Some(edge) = &config.edge {
            doors.extend(edge.listen_tls.map(|at| (Door::Https, at, super::threads())));
            doors.extend(edge.metrics.map(|at| (Door::Metrics, at, 1)));
            for network in &edge.trust {
                options.extend(["--trust".to_owned(), network.to_string()]);
            }
            if edge.proxy_protocol {
                options.push("--proxy-protocol".to_owned());
            }
            if edge.access_log.is_some() {
                options.push("--access-log".to_owned());
            }
        }
        Self { program: Program::at(&config.program), root: root.to_owned(), options, doors }
    }

    /// Whether the word of anybody is taken.
    pub(super) fn trusts(&self) -> bool {
        self.options.iter().any(|option| option == "--trust")
    }

    /// Where it listens beside HTTP, and with how many threads.
    pub(super) fn doors(&self) -> impl Iterator<Item = (Door, SocketAddr, usize)> + use<> {
        self.doors.clone().into_iter()
    }

    /// What would be started now: this program, as it is on the disk at the moment, with these options.
    pub(super) fn identity(&self) -> String {
        let program = match std::fs::metadata(self.program.path()) {
            Ok(file) => format!("{}-{}-{}-{}", file.dev(), file.ino(), file.mtime_nsec(), file.size()),
            Err(_) => "gone".to_owned(),
        };
        format!("{program} {}", self.options.join(" "))
    }

    pub(super) fn spawn(&self, sockets: &Sockets) -> Result<Child, EdgeError> {
        let mut command = self.program.command();
        command.env_clear().arg("edge").arg("--root").arg(&self.root).args(&self.options);
        command.arg("--identity").arg(self.identity());
        command.stdin(Stdio::null()).stdout(self.log()).stderr(super::super::complaints(&self.root, "edge"));
        kiln_edge::spawn(command, sockets)
    }

    /// Where the access log goes: the edge itself may open no file.
    fn log(&self) -> Stdio {
        if self.options.iter().any(|option| option == "--access-log") {
            super::super::complaints(&self.root, "access")
        } else {
            Stdio::null()
        }
    }
}
