//! What can be chosen from: the one candidate of each package name, and who provides what.

use std::collections::HashMap;

use super::index::Stanza;
use super::relation::{self, Relation};
use super::version;

/// Which version of a package is preferred.
pub(crate) trait Preference {
    /// Whether `version` of the package is allowed at all.
    fn allows(&self, name: &str, version: &str) -> bool;
    /// Whether it is wanted before a higher one.
    fn prefers(&self, name: &str, version: &str) -> bool;
}

/// All packages of some indexes, one version of each name.
pub(crate) struct Universe<'a> {
    stanzas: &'a [Stanza<'a>],
    candidates: HashMap<&'a str, usize>,
    providers: HashMap<&'a str, Vec<(usize, Option<&'a str>)>>,
}

impl<'a> Universe<'a> {
    /// Of each name the preferred version, else the highest one allowed; between equal ones that of the first index.
    pub(crate) fn new(stanzas: &'a [Stanza<'a>], preference: &dyn Preference) -> Self {
        let mut candidates: HashMap<&str, usize> = HashMap::with_capacity(stanzas.len());
        for (i, stanza) in stanzas.iter().enumerate() {
            if !preference.allows(stanza.name, stanza.version) {
                continue;
            }
            let best = candidates.entry(stanza.name).or_insert(i);
            let rank = |s: &Stanza| preference.prefers(s.name, s.version);
            let (old, new) = (&stanzas[*best], stanza);
            let order = rank(new).cmp(&rank(old)).then_with(|| version::compare(new.version, old.version));
            if order.is_gt() {
                *best = i;
            }
        }
        let providers = providers(stanzas, &candidates);
        Self { stanzas, candidates, providers }
    }

    pub(crate) fn stanza(&self, package: usize) -> &'a Stanza<'a> {
        &self.stanzas[package]
    }

    /// The candidate of this very name.
    pub(crate) fn candidate(&self, name: &str) -> Option<usize> {
        self.candidates.get(name).copied()
    }

    /// The candidates that provide `name`, with the version they provide it in.
    pub(crate) fn providers(&self, name: &str) -> &[(usize, Option<&'a str>)] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }

    /// All that meet `relation`, the one to take first at the front: the real package before those that provide the
    /// name, then Essential ones, then by priority, and by name so that the choice is always the same.
    pub(crate) fn targets(&self, relation: &Relation<'_>) -> Vec<usize> {
        let real = self.candidate(relation.name).filter(|p| relation.accepts(self.stanza(*p).version));
        let mut provided: Vec<usize> = self
            .providers(relation.name)
            .iter()
            .filter(|(p, version)| Some(*p) != real && relation.accepts_provided(*version))
            .map(|(p, _)| *p)
            .collect();
        provided.sort_by_key(|p| {
            let s = self.stanza(*p);
            (!s.essential, s.priority, s.name)
        });
        real.into_iter().chain(provided).collect()
    }

    /// The names of all essential packages, sorted.
    pub(crate) fn essential(&self) -> Vec<&'a str> {
        let mut names: Vec<_> =
            self.candidates.iter().filter(|(_, p)| self.stanza(**p).essential).map(|(n, _)| *n).collect();
        names.sort_unstable();
        names
    }

    /// The up to three names that look most like `name`.
    pub(crate) fn nearest(&self, name: &str) -> Vec<String> {
        crate::nearest::nearest(name, self.candidates.keys().copied())
    }
}

fn providers<'a>(
    stanzas: &'a [Stanza<'a>],
    candidates: &HashMap<&'a str, usize>,
) -> HashMap<&'a str, Vec<(usize, Option<&'a str>)>> {
    let mut providers: HashMap<_, Vec<_>> = HashMap::new();
    for (i, stanza) in stanzas.iter().enumerate() {
        if stanza.provides.is_empty() || candidates.get(stanza.name) != Some(&i) {
            continue;
        }
        for provided in relation::list(stanza.provides) {
            let version = provided.version.map(|(_, v)| v);
            providers.entry(provided.name).or_default().push((i, version));
        }
    }
    providers
}
