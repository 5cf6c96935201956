//! Packages, as images record them.

use serde::{Deserialize, Serialize};

/// A distribution package's name, as the distribution writes it.
pub type PackageName = String;

/// One package inside an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackageRef {
    /// Its name, e.g. `nginx-light`.
    pub name: PackageName,
    /// Its full version, e.g. `1.22.1-9+deb12u3`.
    pub version: String,
    /// Its architecture, e.g. `amd64` or `all`.
    pub architecture: String,
}
