//! What a command works with: the arguments that all have in common, made meaningful once.

use std::cell::Cell;
use std::env;
use std::path::PathBuf;

use kiln_api::{Client, Registry};
use kiln_model::{Answer, Command, Event, ExitCode, Failure};
use kiln_store::Store;

use crate::args::Global;
use crate::output::{self, Output};

/// Where a host keeps its state unless said otherwise.
const ROOT: &str = "/var/lib/kiln";

pub(crate) struct Context {
    pub(crate) output: Output,
    /// The running hosts of this machine.
    pub(crate) registry: Registry,
    /// Whether a program has been told of the failure in the course of a stream.
    pub(crate) told: Cell<bool>,
    host: Option<String>,
    root: Option<PathBuf>,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        let directory = env::var_os("KILN_RUN_DIR").map(|run| PathBuf::from(run).join("hosts"));
        Self {
            output: Output { json: global.json, quiet: global.quiet },
            registry: Registry::new(directory.unwrap_or_else(|| Registry::DIRECTORY.into())),
            told: Cell::new(false),
            host: global.host.or_else(|| env::var("KILN_HOST").ok()).filter(|host| !host.is_empty()),
            root: global.root.or_else(|| env::var_os("KILN_ROOT").map(PathBuf::from)),
        }
    }

    /// The state directory: the one that was named, else `default`, else the machine's.
    pub(crate) fn root(&self, default: Option<PathBuf>) -> PathBuf {
        self.root.clone().or(default).unwrap_or_else(|| ROOT.into())
    }

    /// The state directory a host is meant by, if it was named by one.
    pub(crate) fn named_root(&self) -> PathBuf {
        let host = self.host.as_ref().map(PathBuf::from).filter(|path| path.is_dir());
        self.root(host)
    }

    /// Whether a state directory was named, and not only the machine's is meant.
    pub(crate) fn names_a_root(&self) -> bool {
        self.root.is_some() || self.host.as_ref().is_some_and(|host| PathBuf::from(host).is_dir())
    }

    /// The state directory that is meant where no host runs on it; none if a host was named by something else, or
    /// there are several.
    pub(crate) fn root_without_host(&self) -> Option<PathBuf> {
        let by_directory = self.host.as_ref().is_some_and(|host| PathBuf::from(host).is_dir());
        match (&self.host, &self.root) {
            (Some(_), _) if !by_directory => None,
            (None, None) if !self.registry.list().is_empty() => None,
            _ => Some(self.named_root()),
        }
    }

    /// The store that is meant by a command that needs no host: that of the host that is meant, if one is named or runs
    /// here.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        let root = match self.root_without_host() {
            Some(root) => root,
            None => self.root_of_host()?,
        };
        crate::offline::store(&root)
    }

    fn root_of_host(&self) -> Result<PathBuf, Failure> {
        let socket = self.registry.find(self.host.as_deref())?;
        let host = self.registry.list().into_iter().find(|host| host.socket == socket);
        host.map(|host| host.root).ok_or_else(|| {
            let what = format!("the state directory of the host at {} is not known", socket.display());
            Failure::new(ExitCode::Host, what).hint("name it with `--root`")
        })
    }

    /// The host that is meant.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        // A state directory names the host that runs on it just as well.
        let root = self.root.as_ref().map(|root| root.display().to_string());
        Client::connect(&self.registry.find(self.host.as_deref().or(root.as_deref()))?)
    }

    /// Asks the host a question that is answered at once.
    pub(crate) fn ask(&self, command: &Command) -> Result<Answer, Failure> {
        self.client()?.run(command, &mut |stamped| {
            if let Event::Warned { warning } = stamped.event {
                output::warn(&[warning]);
            }
        })
    }
}

/// A host that answers another question than it was asked has another version or a bug.
pub(crate) fn unexpected(answer: &Answer) -> Failure {
    let text = serde_json::to_string(answer).unwrap_or_default();
    Failure::new(ExitCode::Bug, "the host answered something else than it was asked")
        .because(text)
        .hint("is the host of another version than this command? `kiln --version` tells this one's")
}

/// Refuses to go on without root.
pub(crate) fn require_root(what: &str) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(ExitCode::Host, format!("`{what}` must run as root"))
        .because("images are mounted, and instances get namespaces, cgroups and users of their own")
        .hint(format!("run `sudo {what}`")))
}
