//! Policy as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What every image that a service runs is held against before it becomes part of a release.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Packages it must hold: a name, or a name with a bound on its version (`<`, `<=`, `=`, `>=`, `>`).
    #[serde(default)]
    #[schemars(example = vec!["openssl>=3.0.11"])]
    pub require_packages: Vec<String>,
    /// Packages it must not hold.
    #[serde(default)]
    #[schemars(example = vec!["telnet", "openssl<3.0.11"])]
    pub forbid_packages: Vec<String>,
    /// Kinds of check it must have at least one of: `run`, `http`, `port`, `file`, `package`.
    #[serde(default)]
    #[schemars(example = vec!["http"])]
    pub require_checks: Vec<String>,
    /// Whether images may start from handmade ones (`from = "image:NAME"`); they may not unless this is true.
    pub allow_handmade: Option<bool>,
}
