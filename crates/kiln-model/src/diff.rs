//! What an instance has that its image has not.

use serde::{Deserialize, Serialize};

use crate::{ImageDigest, InstanceId};

/// `kiln diff --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffAnswer {
    /// The instance.
    pub instance: InstanceId,
    /// Its image.
    pub image: ImageDigest,
    /// What its volatile paths hold, sorted by path: an image has nothing there.
    pub volatile: Vec<DiffEntry>,
    /// What is otherwise than its image and its release say: nothing, unless somebody with the host's privileges
    /// has been at it.
    pub drift: Vec<String>,
    /// Whether there is more than is told.
    pub is_cut: bool,
}

/// Something on a volatile path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffEntry {
    /// Where.
    pub path: String,
    /// What it is.
    pub kind: DiffKind,
    /// Of a file, its size.
    pub bytes: u64,
}

/// What something on a volatile path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A socket or a named pipe.
    Other,
}
