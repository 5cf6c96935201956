//! Where an OCI image is: in a layout or archive on disk, or in a registry.
//!
//! ```text
//! ./base  /tmp/base.tar  base.tar:1.0  ./base@sha256:…     a path, and which of its images
//! registry.example.com/team/base:1.0  127.0.0.1:5000/base@sha256:…     registry, repository, which of its images
//! ```
//! A reference whose first part has a dot or a port, or is `localhost`, and is followed by a slash names a registry,
//! as it does for other tools; no registry is built in. Everything else is a path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Sha256;

/// Text that names no OCI image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` names no OCI image: {problem}")]
pub struct BadReference {
    given: String,
    problem: &'static str,
}

/// Where an OCI image is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OciReference {
    /// In a layout (a directory) or an archive (a file).
    Path {
        /// The path as it is written; relative ones start at the directory of the spec.
        path: String,
        /// Which of its images.
        which: Which,
    },
    /// In a registry.
    Registry(RegistryReference),
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryReference {
    /// The registry's host, with a port if one is given.
    pub host: String,
    /// The repository: lower-case words with slashes between them.
    pub repository: String,
    /// Which of its images.
    pub which: Which,
}

/// Which image of several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Which {
    /// By name.
    pub tag: Option<String>,
    /// By the digest of its manifest or index, which counts if both are given.
    pub digest: Option<Sha256>,
}

impl RegistryReference {
    /// The tag, or the one that stands for no tag.
    pub fn tag(&self) -> &str {
        self.which.tag.as_deref().unwrap_or("latest")
    }
}

impl FromStr for OciReference {
    type Err = BadReference;

    fn from_str(given: &str) -> Result<Self, BadReference> {
        let bad = |problem| BadReference { given: given.to_owned(), problem };
        let (rest, which) = split_which(given).map_err(bad)?;
        if rest.is_empty() || given.contains(|c: char| c.is_control()) {
            return Err(bad("expected a path, or a registry and a repository"));
        }
        let Some((host, repository)) = rest.split_once('/').filter(|(host, _)| is_host(host)) else {
            return Ok(Self::Path { path: rest.to_owned(), which });
        };
        if !is_repository(repository) {
            return Err(bad(
                "a repository is lower-case words of a-z and 0-9 with `.`, `_`, `-` within and `/` between them",
            ));
        }
        Ok(Self::Registry(RegistryReference { host: host.into(), repository: repository.into(), which }))
    }
}

/// What comes before `:tag` and `@digest`.
fn split_which(given: &str) -> Result<(&str, Which), &'static str> {
    let (rest, digest) = match given.split_once('@') {
        None => (given, None),
        Some((rest, digest)) => {
            let digest = digest.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
            (rest, Some(digest.ok_or("behind `@`, `sha256:` and 64 hex digits are expected")?))
        }
    };
    match rest.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => {
            if !is_tag(tag) {
                return Err("a tag has 1 to 128 letters, digits, `.`, `_` and `-`");
            }
            Ok((before, Which { tag: Some(tag.to_owned()), digest }))
        }
        _ => Ok((rest, Which { tag: None, digest })),
    }
}

fn is_host(part: &str) -> bool {
    let (name, port) = match part.rsplit_once(':') {
        Some((name, port)) if !part.ends_with(']') => (name, Some(port)),
        _ => (part, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    let number = |c: char| c.is_ascii_hexdigit() || ".:".contains(c);
    let named = match name.strip_prefix('[') {
        None => name.chars().all(plain),
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.chars().all(number)),
    };
    let looks_like_one = part == "localhost" || port.is_some() || part.contains('.') || part.ends_with(']');
    looks_like_one
        && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && named
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_repository(name: &str) -> bool {
    let word = |part: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let within = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        ends(part.chars().next()) && ends(part.chars().last()) && part.chars().all(within)
    };
    name.len() <= 255 && name.split('/').all(word)
}

fn is_tag(tag: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=128).contains(&tag.len()) && !tag.starts_with(['.', '-']) && tag.chars().all(allowed)
}

/// The name of an image in an OCI layout, as the image specification has it: words with `/` between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutName(String);

