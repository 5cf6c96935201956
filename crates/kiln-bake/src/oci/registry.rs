//! What a registry can do wrong.

use std::path::PathBuf;

use kiln_store::StoreError;

/// A registry that did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It does not answer.
    #[error("no answer to {asked}")]
    Unreachable {
        /// Method and address.
        asked: String,
        /// What happened, the last time.
        source: Box<ureq::Error>,
    },
    /// It does not have what it was asked for.
    #[error("the registry does not have it: {asked} was answered with 404")]
    NotFound {
        /// Method and address.
        asked: String,
    },
    /// It wants to know who is asking, or does not like who is.
    #[error("the registry refused {asked} with {status}, asked {as_whom}{said}")]
    Denied {
        /// Method and address.
        asked: String,
        /// The status.
        status: u16,
        /// With whose credentials.
        as_whom: String,
        /// What it said.
        said: String,
    },
    /// It was asked again as often as makes sense.
    #[error("the registry answered {asked} with {status}, {attempts} times{wait}{said}")]
    Busy {
        /// Method and address.
        asked: String,
        /// The last status.
        status: u16,
        /// How often it was asked.
        attempts: usize,
        /// How long it wants to be left alone, if that is too long.
        wait: String,
        /// What it said, the last time.
        said: String,
    },
    /// It answered something else than was asked.
    #[error("the registry answered {asked} with {status}{said}")]
    Status {
        /// Method and address.
        asked: String,
        /// The status.
        status: u16,
        /// What it said.
        said: String,
    },
    /// It ended the connection again and again.
    #[error(
        "{asked} was cut off at {found} of {expected} bytes, {attempts} times with little or nothing in between"
    )]
    Cut {
        /// Method and address.
        asked: String,
        /// What had arrived.
        found: u64,
        /// What was promised.
        expected: u64,
        /// How often it was tried.
        attempts: usize,
    },
    /// What it says contradicts itself.
    #[error("the registry contradicts itself in its answer to {asked}: {problem}")]
    Contradiction {
        /// Method and address.
        asked: String,
        /// How.
        problem: String,
    },
    /// How it wants to be told who is asking is not understood, or not safe.
    #[error("cannot identify to the registry for {asked}: {problem}")]
    Challenge {
        /// Method and address.
        asked: String,
        /// Why not.
        problem: String,
    },
    /// Credentials cannot be read.
    #[error("could not read credentials from {}: {problem}", path.display())]
    Credentials {
        /// Where they should be.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// What this machine says of registries cannot be read.
    #[error("could not read what is said of registries in {}: {problem}", path.display())]
    Settings {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// What arrived could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

impl RegistryError {
    /// The next step, if that can be said.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Denied { .. } | Self::Challenge { .. } => {
                "log in with `podman login` or `docker login` (Kiln reads the same files; REGISTRY_AUTH_FILE and \
                 DOCKER_CONFIG name others), as the user Kiln runs as"
            }
            Self::NotFound { .. } => {
                "check the registry, the repository and the tag; some answer so when a login is missing"
            }
            Self::Unreachable { asked, source }
                if source.to_string().contains("invalid peer certificate") =>
            {
                return Some(format!(
                    "if it has a certificate of an authority of your own, put the authority's certificate (PEM) at \
                     /etc/containers/certs.d/{}/ca.crt",
                    host(asked)
                ));
            }
            Self::Unreachable { asked, source } if source.to_string().contains("corrupt message") => {
                return Some(format!(
                    "it seems to speak without TLS; if that is meant to be so, write in \
                     /etc/containers/registries.conf:\n[[registry]]\nlocation = \"{}\"\ninsecure = true",
                    host(asked)
                ));
            }
            Self::Busy { .. } | Self::Unreachable { .. } => {
                "try again later; what is in the store already needs no registry"
            }
            Self::Cut { .. } => "try again: it goes on where this attempt ended",
            _ => return None,
        };
        Some(hint.into())
    }
}

/// The host in `METHOD https://HOST/…`.
fn host(asked: &str) -> &str {
    asked.split('/').nth(2).unwrap_or_default()
}
