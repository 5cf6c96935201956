//! Images that are taken from an instance somebody has changed, and images baked over those.
//!
//! | of the instance | in the image |
//! |---|---|
//! | its root file system | as it is: nobody can change it |
//! | a volatile path that holds something | a directory with that content, read-only; volatile no more |
//! | a volatile path that is empty | volatile as before |
//! | `/tmp`, `/var/tmp`, `/run`, `/dev/shm` and what is below them, so `/run/secrets` | volatile as before, never kept |
//! | sockets, device files | left out, and told |
//! | keys, identities and databases of one machine (`machine_own.rs`) | left out, and told |
//! | extended attributes, access times | left out |
//! | modification times | follow from the content, as those of project files do: the same state gives the same bytes |
//!
//! | module | does |
//! |---|---|
//! | `survey` | what is on a volatile path, and whether that stays so |
//! | `gather` | that as nodes of a tree, contents into the store |
//! | `commit` | the image of it |
//! | `base` | handmade images as what others start from |

mod base;
mod commit;
mod gather;
mod survey;

use std::io;

use kiln_model::{ByteSize, ExitCode, Failure, InstanceId, TreeError};
use kiln_store::{StoreError, has_no_space};

use crate::export::ExportError;
pub(crate) use base::{Foundation, check_hides_nothing, over, root};
pub use commit::{Committed, Source, commit};

/// Why an instance did not become an image. Nothing was kept then.
#[derive(Debug, thiserror::Error)]
pub enum HandmadeError {
    /// It holds nothing its image does not.
    #[error("{0} holds nothing that could become part of an image")]
    Nothing(InstanceId),
    /// What it holds changes while it is read.
    #[error("{path} of {instance} is being written to: it changed each of {attempts} times it was read")]
    Changing {
        /// The instance.
        instance: InstanceId,
        /// What changed.
        path: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// It holds more than an image is made from.
    #[error("{path} holds more than {most} paths, or directories nested deeper than {deepest}")]
    TooMuch {
        /// The volatile path.
        path: String,
        /// How many paths are taken.
        most: usize,
        /// How deep they may be.
        deepest: usize,
    },
    /// Something belongs to a user that no image has.
    #[error("{path} belongs to user {user}, who is none of the instance's")]
    Stranger {
        /// Where.
        path: String,
        /// Who, as the host numbers him.
        user: u32,
    },
    /// A file has holes, which an image cannot have.
    #[error(
        "{path} is {size} by what it says, on a volatile path of {holds}: it has holes, and images have none"
    )]
    Holes {
        /// Where.
        path: String,
        /// What the file says.
        size: ByteSize,
        /// What there can be on the path.
        holds: ByteSize,
    },
    /// A volatile path cannot be read.
    #[error("could not read {path}")]
    Read {
        /// Where.
        path: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The image it was made from cannot be read.
    #[error("the image it was made from cannot be read")]
    Image(#[from] ExportError),
    /// It would be no file system.
    #[error("the image would not be a filesystem")]
    Tree(#[from] TreeError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<HandmadeError> for Failure {
    fn from(error: HandmadeError) -> Self {
        let code = match &error {
            HandmadeError::Nothing(_)
            | HandmadeError::Changing { .. }
            | HandmadeError::TooMuch { .. }
            | HandmadeError::Holes { .. } => ExitCode::Usage,
            _ => ExitCode::Host,
        };
        let hint = match &error {
            HandmadeError::Nothing(id) => Some(format!(
                "`kiln diff {id}` shows what it holds; /tmp, /var/tmp, /run and /dev/shm are never kept. Only \
                 volatile paths can be changed: `volatile` of the image in kiln.toml declares them"
            )),
            HandmadeError::Holes { .. } => Some("remove it, or make it as large as what is in it".to_owned()),
            HandmadeError::Changing { .. } => Some("end what writes there, and commit again".to_owned()),
            other => has_no_space(other).then(|| StoreError::ON_NO_SPACE.to_owned()),
        };
        let failure = Failure::from_error(code, &error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Whether a path is another one or below it.
fn is_in(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_said_with_the_way_out() {
        let source = io::Error::from(io::ErrorKind::StorageFull);
        let error = StoreError::NoSpace { attempted: "write", path: "/store/objects/x".into(), source };
        let failure = Failure::from(HandmadeError::Store(error));
        assert_eq!(failure.hint.as_deref(), Some(StoreError::ON_NO_SPACE));
    }
}
