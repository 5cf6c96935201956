//! Images: content-addressed root filesystems with their run settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, Handmade, ImageDigest, ImageName, Millis, ObjectDigest, PackageRef, Sha256};

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

impl RunSettings {
    /// Those of an image that says nothing but what is run: as root, in `/`, with ten seconds to end after SIGTERM.
    pub fn as_root(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            user: "root".into(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            env: BTreeMap::new(),
            workdir: "/".into(),
            stop_signal: 15,
            stop_grace: Millis(10_000),
        }
    }
}

/// A path inside instances that is writable, empty at start and gone at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Volatile {
    /// Absolute path; it exists in the image as a directory.
    pub path: String,
    /// The most it may hold (charged to the instance's memory as well).
    pub size: ByteSize,
    /// Whether programs on it may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exec: bool,
}

impl Volatile {
    /// One from which nothing is executed.
    pub fn new(path: impl Into<String>, size: ByteSize) -> Self {
        Self { path: path.into(), size, exec: false }
    }
}

/// How the bytes of an image are to be read: a version, and what beyond its basics an image makes use of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFormat {
    /// The version of the format.
    pub version: u32,
    /// Names out of [`ImageFormat::FEATURES`] that the image makes use of; who does not know one cannot read it right.
    pub features: BTreeSet<String>,
}

impl ImageFormat {
    /// The version this code writes, and the newest it reads.
    pub const VERSION: u32 = 1;
    /// The features this code knows: `acl` (POSIX ACLs), `inline` (contents kept in the metadata),
    /// `overlay-xattrs` (files with xattrs of overlayfs of their own, written escaped).
    pub const FEATURES: [&'static str; 3] = ["acl", "inline", "overlay-xattrs"];

    /// This version with these features.
    pub fn with(features: impl IntoIterator<Item = &'static str>) -> Self {
        Self { version: Self::VERSION, features: features.into_iter().map(str::to_owned).collect() }
    }

    /// What of it this code does not know, in words; nothing if it can read such images.
    pub fn unknown(&self) -> Option<String> {
        if self.version > Self::VERSION {
            return Some(format!("format {}, and this Kiln reads up to {}", self.version, Self::VERSION));
        }
        let unknown = self.features.iter().find(|f| !Self::FEATURES.contains(&f.as_str()))?;
        Some(format!("the feature `{unknown}`, which this Kiln does not know"))
    }
}

impl Default for ImageFormat {
    fn default() -> Self {
        Self::with([])
    }
}

/// What is recorded of an image when it has been baked. Never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// How its bytes are to be read. Records from before this was written down are of version 1.
    #[serde(default)]
    pub format: ImageFormat,
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
    /// What is written down about it, by name ([`ImageRecord::SBOM`], [`ImageRecord::PROVENANCE`]), each an object.
    #[serde(default)]
    pub documents: BTreeMap<String, ObjectDigest>,
    /// What belongs to one machine and was left out, and what may and was kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// How it, or the image it starts from, came to be if that was not baked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handmade: Option<Handmade>,
}

/// What packages, an OCI image or an instance would have brought, and no image holds: keys, certificates, data. And what
/// packages made that looks like it, and that is not known for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// What it is, in words.
    pub what: String,
    /// Where it would have been; `*` stands for anything within a name.
    pub paths: Vec<String>,
    /// What to do instead.
    pub instead: String,
    /// A line for `sh -e` that makes it below `/run` at the start of an instance; empty of what was kept.
    pub command: String,
    /// Whether the image holds it all the same.
    #[serde(default, skip_serializing_if = "Fate::is_left_out")]
    pub fate: Fate,
}

/// What became of what may belong to one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It belongs to one machine, and the image does not hold it.
    #[default]
    LeftOut,
    /// It may belong to one machine, and the image holds it.
    Kept,
}

impl Fate {
    fn is_left_out(&self) -> bool {
        *self == Self::LeftOut
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fate {
            Fate::LeftOut => write!(f, "left out: {}; {} (`{}`)", self.what, self.instead, self.command),
            Fate::Kept => write!(f, "kept: {} ({}); {}", self.what, self.paths.join(", "), self.instead),
        }
    }
}

impl ImageRecord {
    /// The name of the document that lists what is inside: CycloneDX 1.6.
    pub const SBOM: &'static str = "sbom.cdx.json";
    /// The name of the document that says what it was made from: an in-toto statement with SLSA provenance v1.
    pub const PROVENANCE: &'static str = "provenance.intoto.json";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_by_a_kiln_that_knows_only_of_what_was_left_out() {
        let one = |fate| LeftOut {
            what: "a".into(),
            paths: vec!["/b".into()],
            instead: "c".into(),
            command: String::new(),
            fate,
        };
        let written = |fate| serde_json::to_value(one(fate)).unwrap();
        let known = serde_json::json!({"what": "a", "paths": ["/b"], "instead": "c", "command": ""});
        assert_eq!(written(Fate::LeftOut), known);
        let mut kept = known;
        kept["fate"] = "kept".into();
        assert_eq!(written(Fate::Kept), kept);
        assert_eq!(one(Fate::Kept).to_string(), "kept: a (/b); c");
    }

    #[test]
    fn what_a_newer_kiln_wrote_is_told() {
        assert_eq!(ImageFormat::with(ImageFormat::FEATURES).unknown(), None);
        let newer = ImageFormat { version: 2, ..ImageFormat::default() };
        assert_eq!(newer.unknown().unwrap(), "format 2, and this Kiln reads up to 1");
        let unknown = ImageFormat::with(["acl", "zstd"]).unknown().unwrap();
        assert_eq!(unknown, "the feature `zstd`, which this Kiln does not know");
    }
}
