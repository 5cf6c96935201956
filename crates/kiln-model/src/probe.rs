//! Probes of instances, for health and for checks of images.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Millis, Sha256};

/// An HTTP request and what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpProbe {
    /// The path asked for, starting with `/`.
    pub path: String,
    /// The status the answer must have; any 2xx or 3xx if absent.
    pub status: Option<u16>,
    /// Text the body must contain, if any.
    pub contains: Option<String>,
}

/// A question asked of a running instance from outside its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// An HTTP request on the service's port.
    Http(HttpProbe),
    /// A TCP connection to the service's port is accepted.
    Tcp,
    /// This command, run inside the instance beside its main process, exits with 0.
    Exec {
        /// Program and arguments; a program without a slash is looked for on the PATH.
        argv: Vec<String>,
    },
}

/// One post-creation validation of an image; all but `File` and `Package` run in a throwaway instance of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The command, run in place of the main process, exits with 0.
    Run {
        /// Program and arguments.
        argv: Vec<String>,
        /// How long it may take.
        timeout: Millis,
    },
    /// The main process answers this request.
    Http {
        /// The request and what its answer must be.
        probe: HttpProbe,
        /// The port asked.
        port: u16,
        /// How long until it must have answered as expected.
        timeout: Millis,
    },
    /// The main process accepts TCP connections.
    Port {
        /// The port asked.
        port: u16,
        /// How long until it must accept.
        timeout: Millis,
    },
    /// A path exists in the image.
    File {
        /// Absolute path.
        path: String,
        /// Permission bits it must have, if any, e.g. 0o644.
        mode: Option<u32>,
        /// Name of the user that must own it, if any.
        owner: Option<String>,
        /// Text it must contain, if any.
        contains: Option<String>,
    },
    /// A package is in the image.
    Package {
        /// Its name.
        name: String,
        /// Its version or a prefix of it followed by `*`, if any.
        version: Option<String>,
    },
}

impl Check {
    /// Every kind of check, as specs call them.
    pub const KINDS: [&'static str; 5] = ["run", "http", "port", "file", "package"];

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run",
            Self::Http { .. } => "http",
            Self::Port { .. } => "port",
            Self::File { .. } => "file",
            Self::Package { .. } => "package",
        }
    }

    /// What its result is kept under: the sha256 of all of it.
    pub fn key(&self) -> Sha256 {
        Sha256::of(&serde_json::to_vec(self).expect("a check is plain data"))
    }
}

/// In a few words.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run { argv, .. } => write!(f, "run {}", argv.join(" ")),
            Self::Http { probe, .. } => write!(f, "http {}", probe.path),
            Self::Port { port, .. } => write!(f, "port {port}"),
            Self::File { path, .. } => write!(f, "file {path}"),
            Self::Package { name, .. } => write!(f, "package {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_in_words() {
        let run = Check::Run { argv: vec!["/usr/sbin/nginx".into(), "-t".into()], timeout: Millis(1) };
        assert_eq!(run.to_string(), "run /usr/sbin/nginx -t");
        assert_eq!(Check::Package { name: "nginx".into(), version: None }.to_string(), "package nginx");
    }
}
