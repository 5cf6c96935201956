//! `kiln.lock`: every input of every image, pinned by hash. Committed beside the spec.
//!
//! ```toml
//! version = 1
//!
//! [image.web]
//! from = "debian:bookworm"
//! architecture = "amd64"
//! requested = ["nginx-light"]
//! recommends = false
//!
//! [[image.web.index]]
//! suite = "bookworm"
//! date = "Sat, 21 Nov 2026 00:53:02 UTC"
//! sha256 = "…"
//!
//! [[image.web.package]]
//! name = "adduser"
//! …
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{ImageDigest, ImageName, PackageRef, Sha256};

const HEADER: &str = "# Written by `kiln lock`. Commit it; do not edit it.\n";

/// Every input of every image of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The version of the format: 1.
    pub version: u32,
    /// By name of the image.
    #[serde(rename = "image", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<ImageName, LockedImage>,
}

/// What one image asked for, and what that came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedImage {
    /// The request this answers; another request needs another answer.
    #[serde(flatten)]
    pub request: LockRequest,
    /// The OCI image it starts from, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<LockedOci>,
    /// The handmade image it starts from, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handmade: Option<ImageDigest>,
    /// The signed indexes that were consulted.
    #[serde(rename = "index", default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<LockedIndex>,
    /// The packages, sorted by name.
    #[serde(rename = "package", default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<LockedPackage>,
}

/// An OCI image, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedOci {
    /// Digest of its manifest, which commits to its configuration and layers. Of an image without a manifest (an
    /// archive of `docker save`), the digest of the one that describes it.
    pub manifest: Sha256,
    /// Size of that manifest in bytes.
    pub size: u64,
}

/// The part of an image's spec that decides which packages it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRequest {
    /// The base: `debian:bookworm`, `oci:./base` or `scratch`.
    pub from: String,
    /// The architecture, as the distribution names it.
    pub architecture: String,
    /// The packages asked for, each as written. Their order is the lock's own, not the spec's: packages are configured
    /// in it, and what is asked for later comes behind, so that what was there before stays as it was.
    pub requested: Vec<String>,
    /// Whether recommended packages are wanted as well.
    pub recommends: bool,
    /// Further suites, each as `NAME:PRIORITY`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suites: Vec<String>,
}

/// One signed index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedIndex {
    /// The suite, e.g. `bookworm-security`.
    pub suite: String,
    /// Its date, as the index writes it: a later resolve refuses an older index.
    pub date: String,
    /// Digest of the signed file.
    pub sha256: Sha256,
}

/// One package, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its full version.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// The suite whose index lists it.
    pub suite: String,
    /// Where it is in the archive, relative to the archive's root.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Digest of the package file.
    pub sha256: Sha256,
}

/// A lock file that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLock {
    /// It is not TOML of the right shape.
    #[error("{0}")]
    Shape(String),
    /// It is of a format this version does not know.
    #[error("it has format version {0}, and only version 1 is known")]
    Version(u32),
    /// It says two things about one package, or an unsafe one.
    #[error("image `{image}`: {problem}")]
    Inconsistent {
        /// The image.
        image: ImageName,
        /// What is wrong.
        problem: String,
    },
}

impl Default for Lock {
    fn default() -> Self {
        Self { version: 1, images: BTreeMap::new() }
    }
}

impl Lock {
    /// The lock that `text` holds.
    ///
    /// # Errors
    /// If it is damaged or contradicts itself.
    pub fn from_toml(text: &str) -> Result<Self, BadLock> {
        let lock: Self = toml::from_str(text).map_err(|e| BadLock::Shape(e.to_string()))?;
        if lock.version != 1 {
            return Err(BadLock::Version(lock.version));
        }
        for (image, locked) in &lock.images {
            locked.check().map_err(|problem| BadLock::Inconsistent { image: image.clone(), problem })?;
        }
        Ok(lock)
    }

    /// The text of `kiln.lock`. The same lock gives the same text.
    pub fn to_toml(&self) -> String {
        let body = toml::to_string(self).expect("a lock is plain data that TOML can hold");
        format!("{HEADER}{body}")
    }
}

impl LockRequest {
    /// Whether the same is asked for, in whatever order.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let sorted = |request: &Self| Self { requested: set(&request.requested), ..request.clone() };
        sorted(self) == sorted(other)
    }

    /// The same request in the order of an `old` one, and what that did not ask for behind it, sorted.
    #[must_use]
    pub fn in_order_of(mut self, old: Option<&Self>) -> Self {
        let wanted = set(&self.requested);
        let before: Vec<String> =
            old.iter().flat_map(|old| &old.requested).filter(|p| wanted.contains(p)).cloned().collect();
        let new = wanted.into_iter().filter(|p| !before.contains(p)).collect();
        self.requested = [before, new].concat();
        self
    }
}

