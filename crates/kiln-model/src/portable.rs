//! Answers about what comes, goes, and is kept: exports, imports, collections, the log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{AppName, ReleaseId, SecretName, Sha256};

/// `kiln export --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportAnswer {
    /// The release.
    pub release: ReleaseId,
    /// The file.
    pub file: PathBuf,
    /// The bytes of its members.
    pub bytes: u64,
}

/// `kiln import --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportAnswer {
    /// The app.
    pub app: AppName,
    /// The release.
    pub release: ReleaseId,
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
    /// By kind: `image`, `object`, `package`, `output`, `cache`.
    pub amounts: BTreeMap<String, Amount>,
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
    /// What went.
    #[serde(flatten)]
    pub swept: Swept,
}

/// `kiln log --verify --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogVerifiedAnswer {
    /// How many entries there are.
    pub entries: u64,
    /// The hash of the last one, which commits to all.
    pub head: Sha256,
}
