//! `[image.NAME]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CheckFile;

/// A root filesystem and how its main process is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFile {
    /// What it starts from: `debian:SUITE`, `scratch`, or `oci:REFERENCE`.
    #[schemars(example = &"debian:bookworm")]
    pub from: String,
    /// Distribution packages, configured in this order: a name, a version of it (`nginx=1.22.*`, where `*` stands
    /// for any end), or the one of a suite (`curl/bookworm-backports`). What they depend on comes with them;
    /// `kiln.lock` pins all of it.
    #[serde(default)]
    #[schemars(example = vec!["nginx-light"])]
    pub packages: Vec<String>,
    /// Further suites that packages may come from, beside that of `from` and its updates.
    #[serde(default)]
    pub suites: Vec<SuiteFile>,
    /// Whether packages that the named ones recommend come with them; they do not unless this is true.
    pub recommends: Option<bool>,
    /// Files of the project, copied into the image over what the packages brought.
    #[serde(default)]
    pub files: Vec<CopyFile>,
    /// The main process: program and arguments. No shell is involved.
    #[schemars(example = vec!["/usr/sbin/nginx", "-g", "daemon off;"])]
    pub run: Vec<String>,
    /// The user the main process runs as, by name; `root` if absent.
    #[schemars(example = &"www-data")]
    pub user: Option<String>,
    /// Environment of the main process.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory of the main process; `/` if absent.
    #[schemars(example = &"/srv/app")]
    pub workdir: Option<String>,
    /// The signal that asks the main process to end; `SIGTERM` if absent.
    #[schemars(example = &"SIGQUIT")]
    pub stop_signal: Option<String>,
    /// How long after that signal the instance is killed; 10s if absent.
    #[schemars(example = &"10s")]
    pub stop_grace: Option<String>,
    /// Paths that are writable in each instance, empty at its start and gone with it; beside `/tmp`, `/run` and
    /// `/var/tmp`, which always are.
    #[serde(default)]
    pub volatile: Vec<VolatileFile>,
    /// What must hold of the image before any release may use it.
    #[serde(default)]
    pub check: Vec<CheckFile>,
}

/// A file or directory of the project and its place in the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyFile {
    /// The file, or the directory with all that is in it, relative to `kiln.toml`.
    #[schemars(example = &"site/")]
    pub src: String,
    /// Its absolute path in the image.
    #[schemars(example = &"/srv/www")]
    pub dst: String,
}

/// A further suite of the distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SuiteFile {
    /// Its name, with priority 100: packages come from it where they are asked for by suite, or no suite that is
    /// preferred has them.
    Name(#[schemars(example = &"bookworm-backports")] String),
    /// Its name and priority.
    Ranked(RankedSuiteFile),
}

/// A further suite of the distribution, and how much it is preferred.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RankedSuiteFile {
    /// Its name.
    #[schemars(example = &"trixie")]
    pub name: String,
    /// Of all versions of a package, those from the suite of the highest priority count, and of these the highest
    /// one. The suite of `from` has 500.
    #[schemars(example = 400)]
    pub priority: u16,
}

/// A path that is writable in each instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum VolatileFile {
    /// An absolute path, with room for 16MiB.
    Path(#[schemars(example = &"/var/cache/app")] String),
    /// An absolute path and how much it may hold.
    Sized(SizedVolatileFile),
}

/// A path that is writable in each instance, and how much it may hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SizedVolatileFile {
    /// Absolute path.
    #[schemars(example = &"/var/cache/app")]
    pub path: String,
    /// The most it may hold; counts towards the memory of the instance.
    #[schemars(example = &"64MiB")]
    pub size: String,
}
