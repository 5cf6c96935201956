//! What went wrong with a mount.

use std::io;
use std::path::Path;

/// A call of the mount API that did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("could not {attempted}{}", kernel.as_ref().map(|k| format!(" (the kernel says: {k})")).unwrap_or_default())]
pub struct MountError {
    attempted: String,
    kernel: Option<String>,
    source: io::Error,
}

impl MountError {
    /// The error number of the call that failed, if it was the kernel that refused.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    pub(crate) fn new(attempted: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { attempted: attempted.into(), kernel: None, source: source.into() }
    }

    /// The same, with the words the filesystem left for whoever configured it.
    pub(crate) fn with_kernel_words(mut self, words: Option<String>) -> Self {
        self.kernel = words;
        self
    }
}

/// `attempted` on `path`, as the context of an error.
pub(crate) fn on(attempted: &str, path: &Path) -> impl FnOnce(io::Error) -> MountError {
    let attempted = format!("{attempted} {}", path.display());
    move |source| MountError::new(attempted, source)
}
