//! Which packages are meant: a name, maybe with a bound on the version.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::PackageRef;

/// `openssl`, or `openssl<3.0.11` for those of its versions that come before 3.0.11.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageRule {
    name: String,
    bound: Option<(Comparison, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Comparison {
    Before,
    UpTo,
    Exactly,
    From,
    After,
}

/// As they are written; those of two characters first, because the others are their beginnings.
const SIGNS: [(&str, Comparison); 5] = [
    ("<=", Comparison::UpTo),
    (">=", Comparison::From),
    ("<", Comparison::Before),
    (">", Comparison::After),
    ("=", Comparison::Exactly),
];

/// Text that is no such rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not say which package is meant: write `openssl`, `openssl<3.0.11`, or with <=, =, >=, >")]
pub struct BadPackageRule(String);

impl FromStr for PackageRule {
    type Err = BadPackageRule;

    fn from_str(text: &str) -> Result<Self, BadPackageRule> {
        let bad = || BadPackageRule(text.escape_debug().to_string());
        // Around the sign there may be spaces; `libssl 3` is no package.
        let text = text.trim_matches(' ');
        let end = text.find(['<', '>', '=']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let name = name.trim_end_matches(' ');
        let plain = |s: &str, more: &str| {
            !s.is_empty()
                && s.len() <= 255
                && s.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !plain(name, "+-._") {
            return Err(bad());
        }
        let bound =
            match SIGNS.iter().find_map(|(sign, comparison)| Some((*comparison, rest.strip_prefix(sign)?))) {
                None if rest.is_empty() => None,
                Some((comparison, version)) => {
                    let version = version.trim_start_matches(' ');
                    if !plain(version, "+-._~:") {
                        return Err(bad());
                    }
                    Some((comparison, version.to_owned()))
                }
                None => return Err(bad()),
            };
        Ok(Self { name: name.to_owned(), bound })
    }
}

impl TryFrom<String> for PackageRule {
    type Error = BadPackageRule;

    fn try_from(text: String) -> Result<Self, BadPackageRule> {
        text.parse()
    }
}

impl From<PackageRule> for String {
    fn from(rule: PackageRule) -> Self {
        rule.to_string()
    }
}

/// In its canonical form: without spaces.
impl fmt::Display for PackageRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.bound {
            None => Ok(()),
            Some((comparison, version)) => {
                let sign = SIGNS.iter().find(|(_, c)| c == comparison).map_or("", |(sign, _)| sign);
                write!(f, "{sign}{version}")
            }
        }
    }
}

/// How versions of a distribution compare; the distribution's own rules are not the model's business.
pub type VersionOrder<'a> = &'a dyn Fn(&str, &str) -> Ordering;

impl PackageRule {
    /// The name of the package.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Those of `packages` that are meant.
    pub fn among<'p>(&self, packages: &'p [PackageRef], order: VersionOrder<'_>) -> Vec<&'p PackageRef> {
        let within = |version: &str| match &self.bound {
            None => true,
            Some((comparison, bound)) => comparison.accepts(order(version, bound)),
        };
        packages.iter().filter(|p| p.name == self.name && within(&p.version)).collect()
    }
}

impl Comparison {
    fn accepts(self, found: Ordering) -> bool {
        match self {
            Self::Before => found.is_lt(),
            Self::UpTo => found.is_le(),
            Self::Exactly => found.is_eq(),
            Self::From => found.is_ge(),
            Self::After => found.is_gt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> PackageRef {
        PackageRef { name: name.into(), version: version.into(), architecture: "amd64".into() }
    }

    #[test]
    fn rules_are_read_and_written() {
        for text in ["openssl", "openssl<3.0.11", "libc6<=2.36-9+deb12u1", "a>=1:2~rc1", "g++=4", "x>0"] {
            assert_eq!(text.parse::<PackageRule>().unwrap().to_string(), text);
        }
        assert_eq!("openssl < 3".parse::<PackageRule>().unwrap().to_string(), "openssl<3");
        for text in
            ["", "<3", "openssl<", "openssl<<3", "a b/c", "openssl==3", "opensslé", "libssl 3", "a<1 2"]
        {
            assert!(text.parse::<PackageRule>().is_err(), "{text}");
        }
    }

    #[test]
    fn packages_are_found_by_name_and_bound() {
        let all = [package("a", "1"), package("a", "3"), package("b", "2")];
        let found = |rule: &str| {
            let among = rule.parse::<PackageRule>().unwrap().among(&all, &|a, b| a.cmp(b)).into_iter();
            among.map(|p| p.version.clone()).collect::<Vec<_>>()
        };
        assert_eq!(found("a"), ["1", "3"]);
        assert_eq!(
            (found("a<3"), found("a<=3"), found("a>1")),
            (vec!["1".into()], vec!["1".into(), "3".into()], vec!["3".into()])
        );
        assert_eq!((found("a=3"), found("a>=4"), found("c")), (vec!["3".to_owned()], vec![], vec![]));
    }
}
