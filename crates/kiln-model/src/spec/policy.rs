//! Policy: what every image that a service runs is held against, from the record of what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::problem::{Found, located};
use super::{Spec, SpecProblem};
use crate::{ExitCode, Failure, ImageName, ImageRecord, PackageRule, VersionOrder};

/// All rules of a spec, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// The rules.
    pub rules: Vec<PolicyRule>,
}

/// One rule, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// What it demands.
    pub rule: Rule,
    /// Where it stands in the text of the spec, in bytes.
    span: Range<usize>,
}

/// What is demanded of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// It holds such a package.
    Require(PackageRule),
    /// It holds no such package.
    Forbid(PackageRule),
    /// It has a check of this kind.
    Check(String),
    /// This one, which starts from a handmade image, may not: nothing in the spec allows it.
    NotHandmade(ImageName),
    /// It may be handmade.
    MayBeHandmade,
}

/// In its canonical words, as releases record it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Require(package) => write!(f, "require package {package}"),
            Self::Forbid(package) => write!(f, "forbid package {package}"),
            Self::Check(kind) => write!(f, "require check {kind}"),
            Self::NotHandmade(image) => write!(f, "image {image} is not handmade"),
            Self::MayBeHandmade => f.write_str("allow handmade images"),
        }
    }
}

impl PolicyRule {
    pub(super) fn new(rule: Rule, span: Range<usize>) -> Self {
        Self { rule, span }
    }
}

/// What a policy refuses, each with the line of the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    problems: Vec<SpecProblem>,
    hint: &'static str,
}

const CHANGE: &str = "change what the images hold, or the rule; nothing was deployed";
const HANDMADE: &str = "better put what was changed by hand into `files`, `packages` or `build` of the image, and bake \
    it; to deploy it as it is all the same, write `allow_handmade = true` under [policy]";

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let mut failure =
            Failure::new(ExitCode::Policy, "the policy of kiln.toml refuses this release").hint(refused.hint);
        failure.causes = refused.problems.iter().map(ToString::to_string).collect();
        failure.problems = refused.problems;
        failure
    }
}

impl Spec {
    /// The rules of policy in their canonical words, if every image that a service runs keeps all of them. The spec
    /// was read from `text`, which people know as `file`.
    ///
    /// # Errors
    /// Every rule that is broken, by which image and package.
    pub fn kept_policy(
        &self,
        images: &BTreeMap<ImageName, ImageRecord>,
        order: VersionOrder<'_>,
        (file, text): (&str, &str),
    ) -> Result<BTreeSet<String>, Refused> {
        let used: BTreeSet<&ImageName> = self.services.values().map(|s| &s.image).collect();
        let mut found = Vec::new();
        for PolicyRule { rule, span } in &self.policy.rules {
            let broken = used.iter().filter_map(|name| self.broken(rule, name, images.get(*name)?, order));
            found.extend(broken.map(|message| Found::new(span.clone(), message)));
        }
        if found.is_empty() {
            return Ok(self.policy.rules.iter().map(|r| r.rule.to_string()).collect());
        }
        Err(Refused { problems: located(file, text, found).problems, hint: CHANGE })
    }

    /// Refuses a spec with an image that starts from a handmade one without its policy's saying that this is allowed.
    /// Nothing but the spec has to be looked at. `text` and `file` as above.
    ///
    /// # Errors
    /// Each such image, with the line that says what it starts from.
    pub fn allows_its_handmade(&self, (file, text): (&str, &str)) -> Result<(), Refused> {
        let refused = |rule: &PolicyRule| match &rule.rule {
            Rule::NotHandmade(image) => {
                let message =
                    format!("image `{image}` starts from a handmade image, and no rule allows that");
                Some(Found::new(rule.span.clone(), message))
            }
            _ => None,
        };
        let found: Vec<Found> = self.policy.rules.iter().filter_map(refused).collect();
        if found.is_empty() {
            return Ok(());
        }
        Err(Refused { problems: located(file, text, found).problems, hint: HANDMADE })
    }

    /// How an image breaks a rule, if it does.
    fn broken(
        &self,
        rule: &Rule,
        name: &ImageName,
        image: &ImageRecord,
        order: VersionOrder<'_>,
    ) -> Option<String> {
        match rule {
            Rule::Require(wanted) if wanted.among(&image.packages, order).is_empty() => {
                let has: Vec<&str> = image
                    .packages
                    .iter()
                    .filter(|p| p.name == wanted.name())
                    .map(|p| p.version.as_str())
                    .collect();
                Some(match has.is_empty() {
                    true => format!("image `{name}` does not hold the package {wanted}"),
                    false => format!(
                        "image `{name}` does not hold {wanted}: it has {} {}",
                        wanted.name(),
                        has.join(", ")
                    ),
                })
            }
            Rule::Forbid(unwanted) => {
                let package = unwanted.among(&image.packages, order).into_iter().next()?;
                Some(format!(
                    "image `{name}` holds {} {}, which {unwanted} forbids",
                    package.name, package.version
                ))
            }
            Rule::Check(kind) => {
                let checks = self.images.get(name).map(|i| i.checks.as_slice()).unwrap_or_default();
                let has = checks.iter().any(|c| c.kind() == kind);
                (!has).then(|| format!("image `{name}` has no {kind} check"))
            }
            Rule::NotHandmade(_) if image.handmade.is_some() => Some(format!("image `{name}` is handmade")),
            Rule::Require(_) | Rule::NotHandmade(_) | Rule::MayBeHandmade => None,
        }
    }
}
