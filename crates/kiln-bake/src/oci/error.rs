//! What keeps an OCI image from being used.

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::{ImageName, Sha256, TreeError};
use kiln_store::StoreError;

use super::document::BadDocument;
use super::layer::LayerError;
use super::registry::RegistryError;

/// An OCI image that cannot be used, or cannot be handed on.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// There is nothing where it should be.
    #[error("there is no OCI image at {}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// As the spec has it.
        reference: String,
    },
    /// A file of it cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A layout or archive is not made as one is.
    #[error("{} is no OCI image: {problem}", path.display())]
    Shape {
        /// The layout or archive.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A layout or archive holds no image of that name, or several.
    #[error("{} holds {problem}", path.display())]
    NotNamed {
        /// The layout or archive.
        path: PathBuf,
        /// Which it holds.
        problem: String,
    },
    /// What is there is not what was locked.
    #[error(
        "`{reference}` is another image than the one that was locked: its manifest is sha256:{found}, not sha256:{expected}"
    )]
    Exchanged {
        /// The image of the spec that starts from it.
        image: ImageName,
        /// Where it is.
        reference: String,
        /// The manifest that is locked.
        expected: Sha256,
        /// The one that is there.
        found: Sha256,
    },
    /// A document of it cannot be used.
    #[error("the {what} of `{reference}` cannot be used")]
    Document {
        /// Which document.
        what: &'static str,
        /// The image.
        reference: String,
        /// Why not.
        source: BadDocument,
    },
    /// Something is not what its digest says.
    #[error("the {what} of `{reference}` has sha256 {found} and not {expected}")]
    Hash {
        /// Which part.
        what: &'static str,
        /// The image.
        reference: String,
        /// The digest promised.
        expected: Sha256,
        /// The digest found.
        found: Sha256,
    },
    /// Something is larger or smaller than its descriptor says.
    #[error("the {what} of `{reference}` has {found} bytes and not the {expected} that were promised")]
    Size {
        /// Which part.
        what: &'static str,
        /// The image.
        reference: String,
        /// The size promised.
        expected: u64,
        /// The size found (one more than promised if it is larger).
        found: u64,
    },
    /// A layer cannot be unpacked.
    #[error("layer {number} of `{reference}` cannot be unpacked")]
    Layer {
        /// Which, counted from 1 at the bottom.
        number: usize,
        /// The image.
        reference: String,
        /// Why not.
        source: LayerError,
    },
    /// Layers do not fit on each other.
    #[error("layer {number} of `{reference}` does not fit on those below it")]
    Apply {
        /// Which, counted from 1 at the bottom.
        number: usize,
        /// The image.
        reference: String,
        /// Why not.
        source: TreeError,
    },
    /// A registry did not do as it was asked.
    #[error(transparent)]
    Registry(RegistryError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

impl From<RegistryError> for OciError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Cancelled => Self::Cancelled,
            error => Self::Registry(error),
        }
    }
}

impl OciError {
    /// Of a place that holds images of these `names`, of which none is meant, or `several` are.
    pub(crate) fn not_named(path: &Path, several: bool, names: &[String]) -> Self {
        let names = if names.is_empty() { "none with a name".into() } else { names.join(", ") };
        let problem = match several {
            true => format!("several images ({names}): say which, with `:NAME` behind it"),
            false => format!("no such image, but {names}"),
        };
        Self::NotNamed { path: path.into(), problem }
    }

    /// What the store refused, if it did. What is damaged there can be fetched or unpacked again.
    pub(crate) fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }

    /// The next step, if that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { reference, .. } if reference.starts_with(['.', '/']) => {
                Some("a path starts at the directory of kiln.toml".into())
            }
            Self::Missing { reference, .. } => Some(format!(
                "a path starts at the directory of kiln.toml; an image in a registry is named with the registry's \
                 host, like `oci:registry.example.com/library/{reference}`"
            )),
            Self::Exchanged { image, .. } => Some(format!(
                "put back the one that was locked, or take this one: `kiln lock --update {image}`"
            )),
            Self::Hash { .. } | Self::Size { .. } => {
                Some("whoever serves it has damaged or exchanged it: nothing of it was used".into())
            }
            Self::Registry(error) => error.hint(),
            _ => None,
        }
    }
}
