//! Why there is no instance.

use std::error::Error;
use std::io;

use kiln_mount::MountError;

/// A launch that failed before, in or after its child.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// A call to the system failed.
    #[error("could not {attempted}")]
    System { attempted: String, source: io::Error },
    /// The image could not be mounted.
    #[error(transparent)]
    Mount(MountError),
    /// The order cannot be carried out as it is written.
    #[error("{0}")]
    Order(String),
}

impl LaunchError {
    pub(crate) fn new(attempted: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { attempted: attempted.into(), source: source.into() }
    }

    pub(super) fn mount(source: MountError) -> Self {
        Self::Mount(source)
    }

    /// The message with all its causes, and the next step: what a person reads who has nothing but the instance's
    /// status.
    pub(crate) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        match crate::remedy(self) {
            Some(remedy) => format!("{text}; {remedy}"),
            None => text,
        }
    }
}
