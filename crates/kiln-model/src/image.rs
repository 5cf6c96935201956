//! Images: content-addressed root filesystems with their run settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, ImageDigest, ImageName, Millis, PackageRef, Sha256};

/// How the main process of an instance is run. Resolved: ids are numbers, looked up in the image's own
/// `/etc/passwd` and `/etc/group` when it was baked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSettings {
    /// Program and arguments; the program is an absolute path inside the image.
    pub argv: Vec<String>,
    /// The user's name, for people.
    pub user: String,
    /// Numeric user id inside the image.
    pub uid: u32,
    /// Numeric group id inside the image.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Environment of the image (a service's own is laid over it).
    pub env: BTreeMap<String, String>,
    /// Working directory; `/` unless said otherwise.
    pub workdir: String,
    /// The signal that asks the process to end, by number; SIGTERM (15) unless said otherwise.
    pub stop_signal: i32,
    /// How long after the stop signal the instance is killed.
    pub stop_grace: Millis,
}

/// A path inside instances that is writable, empty at start and gone at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Volatile {
    /// Absolute path; it exists in the image as a directory.
    pub path: String,
    /// The most it may hold (charged to the instance's memory as well).
    pub size: ByteSize,
}

/// What is recorded of an image when it has been baked. Never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Commits to every byte of the tree, and to `run` and `volatile` (they are an xattr of the root directory).
    pub digest: ImageDigest,
    /// The name it had in the spec it was first baked for.
    pub name: ImageName,
    /// Size of the metadata file in bytes.
    pub metadata_bytes: u64,
    /// Sum of the sizes of all regular files in bytes.
    pub content_bytes: u64,
    /// Number of paths.
    pub entries: u64,
    /// The packages inside, sorted.
    pub packages: Vec<PackageRef>,
    /// How its main process is run.
    pub run: RunSettings,
    /// Its volatile paths, sorted.
    pub volatile: Vec<Volatile>,
    /// Digest of all its inputs: the key under which an unchanged bake finds it again.
    pub inputs: Sha256,
}

/// All an engine needs to mount an image: control resolves it, the engine knows nothing of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageHandle {
    /// Which image.
    pub digest: ImageDigest,
    /// The metadata file (EROFS).
    pub metadata: PathBuf,
    /// The directory of content objects, the overlay's data-only layer.
    pub objects: PathBuf,
}
