//! Answers about what comes, goes, and is kept: exports, imports, collections, the log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{AppName, ImageDigest, ImageName, Origin, ReleaseId, SecretName, Sha256, Timestamp};

/// `kiln export --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportAnswer {
    /// The release.
    pub release: ReleaseId,
    /// The file.
    pub file: PathBuf,
    /// The bytes of its members.
    pub bytes: u64,
    /// Secrets that are in it, encrypted.
    #[serde(default)]
    pub secrets: Vec<SecretName>,
}

/// `kiln import --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportAnswer {
    /// The app.
    pub app: AppName,
    /// The release.
    pub release: ReleaseId,
    /// Secrets that came with it.
    #[serde(default)]
    pub secrets: Vec<SecretName>,
    /// Secrets it needs in a version that is not here.
    pub missing_secrets: Vec<SecretName>,
}

/// A number of things and their size on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a collection has removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// Releases.
    pub releases: BTreeSet<ReleaseId>,
    /// Images that no kept release needs, and what they were called when they were baked.
    #[serde(default)]
    pub images: BTreeMap<ImageDigest, Option<ImageName>>,
    /// By kind: `image`, `object`, `package`, `output`, `cache`.
    pub amounts: BTreeMap<String, Amount>,
    /// Images that stay and whose record or documents are damaged, and how. Which packages they were made from is not
    /// known, so all packages stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub damaged: BTreeMap<ImageDigest, String>,
}

/// `kiln gc --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcAnswer {
    /// Whether nothing was removed.
    pub dry_run: bool,
    /// The releases that stay.
    pub kept: BTreeSet<ReleaseId>,
    /// The space that is free now, or would be.
    pub bytes: u64,
    /// What the store takes after that.
    #[serde(default)]
    pub remaining: u64,
    /// What went.
    #[serde(flatten)]
    pub swept: Swept,
}

/// `kiln pin --json`, `kiln unpin --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinAnswer {
    /// The app.
    pub app: AppName,
    /// The release.
    pub release: ReleaseId,
    /// Whether it is pinned now.
    pub pinned: bool,
    /// Whether it was otherwise before.
    pub changed: bool,
}

/// One line of `kiln log --json`: one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number in the log.
    pub operation: u64,
    /// When it began.
    pub at: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Who asked for it.
    pub by: String,
    /// Where they were, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The app.
    pub app: AppName,
    /// `deploy`, `rollback`, `retire`, …
    pub what: String,
    /// The release that served before.
    pub from: Option<ReleaseId>,
    /// The release it was to lead to.
    pub to: Option<ReleaseId>,
    /// How it ended: `done`, `failed`, `superseded`, `given up`, or `under way`.
    pub outcome: String,
    /// Why, if it failed.
    pub reason: Option<String>,
}

/// `kiln log --verify --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogVerifiedAnswer {
    /// How many entries there are.
    pub entries: u64,
    /// The hash of the last one, which commits to all.
    pub head: Sha256,
}
