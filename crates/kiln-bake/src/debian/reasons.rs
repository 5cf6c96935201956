//! Why each package of an image is there: who asked for it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;

use super::index::Stanza;
use super::relation::{self, Relation};

/// Why a package is in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The spec names it.
    Asked,
    /// Every system of the distribution has it.
    Essential,
    /// This package depends on it.
    NeededBy(String),
    /// This package recommends it.
    RecommendedBy(String),
    /// Nothing of what was chosen asks for it; why it was there before, if that can still be told.
    Unneeded(Option<Box<Reason>>),
    /// Something of what was chosen would take it, and has something else, or does without it.
    Displaced(Option<Box<Reason>>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("asked for in kiln.toml"),
            Self::Essential => f.write_str("part of every system"),
            Self::NeededBy(package) => write!(f, "needed by {package}"),
            Self::RecommendedBy(package) => write!(f, "recommended by {package}"),
            Self::Unneeded(before) => {
                f.write_str("nothing asks for it any more")?;
                before.iter().try_for_each(|before| write!(f, "; it was {before}"))
            }
            Self::Displaced(before) => {
                f.write_str("not chosen any more")?;
                before.iter().try_for_each(|before| write!(f, "; it was {before}"))
            }
        }
    }
}

/// Why each of `gone` is not there any more, among `chosen`; `before` says why it was, and `were` what the packages were
/// that were there, as far as that is known.
pub(crate) fn reasons_of_the_gone<'n>(
    gone: impl Iterator<Item = &'n str>,
    (were, mut before): (&[&Stanza<'_>], BTreeMap<String, Reason>),
    (chosen, recommends): (&[&Stanza<'_>], bool),
) -> BTreeMap<String, Reason> {
    let fields =
        chosen.iter().flat_map(|s| [s.pre_depends, s.depends, if recommends { s.recommends } else { "" }]);
    let taken: HashSet<&str> = fields.flat_map(relation::groups).flatten().map(|r| r.name).collect();
    // Who asks for a name would take whoever provides it.
    let provided: HashMap<&str, &str> = were.iter().map(|s| (s.name, s.provides)).collect();
    let why = |name: &str| {
        let was = before.remove(name).map(Box::new);
        let mut others = relation::list(provided.get(name).copied().unwrap_or_default());
        let is_taken = taken.contains(name) || others.any(|provided| taken.contains(provided.name));
        let reason = if is_taken { Reason::Displaced(was) } else { Reason::Unneeded(was) };
        (name.to_owned(), reason)
    };
    gone.map(why).collect()
}

/// Why each of `chosen` is there, by name: of several reasons the one nearest to what was asked for, and what needs it
/// before what recommends it. Without `recommends` nothing is there because it is recommended.
pub(crate) fn reasons(
    chosen: &[&Stanza<'_>],
    asked: &[&str],
    base: &[&str],
    recommends: bool,
) -> BTreeMap<String, Reason> {
    let mut found = Found {
        chosen,
        answering: answering(chosen),
        reasons: BTreeMap::new(),
        next: VecDeque::new(),
        looked_at: Vec::new(),
    };
    asked.iter().for_each(|name| found.names(name, &Reason::Asked));
    base.iter().for_each(|name| found.names(name, &Reason::Essential));
    found.needs();
    let mut recommending = 0;
    while recommends && recommending < found.looked_at.len() {
        let Stanza { name, recommends, .. } = chosen[found.looked_at[recommending]];
        found.follow(recommends, &Reason::RecommendedBy((*name).to_owned()));
        found.needs();
        recommending += 1;
    }
    found.reasons
}

/// Which of the chosen packages answer to a name: its own, or one it provides.
fn answering<'a>(chosen: &[&Stanza<'a>]) -> HashMap<&'a str, Vec<usize>> {
    let mut all: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, stanza) in chosen.iter().enumerate() {
        all.entry(stanza.name).or_default().insert(0, index);
        for provided in relation::list(stanza.provides) {
            all.entry(provided.name).or_default().push(index);
        }
    }
    all
}

struct Found<'a, 'c> {
    chosen: &'c [&'c Stanza<'a>],
    answering: HashMap<&'a str, Vec<usize>>,
    reasons: BTreeMap<String, Reason>,
    /// Packages with a reason whose own needs were not looked at yet.
    next: VecDeque<usize>,
    /// The others that have a reason.
    looked_at: Vec<usize>,
}

impl Found<'_, '_> {
    /// Who has that name; those that provide it if nobody has.
    fn names(&mut self, name: &str, reason: &Reason) {
        let answering = self.answering.get(name).cloned().unwrap_or_default();
        let has_it = |package: &&usize| self.chosen[**package].name == name;
        let meant = match answering.iter().find(has_it) {
            Some(itself) => vec![*itself],
            None => answering,
        };
        meant.into_iter().for_each(|package| self.found(package, reason));
    }

    /// Whatever is needed, by whomever, before anything that is only recommended.
    fn needs(&mut self) {
        while let Some(package) = self.next.pop_front() {
            let Stanza { name, pre_depends, depends, .. } = self.chosen[package];
            for field in [pre_depends, depends] {
                self.follow(field, &Reason::NeededBy((*name).to_owned()));
            }
            self.looked_at.push(package);
        }
    }