/// Sorted, each once.
fn set(requested: &[String]) -> Vec<String> {
    requested.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

impl LockedImage {
    /// The packages as an image records them.
    pub fn package_refs(&self) -> Vec<PackageRef> {
        let one = |p: &LockedPackage| PackageRef {
            name: p.name.clone(),
            version: p.version.clone(),
            architecture: p.architecture.clone(),
        };
        self.packages.iter().map(one).collect()
    }

    fn check(&self) -> Result<(), String> {
        for pair in self.packages.windows(2) {
            if pair[0].name >= pair[1].name {
                return Err(format!("`{}` is listed twice or out of order", pair[1].name));
            }
        }
        self.packages.iter().try_for_each(LockedPackage::check)
    }
}

impl LockedPackage {
    /// Names become paths and parts of addresses further on: nothing that could leave a directory may be in them.
    fn check(&self) -> Result<(), String> {
        let plain = |s: &str, extra: &str| {
            !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
        };
        let below = |s: &str| s.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let problem = |what: &str| Err(format!("package `{}` has an impossible {what}", self.name));
        if !plain(&self.name, "+-.") || !self.name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return problem("name");
        }
        if !plain(&self.version, "+-.~:") {
            return problem("version");
        }
        if !plain(&self.architecture, "-") {
            return problem("architecture");
        }
        if !plain(&self.path, "+-._~/%:") || !below(&self.path) {
            return problem("path");
        }
        if !plain(&self.suite, "+-._~/") || !below(&self.suite) {
            return problem("suite");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str) -> LockedPackage {
        LockedPackage {
            name: name.into(),
            version: "1:2.3-4+deb12u1".into(),
            architecture: "amd64".into(),
            suite: "bookworm".into(),
            path: format!("pool/main/a/{name}/{name}_2.3-4.deb"),
            size: 10,
            sha256: Sha256::of(name.as_bytes()),
        }
    }

    fn lock(packages: Vec<LockedPackage>) -> Lock {
        let request = LockRequest {
            from: "debian:bookworm".into(),
            architecture: "amd64".into(),
            requested: vec!["b".into()],
            recommends: false,
            suites: Vec::new(),
        };
        let index =
            LockedIndex { suite: "bookworm".into(), date: "today".into(), sha256: Sha256::of(b"index") };
        let image = LockedImage { request, oci: None, handmade: None, indexes: vec![index], packages };
        Lock { version: 1, images: [("web".parse().unwrap(), image)].into() }
    }

    #[test]
    fn text_and_back() {
        let lock = lock(vec![package("a"), package("b")]);
        let text = lock.to_toml();
        assert_eq!(Lock::from_toml(&text).unwrap(), lock, "{text}");
        assert_eq!(Lock::from_toml(&text).unwrap().to_toml(), text);
    }

    #[test]
    fn the_order_is_the_locks_own() {
        let asked = |packages: &[&str]| LockRequest {
            requested: packages.iter().map(|p| (*p).to_owned()).collect(),
            ..lock(vec![]).images.into_values().next().unwrap().request
        };
        assert!(asked(&["b", "a"]).asks_the_same(&asked(&["a", "b", "a"])));
        assert!(!asked(&["b", "a"]).asks_the_same(&asked(&["a"])));
        assert!(!asked(&["a"]).asks_the_same(&LockRequest { recommends: true, ..asked(&["a"]) }));
        assert_eq!(asked(&["c", "b"]).in_order_of(None), asked(&["b", "c"]));
        let old = asked(&["z", "gone", "b"]);
        assert_eq!(asked(&["c", "a", "b", "z"]).in_order_of(Some(&old)), asked(&["z", "b", "a", "c"]));
    }

    #[test]
    fn a_lock_that_contradicts_itself_is_refused() {
        let twice = lock(vec![package("a"), package("a")]).to_toml();
        assert!(Lock::from_toml(&twice).unwrap_err().to_string().contains("`a` is listed twice"));
        let newer = lock(vec![]).to_toml().replace("version = 1", "version = 2");
        assert_eq!(Lock::from_toml(&newer), Err(BadLock::Version(2)));
        assert!(Lock::from_toml("version = 1\nimages = 3").is_err());
    }

    #[test]
    fn what_could_leave_a_directory_is_refused() {
        for path in ["../etc/passwd", "/etc/passwd", "pool//a", "pool/./a", "a b", ""] {
            let mut bad = package("a");
            bad.path = path.into();
            assert!(Lock::from_toml(&lock(vec![bad]).to_toml()).is_err(), "{path}");
        }
    }
}
