//! The rules of policy, each with the place it is written at.

use std::collections::BTreeMap;

use super::super::policy::{Policy, PolicyRule, Rule};
use super::super::{Base, ImageSpec, Place, PolicyFile, Problems};
use super::parse;
use crate::{Check, ImageName};

pub(super) fn policy(
    file: Option<&PolicyFile>,
    images: &BTreeMap<ImageName, ImageSpec>,
    problems: &mut Problems<'_, '_>,
) -> Policy {
    let mut rules = handmade(file, images, problems);
    let Some(file) = file else { return Policy { rules } };
    let top = Place::default().key("policy");
    let lists = [
        (&file.require_packages, "require_packages", Rule::Require as fn(_) -> Rule),
        (&file.forbid_packages, "forbid_packages", Rule::Forbid),
    ];
    for (written, key, kind) in lists {
        for (index, text) in written.iter().enumerate() {
            let place = top.key(key).item(index);
            if let Some(rule) = parse(text, &place, problems) {
                rules.push(PolicyRule::new(kind(rule), problems.place_of(&place)));
            }
        }
    }
    for (index, kind) in file.require_checks.iter().enumerate() {
        let place = top.key("require_checks").item(index);
        if !Check::KINDS.contains(&kind.as_str()) {
            problems
                .value(&place, format!("there is no kind of check `{}`", kind.escape_debug()))
                .expected("`run`, `http`, `port`, `file` or `package`")
                .nearest(kind, Check::KINDS);
        }
        rules.push(PolicyRule::new(Rule::Check(kind.clone()), problems.place_of(&place)));
    }
    Policy { rules }
}

/// What is not written is a rule here: each image that starts from a handmade one breaks it.
fn handmade(
    file: Option<&PolicyFile>,
    images: &BTreeMap<ImageName, ImageSpec>,
    problems: &mut Problems<'_, '_>,
) -> Vec<PolicyRule> {
    if file.and_then(|f| f.allow_handmade) == Some(true) {
        let place = Place::default().key("policy").key("allow_handmade");
        return vec![PolicyRule::new(Rule::MayBeHandmade, problems.place_of(&place))];
    }
    let starts = images.iter().filter(|(_, image)| matches!(image.base, Base::Handmade(_)));
    let rule = |(name, _): (&ImageName, &ImageSpec)| {
        let place = Place::default().key("image").key(name.as_str()).key("from");
        PolicyRule::new(Rule::NotHandmade(name.clone()), problems.place_of(&place))
    };
    starts.map(rule).collect()
}
