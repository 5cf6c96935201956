//! The spec as it is written: every key of `kiln.toml`, with nothing filled in and nothing looked up.
//!
//! The JSON Schema that editors get and the first look at a document both come from these types, so that there is
//! one list of keys. Text that stands for something (names, sizes, spans of time) stays text here;
//! [`crate::spec::Spec`] is what it means.

mod check;
mod contents;
mod deploy;
mod image;
mod policy;
mod service;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check::{CheckFile, FileCheckFile, HttpCheckFile, PackageCheckFile, VersionedPackageFile};
pub use contents::{BuildFile, CopyFile, DirFile, LinkFile, OwnedDirFile, UserFile};
pub use deploy::{
    CanaryFile, CertificateFile, DebianFile, DeployFile, RouteFile, SchemaFile, SourcesFile, StoreFile,
    StrategyFile, TlsFile,
};
pub use image::{ImageFile, RankedSuiteFile, SizedVolatileFile, SuiteFile, VolatileFile};
pub use policy::PolicyFile;
pub use service::{
    CircuitFile, HealthFile, HookFile, HooksFile, IoFile, SecretFile, SecretTable, ServiceFile,
};

/// What `kiln.toml` holds: an app, its images, the services made from them and the routes that lead there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "kiln.toml")]
pub struct SpecFile {
    /// The name of the app.
    #[schemars(example = &"hello")]
    pub app: String,
    /// Images by name.
    #[serde(default)]
    pub image: BTreeMap<String, ImageFile>,
    /// Services by name.
    #[serde(default)]
    pub service: BTreeMap<String, ServiceFile>,
    /// Stores by name: persistent services outside, which no deploy ever touches.
    #[serde(default)]
    pub store: BTreeMap<String, StoreFile>,
    /// Routes by name. With one service and no route, every request goes to that service.
    #[serde(default)]
    pub route: BTreeMap<String, RouteFile>,
    /// What clients that come over https are shown.
    pub tls: Option<TlsFile>,
    /// How a release takes over from the one before.
    pub deploy: Option<DeployFile>,
    /// What every image is held against before it becomes part of a release.
    pub policy: Option<PolicyFile>,
    /// Where the contents of images come from.
    pub sources: Option<SourcesFile>,
}
