//! `[image.NAME]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BuildFile, CheckFile, CopyFile, DirFile, LinkFile, UserFile};

/// A root filesystem and how its main process is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFile {
    /// What it starts from: `debian:SUITE`, `scratch`, or `oci:` and an OCI layout or archive (`./base`,
    /// `/tmp/base.tar`, with `:NAME` behind it if it holds several images) or a reference in a registry
    /// (`registry.example.com/team/base:1.0`), or `image:` and the name that `kiln commit` gave to the image of an
    /// instance, which `[policy] allow_handmade` must allow.
    #[schemars(example = &"debian:bookworm")]
    pub from: String,
    /// Distribution packages, in any order: a name, a version of it (`nginx=1.22.*`, where `*` stands
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
    /// Directories, made with their parents where they are missing.
    #[serde(default)]
    pub dirs: Vec<DirFile>,
    /// Symbolic links. What is at their place is replaced, unless it is a directory.
    #[serde(default)]
    pub links: Vec<LinkFile>,
    /// Users the image is to have beside those it has.
    #[serde(default)]
    pub users: Vec<UserFile>,
    /// Commands that are run as root inside the tree with all of the above in it, one after another, without a
    /// network. What they write is part of the image, with times that name no moment.
    #[serde(default)]
    pub build: Vec<BuildFile>,
    /// Whether `build` may use the host's network: what it then makes is only as repeatable as what it fetches. It may
    /// not unless this is true.
    pub build_network: Option<bool>,
    /// The main process: program and arguments. No shell is involved. May be absent if an OCI image says it.
    #[schemars(example = vec!["/usr/sbin/nginx", "-g", "daemon off;"])]
    pub run: Option<Vec<String>>,
    /// The user the main process runs as, by name; that of an OCI image, else `root`, if absent.
    #[schemars(example = &"www-data")]
    pub user: Option<String>,
    /// Environment of the main process, over that of an OCI image.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory of the main process; that of an OCI image, else `/`, if absent.
    #[schemars(example = &"/srv/app")]
    pub workdir: Option<String>,
    /// The signal that asks the main process to end; that of an OCI image, else `SIGTERM`, if absent.
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
    /// Whether programs that are written there may be executed; they may not unless this is true.
    pub exec: Option<bool>,
}
