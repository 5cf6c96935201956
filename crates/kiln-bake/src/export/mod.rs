//! Images for the world outside: as an OCI image, as one tar archive, as a file system that needs nothing else.
//!
//! | module | does |
//! |---|---|
//! | `stored` | an image of the store, read back |
//! | `tarball` | trees as tar archives, the same tree as the same bytes |
//! | `cut` | which layer a path goes into |
//! | `oci` | layers, configuration, manifest; a layout as a directory or archive |
//! | `whole` | an EROFS file system with all contents |
//! | `push` | the same into a registry |

mod cut;
mod oci;
mod push;
mod stored;
mod tarball;
mod whole;

use std::io;
use std::path::PathBuf;

use kiln_model::{ExitCode, Failure, ImageDigest, TreeError};
use kiln_store::{StoreError, has_no_space};

use crate::erofs::BadImage;
use crate::oci::RegistryError;

pub use oci::{OciForm, Pushed, to_oci};
pub use push::push;
pub use stored::Stored;
pub use tarball::to_tar;
pub use whole::to_erofs;

/// An image that could not be handed on. Nothing half-done is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The image cannot be read back.
    #[error("image {} cannot be read", digest.short())]
    Image {
        /// Which.
        digest: ImageDigest,
        /// Why not.
        source: BadImage,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is something where it should go.
    #[error("{} is there already", .0.display())]
    There(PathBuf),
    /// It could not be written.
    #[error("could not write {}", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A path of it would say in a layer that something is gone.
    #[error(
        "the image holds {0}: in an OCI layer a name that begins with `.wh.` says that something is gone"
    )]
    SaysGone(String),
    /// Its tree makes no file system with contents.
    #[error("the image makes no file system of its own")]
    Tree(#[from] TreeError),
    /// A registry did not do as it was asked.
    #[error(transparent)]
    Registry(RegistryError),
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

impl ExportError {
    /// The next step, if that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::SaysGone(_) => Some(
                "leave it out of the image, or export that with --tar or --erofs, which hold every name"
                    .into(),
            ),
            Self::There(_) => Some("name another place, or remove it first".into()),
            Self::Registry(error) => error.hint(),
            Self::Store(StoreError::Damaged { .. }) => Some(
                "`kiln verify --repair` removes what is damaged, and the next `kiln bake` makes it again"
                    .into(),
            ),
            Self::Write { source, .. } if has_no_space(source) => {
                Some("free space on that disk, or name a place on another one".into())
            }
            other => has_no_space(other).then(|| StoreError::ON_NO_SPACE.into()),
        }
    }

    /// Refuses a place where something is, before any work is done for it.
    pub(crate) fn if_there(path: &std::path::Path) -> Result<(), Self> {
        if path.symlink_metadata().is_ok() { Err(Self::There(path.into())) } else { Ok(()) }
    }

    pub(crate) fn write(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let code = match &error {
            ExportError::Store(_) | ExportError::Write { .. } => ExitCode::Host,
            ExportError::There(_) => ExitCode::Usage,
            ExportError::Image { .. }
            | ExportError::Registry(_)
            | ExportError::SaysGone(_)
            | ExportError::Tree(_)
            | ExportError::Cancelled => ExitCode::Bake,
        };
        let failure = Self::from_error(code, &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<RegistryError> for ExportError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Cancelled => Self::Cancelled,
            error => Self::Registry(error),
        }
    }
}
