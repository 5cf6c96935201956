//! The rules of policy, each with the place it is written at.

use super::super::policy::{Policy, PolicyRule, Rule};
use super::super::{Place, PolicyFile, Problems};
use super::parse;
use crate::Check;

pub(super) fn policy(file: Option<&PolicyFile>, problems: &mut Problems<'_, '_>) -> Policy {
    let Some(file) = file else { return Policy::default() };
    let top = Place::default().key("policy");
    let mut rules = Vec::new();
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
