//! Images that were not baked but taken from an instance somebody had changed.

use serde::{Deserialize, Serialize};

use crate::{ImageDigest, ImageName, InstanceId};

/// How a handmade image came to be. What is baked over one is handmade as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handmade {
    /// The name it was given.
    pub name: ImageName,
    /// The image the instance was made from.
    pub image: ImageDigest,
    /// The instance whose state it holds.
    pub instance: InstanceId,
    /// The volatile paths whose contents became part of it. They are volatile no more.
    pub kept: Vec<String>,
}

/// `kiln commit --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAnswer {
    /// The new image.
    pub image: ImageDigest,
    /// How it came to be, and what it is called.
    pub handmade: Handmade,
    /// What became part of it, by volatile path.
    pub kept: Vec<KeptPath>,
    /// What the instance holds that did not become part of it, and why.
    pub left_out: Vec<NotKept>,
}

/// A volatile path whose contents became part of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPath {
    /// The path.
    pub path: String,
    /// How many paths are below it.
    pub entries: u64,
    /// Sum of the sizes of its files in bytes.
    pub bytes: u64,
}

/// Something an instance holds that did not become part of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotKept {
    /// The path.
    pub path: String,
    /// Why.
    pub why: String,
}
