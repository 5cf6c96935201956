//! What can be chosen from: the one candidate of each package name, and who provides what.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::index::Stanza;
use super::relation::{self, Relation};
use super::version;

/// Which version of a package is preferred.
pub(crate) trait Preference {
    /// Whether this version of the package is allowed at all.
    fn allows(&self, stanza: &Stanza<'_>) -> bool;
    /// Of two versions the one that ranks higher is preferred; of two of one rank the higher version.
    fn rank(&self, stanza: &Stanza<'_>) -> Rank;
}

/// How much a version is preferred: whether it is the one an image has already, and the priority of its suite.
pub(crate) type Rank = (bool, u16);

/// All packages of some indexes, one version of each name for choice.
pub(crate) struct Universe<'a> {
    stanzas: &'a [Stanza<'a>],
    candidates: HashMap<&'a str, usize>,
    /// Versions that are allowed and not the candidate, the preferred ones first.
    others: HashMap<&'a str, Vec<usize>>,
    providers: HashMap<&'a str, Vec<(usize, Option<&'a str>)>>,
}

impl<'a> Universe<'a> {
    /// Of each name the preferred version; between equal ones that of the first index.
    pub(crate) fn new(stanzas: &'a [Stanza<'a>], preference: &dyn Preference) -> Self {
        let mut candidates: HashMap<&str, usize> = HashMap::with_capacity(stanzas.len());
        let mut others: HashMap<&str, Vec<usize>> = HashMap::new();
        let order = |a: usize, b: usize| {
            let (a, b) = (&stanzas[a], &stanzas[b]);
            preference.rank(a).cmp(&preference.rank(b)).then_with(|| version::compare(a.version, b.version))
        };
        for (i, stanza) in stanzas.iter().enumerate().filter(|(_, s)| preference.allows(s)) {
            match candidates.entry(stanza.name) {
                Entry::Vacant(place) => drop(place.insert(i)),
                Entry::Occupied(mut best) => {
                    let loser = if order(i, *best.get()).is_gt() { best.insert(i) } else { i };
                    others.entry(stanza.name).or_default().push(loser);
                }
            }
        }
        for versions in others.values_mut() {
            versions.sort_by(|a, b| order(*b, *a));
        }
        let providers = providers(stanzas, &candidates);
        Self { stanzas, candidates, others, providers }
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

    /// Versions beside the candidate that meet `relation`: where apt gives up, they are a way out.
    pub(crate) fn ways_out(&self, relation: &Relation<'_>) -> impl Iterator<Item = usize> {
        let others = self.others.get(relation.name).map_or(&[][..], Vec::as_slice);
        others.iter().copied().filter(|p| relation.accepts(self.stanza(*p).version))
    }

    /// Every version that is allowed, the candidate first.
    pub(crate) fn versions(&self, name: &str) -> Vec<&'a str> {
        let others = self.others.get(name).into_iter().flatten().copied();
        self.candidate(name).into_iter().chain(others).map(|p| self.stanza(p).version).collect()
    }

    /// The names of all packages that are essential in the sources `of` the suite, sorted. What only a further suite
    /// calls essential is not needed here.
    pub(crate) fn essential(&self, of: impl Fn(usize) -> bool) -> Vec<&'a str> {
        let essential = self.stanzas.iter().filter(|s| s.essential && of(s.source)).map(|s| s.name);
        let mut names: Vec<_> = essential.filter(|name| self.candidates.contains_key(name)).collect();
        names.sort_unstable();
        names.dedup();
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
