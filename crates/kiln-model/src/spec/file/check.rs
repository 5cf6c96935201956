//! `[[image.NAME.check]]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that must hold of an image: exactly one of `run`, `http`, `port`, `file` and `package`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckFile {
    /// This command, run in place of the main process, exits with 0.
    #[schemars(example = vec!["/usr/sbin/nginx", "-t"])]
    pub run: Option<Vec<String>>,
    /// The main process answers this request.
    pub http: Option<HttpCheckFile>,
    /// The main process accepts TCP connections on this port.
    #[schemars(example = &8080)]
    pub port: Option<u16>,
    /// This path is in the image.
    pub file: Option<FileCheckFile>,
    /// This package is in the image.
    pub package: Option<PackageCheckFile>,
    /// How long a `run`, `http` or `port` check may take; 30s if absent.
    #[schemars(example = &"30s")]
    pub timeout: Option<String>,
}

/// A request and what its answer must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheckFile {
    /// The path asked for.
    #[schemars(example = &"/")]
    pub path: String,
    /// The status the answer must have; any 2xx or 3xx if absent.
    #[schemars(example = &200)]
    pub status: Option<u16>,
    /// Text the body must contain.
    #[schemars(example = &"hello")]
    pub contains: Option<String>,
    /// The port asked; that of the service made from this image if absent.
    #[schemars(example = &8080)]
    pub port: Option<u16>,
}

/// A path and what must hold of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileCheckFile {
    /// Absolute path.
    #[schemars(example = &"/etc/nginx/nginx.conf")]
    pub path: String,
    /// Its permission bits, in octal.
    #[schemars(example = &"0644")]
    pub mode: Option<String>,
    /// The name of the user that owns it.
    #[schemars(example = &"root")]
    pub owner: Option<String>,
    /// Text it contains.
    pub contains: Option<String>,
}

/// A package, by name or with its version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PackageCheckFile {
    /// In any version.
    Name(#[schemars(example = &"nginx-light")] String),
    /// In one version.
    Versioned(VersionedPackageFile),
}

/// A package and its version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionedPackageFile {
    /// Its name.
    #[schemars(example = &"nginx-light")]
    pub name: String,
    /// Its version, or the beginning of it followed by `*`; any if absent.
    #[schemars(example = &"1.22.*")]
    pub version: Option<String>,
}
