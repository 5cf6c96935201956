//! Probes of instances, for health and for checks of images.

use serde::{Deserialize, Serialize};

use crate::Millis;

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
