//! What went wrong in the state directory.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::{AppName, ImageDigest, ReleaseId, SecretName, SecretVersion, Sha256};

/// An operation of the store that did not happen. What was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("could not {attempted} {}", path.display())]
    Io {
        /// What was attempted, as the words before a path.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The disk, or a quota on it, is full.
    #[error("no space left to {attempted} {}", path.display())]
    NoSpace {
        /// What was attempted, as the words before a path.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The directory has the layout of a newer Kiln.
    #[error("{} has layout {found} and this Kiln knows layouts up to {known}: run a newer Kiln", root.display())]
    Newer {
        /// The state directory.
        root: PathBuf,
        /// The layout it has.
        found: u32,
        /// The newest layout this code reads.
        known: u32,
    },
    /// The directory holds something that is not Kiln's.
    #[error("{} is not a state directory of Kiln: {problem}", root.display())]
    Foreign {
        /// The directory.
        root: PathBuf,
        /// How that shows.
        problem: String,
    },
    /// A file is not what it was when it was written.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Bytes handed in are not those that were announced.
    #[error("the {what} handed to the store has sha256 {found} instead of {expected}")]
    WrongHash {
        /// What they are.
        what: &'static str,
        /// The announced hash.
        expected: Sha256,
        /// The hash they have.
        found: Sha256,
    },
    /// There is no such image.
    #[error("there is no image {0} in the store")]
    NoSuchImage(ImageDigest),
    /// The image is of a format this code does not know.
    #[error("image {image} has {unknown}: run a newer Kiln")]
    NewerImage {
        /// The image.
        image: ImageDigest,
        /// What of it is unknown.
        unknown: String,
    },
    /// There is no such release.
    #[error("there is no release {0} in the store")]
    NoSuchRelease(ReleaseId),
    /// Something is being baked or deployed, and nothing can be swept.
    #[error("something is being baked, deployed, rolled back or exported on this state directory")]
    InUse,
    /// There is no such secret, or not in this version.
    #[error("app {app} has no secret {name}{}", version.as_ref().map(|v| format!(" in version {v}")).unwrap_or_default())]
    NoSuchSecret {
        /// The app.
        app: AppName,
        /// The secret.
        name: SecretName,
        /// The version, if one was meant.
        version: Option<SecretVersion>,
    },
    /// A secret that kept releases need cannot be removed.
    #[error("secret {name} of app {app} is needed by {}", list(releases))]
    SecretInUse {
        /// The app.
        app: AppName,
        /// The secret.
        name: SecretName,
        /// The releases.
        releases: BTreeSet<ReleaseId>,
    },
    /// The key that secrets are sealed with is gone.
    #[error("secrets cannot be opened: their key {} is missing, and nothing else opens them", path.display())]
    NoKey {
        /// Where it was.
        path: PathBuf,
    },
    /// The key that secrets are sealed with cannot be used.
    #[error("secrets cannot be opened: {}: {problem}", path.display())]
    Key {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file to be imported is something else.
    #[error("{} is no export of a release", path.display())]
    NoExport {
        /// The file.
        path: PathBuf,
    },
    /// An export holds secrets, and nobody said what is to be done with them.
    #[error("{} holds secrets, encrypted to a recipient", path.display())]
    SealedSecrets {
        /// The export.
        path: PathBuf,
    },
    /// The secrets of an export cannot be opened with what was given.
    #[error("the secrets in {} cannot be opened", path.display())]
    CannotOpen {
        /// The export.
        path: PathBuf,
        /// Why.
        source: crate::age::AgeError,
    },
    /// Something cannot be encrypted to a recipient.
    #[error("could not encrypt secrets to a recipient")]
    CannotSeal(#[source] crate::age::AgeError),
    /// Another process runs a host on this directory.
    #[error("another process{} runs a Kiln host on {}", pid.map(|p| format!(" (pid {p})")).unwrap_or_default(),
            root.display())]
    Locked {
        /// The state directory.
        root: PathBuf,
        /// That process, if it has said so yet.
        pid: Option<u32>,
    },
    /// A name that cannot be that of a file here.
    #[error(
        "`{0}` cannot name a document of the store: use 1 to 100 of a-z, A-Z, 0-9, `.`, `-`, `_`, no `.` first"
    )]
    BadName(String),
    /// A value that JSON cannot hold.
    #[error("could not encode what should be written to {}", path.display())]
    Encode {
        /// The file it was meant for.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
}

impl StoreError {
    /// What is to be done about a full disk, whoever met it.
    pub const ON_NO_SPACE: &str = "free space on the disk of the state directory (`kiln gc` removes what no release needs), or \
                                   name a directory on another disk with --root, then try again; nothing was lost";

    /// Whether more space would help.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.into() }
    }
}

/// Whether a disk or a quota that is full is behind `error`, however deep.
pub fn has_no_space(error: &(dyn Error + 'static)) -> bool {
    let is_full = |error: &(dyn Error + 'static)| {
        let full = error.downcast_ref::<io::Error>().is_some_and(|e| is_no_space(e.kind()));
        full || error.downcast_ref::<StoreError>().is_some_and(StoreError::is_no_space)
    };
    let mut next = Some(error);
    while let Some(error) = next {
        if is_full(error) {
            return true;
        }
        next = error.source();
    }
    false
}

fn is_no_space(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What is attempted where the bytes for a file come from somebody else: what fails is not the store's.
pub(crate) const READ_GIVEN: &str = "read what should be written to";

/// `attempted` on `path`, as the context of an error of the system.
pub(crate) fn on(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| match is_no_space(source.kind()) {
        true => StoreError::NoSpace { attempted, path, source },
        false => StoreError::Io { attempted, path, source },
    }
}

/// Reads of what may be absent: `None` if it is.
pub(crate) fn if_present<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn list(releases: &BTreeSet<ReleaseId>) -> String {
    releases.iter().map(ReleaseId::as_str).collect::<Vec<_>>().join(", ")
}