impl LayoutName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LayoutName {
    type Err = BadReference;

    fn from_str(given: &str) -> Result<Self, BadReference> {
        let within = |c: char| c.is_ascii_alphanumeric() || "-._:@+".contains(c);
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let word =
            |part: &str| ends(part.chars().next()) && ends(part.chars().last()) && part.chars().all(within);
        let doubled = |pair: &[u8]| pair.iter().all(|c| b"-._:@+".contains(c)) && pair != b"--";
        let word =
            |part: &str| word(part) && !part.contains("---") && !part.as_bytes().windows(2).any(doubled);
        if given.len() <= 255 && given.split('/').all(word) {
            return Ok(Self(given.to_owned()));
        }
        let problem = "a name is like `1.0` or `registry.example.com/team/web:1.0`, of letters and digits, with `.`, `_`, `-`, \
                       `:`, `@`, `+` and `/` or `--` between them, never two of these in a row, 255 at most";
        Err(BadReference { given: given.to_owned(), problem })
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@sha256:{}", digest.hex())?;
        }
        Ok(())
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.host, self.repository, self.which)
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { path, which } => write!(f, "{path}{which}"),
            Self::Registry(registry) => registry.fmt(f),
        }
    }
}

impl TryFrom<String> for OciReference {
    type Error = BadReference;

    fn try_from(text: String) -> Result<Self, BadReference> {
        text.parse()
    }
}

impl From<OciReference> for String {
    fn from(reference: OciReference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(text: &str) -> RegistryReference {
        match text.parse().unwrap() {
            OciReference::Registry(registry) => registry,
            path => panic!("{path:?}"),
        }
    }

    fn path(text: &str) -> (String, Option<String>) {
        match text.parse().unwrap() {
            OciReference::Path { path, which } => (path, which.tag),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn registries_have_a_host_and_paths_have_none() {
        let full = registry("registry.example.com/team/base:1.0");
        assert_eq!(
            (full.host.as_str(), full.repository.as_str(), full.tag()),
            ("registry.example.com", "team/base", "1.0")
        );
        assert_eq!(registry("127.0.0.1:5000/base").host, "127.0.0.1:5000");
        assert_eq!(registry("[::1]:5000/base:x").tag(), "x");
        assert_eq!(registry("[::1]/base").host, "[::1]");
        assert_eq!(registry("localhost/base").tag(), "latest");
        let pinned = format!("localhost:1/base@sha256:{}", "a".repeat(64));
        assert!(registry(&pinned).which.digest.is_some());
        assert_eq!(pinned.parse::<OciReference>().unwrap().to_string(), pinned);

        assert_eq!(path("./base"), ("./base".into(), None));
        assert_eq!(path("base.tar"), ("base.tar".into(), None));
        assert_eq!(path("/tmp/base.tar:1.0"), ("/tmp/base.tar".into(), Some("1.0".into())));
        assert_eq!(path("team/base:x"), ("team/base".into(), Some("x".into())));
        // A name has one colon, before its port.
        assert_eq!(path("oci:127.0.0.1:5000/base").0, "oci:127.0.0.1:5000/base");
    }

    #[test]
    fn a_name_in_a_layout_is_a_word_or_several() {
        for good in ["1.0", "web", "localhost/team/web:1.0", "registry.example.com:5000/a/b_c:x-1", "v1+2"] {
            assert_eq!(good.parse::<LayoutName>().unwrap().as_str(), good);
        }
        for bad in ["", "bad name!!", "a//b", "/a", "a:", "-a", "größe", "a\n", &"x".repeat(256)] {
            let refused = bad.parse::<LayoutName>().unwrap_err().to_string();
            assert!(refused.contains("a name is like `1.0`"), "{bad}: {refused}");
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for bad in [
            "",
            ":x",
            "registry.example.com/Team",
            "a.b/x:",
            "a.b/x@sha256:12",
            "a.b//x",
            "a.b/x:\n",
            "a.b/../x",
        ] {
            assert!(bad.parse::<OciReference>().is_err(), "{bad}");
        }
    }
}