    fn follow(&mut self, field: &str, reason: &Reason) {
        for group in relation::groups(field) {
            let meets = |relation: &Relation<'_>| {
                self.answering.get(relation.name).and_then(|all| all.first()).copied()
            };
            if let Some(package) = group.iter().find_map(meets) {
                self.found(package, reason);
            }
        }
    }

    fn found(&mut self, package: usize, reason: &Reason) {
        let name = self.chosen[package].name;
        if !self.reasons.contains_key(name) {
            self.reasons.insert(name.to_owned(), reason.clone());
            self.next.push_back(package);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::stanzas;
    use super::*;

    const INDEX: &str = "\
Package: web\nVersion: 1\nArchitecture: all\nDepends: libc6, mail-agent | other, nothing\nRecommends: docs\nFilename: a\nSize: 1\nSHA256: a\n\n\
Package: libc6\nVersion: 1\nArchitecture: all\nFilename: b\nSize: 1\nSHA256: b\n\n\
Package: exim\nVersion: 1\nArchitecture: all\nProvides: mail-agent\nDepends: libc6\nFilename: c\nSize: 1\nSHA256: c\n\n\
Package: docs\nVersion: 1\nArchitecture: all\nFilename: d\nSize: 1\nSHA256: d\n\n\
Package: dpkg\nVersion: 1\nArchitecture: all\nEssential: yes\nFilename: e\nSize: 1\nSHA256: e\n\n";

    #[test]
    fn the_nearest_reason_counts() {
        let all: Vec<Stanza<'_>> = stanzas(INDEX, 0).map(Result::unwrap).collect();
        let chosen: Vec<&Stanza<'_>> = all.iter().collect();
        let reasons = reasons(&chosen, &["web"], &["dpkg"], true);
        let words: Vec<String> = reasons.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        assert_eq!(
            words,
            [
                "docs: recommended by web",
                "dpkg: part of every system",
                "exim: needed by web",
                "libc6: needed by web",
                "web: asked for in kiln.toml",
            ]
        );
    }

    #[test]
    fn what_is_gone_says_who_had_asked_for_it() {
        let all: Vec<Stanza<'_>> = stanzas(INDEX, 0).map(Result::unwrap).collect();
        let of =
            |names: &[&str]| -> Vec<&Stanza<'_>> { all.iter().filter(|s| names.contains(&s.name)).collect() };
        let before = reasons(&of(&["web", "libc6", "exim", "docs", "dpkg"]), &["web"], &["dpkg"], true);
        let words = |chosen: &[&str], gone: &[&str]| -> Vec<String> {
            let gone = gone.iter().copied();
            let were = of(&["web", "libc6", "exim", "docs", "dpkg"]);
            let why = reasons_of_the_gone(gone, (&were, before.clone()), (&of(chosen), false));
            why.iter().map(|(name, reason)| format!("{name}: {reason}")).collect()
        };
        assert_eq!(
            words(&["dpkg"], &["web", "exim", "docs", "perl"]),
            [
                "docs: nothing asks for it any more; it was recommended by web",
                "exim: nothing asks for it any more; it was needed by web",
                "perl: nothing asks for it any more",
                "web: nothing asks for it any more; it was asked for in kiln.toml",
            ]
        );
        // Another one provides what it provided.
        assert_eq!(words(&["web"], &["exim"]), ["exim: not chosen any more; it was needed by web"]);
        assert_eq!(words(&["web", "exim"], &["libc6"]), ["libc6: not chosen any more; it was needed by web"]);
    }

    #[test]
    fn who_only_provides_a_name_was_not_asked_for_where_somebody_has_it() {
        let index = "\
Package: php-fpm\nVersion: 2\nArchitecture: all\nDepends: php8.2-fpm\nFilename: a\nSize: 1\nSHA256: a\n\n\
Package: php8.2-fpm\nVersion: 1\nArchitecture: all\nProvides: php-fpm, mta\nFilename: b\nSize: 1\nSHA256: b\n\n";
        let all: Vec<Stanza<'_>> = stanzas(index, 0).map(Result::unwrap).collect();
        let chosen: Vec<&Stanza<'_>> = all.iter().collect();
        let of = |asked| reasons(&chosen, &[asked], &[], true).remove("php8.2-fpm");
        assert_eq!(of("php-fpm"), Some(Reason::NeededBy("php-fpm".into())));
        assert_eq!(of("mta"), Some(Reason::Asked), "nobody else has that name");
    }

    const NEAR_AND_FAR: &str = "\
Package: base\nVersion: 1\nArchitecture: all\nEssential: yes\nRecommends: debconf\nFilename: a\nSize: 1\nSHA256: a\n\n\
Package: web\nVersion: 1\nArchitecture: all\nDepends: helper\nFilename: b\nSize: 1\nSHA256: b\n\n\
Package: helper\nVersion: 1\nArchitecture: all\nDepends: debconf\nFilename: c\nSize: 1\nSHA256: c\n\n\
Package: debconf\nVersion: 1\nArchitecture: all\nRecommends: web\nFilename: d\nSize: 1\nSHA256: d\n\n";

    #[test]
    fn what_is_needed_from_afar_is_not_there_because_it_is_recommended_nearby() {
        let all: Vec<Stanza<'_>> = stanzas(NEAR_AND_FAR, 0).map(Result::unwrap).collect();
        let chosen: Vec<&Stanza<'_>> = all.iter().collect();
        for recommends in [true, false] {
            let reasons = reasons(&chosen, &["web"], &["base"], recommends);
            assert_eq!(reasons["debconf"], Reason::NeededBy("helper".into()), "recommends = {recommends}");
        }
        let without = reasons(&chosen, &[], &["base"], false);
        assert!(!without.contains_key("debconf"), "{without:?}");
    }
}
