//! Which packages a request comes to: an apt-like greedy search.
//!
//! Greedy in the order that apt chooses in, because operators compare with apt: the packages asked for first, then
//! depth first through dependencies, alternatives from left to right, skipping what is already met. Where a choice
//! turns out to be impossible it is undone and the next alternative tried. No SAT solver: it finds other sets, with
//! packages nobody asked for.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::relation::{self, Relation};
use super::universe::Universe;
use crate::nearest::did_you_mean;

/// More steps than any real request takes; a request that needs more is refused instead of never ending.
const MOST_STEPS: usize = 500_000;
/// Dependency chains in the field are below 100 long; this keeps the recursion within any stack.
const DEEPEST: usize = 2_000;

/// Why a set of packages cannot be installed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolvable {
    /// A package asked for does not exist.
    NoPackage {
        /// Its name.
        name: String,
        /// Names that look like it.
        nearest: Vec<String>,
        /// Packages that provide the name.
        providers: Vec<String>,
    },
    /// A package asked for exists, but not in the version asked for.
    NoVersion {
        /// Its name.
        name: String,
        /// The version asked for.
        wanted: String,
        /// The versions there are.
        offered: Vec<String>,
    },
    /// Two packages exclude each other.
    Conflict {
        /// The package that says so.
        package: String,
        /// What it says.
        relation: String,
        /// The package that is excluded by it.
        other: String,
    },
    /// A dependency cannot be met.
    Dependency {
        /// The package that has it.
        package: String,
        /// The dependency as it is written.
        group: String,
        /// Why it cannot be met; absent if nothing offers it.
        cause: Option<Box<Unresolvable>>,
    },
    /// Two versions of one package are needed.
    TwoVersions {
        /// The one chosen first.
        first: String,
        /// The other.
        second: String,
    },
    /// The search took too many steps.
    TooTangled,
}

impl fmt::Display for Unresolvable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPackage { name, nearest, providers } if providers.is_empty() => {
                write!(f, "there is no package `{name}`{}", did_you_mean(nearest))
            }
            Self::NoPackage { name, providers, .. } => {
                write!(f, "`{name}` is not a package but a name for one of: {}", providers.join(", "))
            }
            Self::NoVersion { name, wanted, offered } => {
                write!(f, "no version of `{name}` is `{wanted}`; offered: {}", offered.join(", "))
            }
            Self::Conflict { package, relation, other } => {
                write!(
                    f,
                    "`{package}` cannot be installed together with `{other}`: it conflicts with {relation}"
                )
            }
            Self::Dependency { package, group, .. } => {
                write!(f, "`{package}` needs {group}, which cannot be met")
            }
            Self::TwoVersions { first, second } => {
                write!(f, "`{second}` is needed as well as `{first}`, and only one of them can be installed")
            }
            Self::TooTangled => write!(f, "no answer was found in {MOST_STEPS} steps"),
        }
    }
}

impl std::error::Error for Unresolvable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Dependency { cause, .. } => cause.as_ref().map(|c| c as _),
            _ => None,
        }
    }
}

/// The packages that `wanted` and everything they need come to, in the order they were chosen.
pub(crate) fn resolve(
    universe: &Universe<'_>,
    wanted: &[&str],
    recommends: bool,
) -> Result<Vec<usize>, Unresolvable> {
    let mut search = Search {
        universe,
        recommends,
        chosen: Vec::new(),
        is_chosen: Default::default(),
        by_name: Default::default(),
        excluded: Vec::new(),
        steps: 0,
        depth: 0,
    };
    // All that was asked for by name is there before any alternative is weighed.
    let named = wanted.iter().map(|name| named(universe, name)).collect::<Result<Vec<_>, _>>()?;
    for package in &named {
        if !search.is_chosen.contains(package) {
            search.take(*package)?;
        }
    }
    for package in named {
        search.complete(package)?;
    }
    Ok(search.chosen)
}

/// The package of that name, or the only one that provides it, as apt takes it.
fn named(universe: &Universe<'_>, name: &str) -> Result<usize, Unresolvable> {
    match (universe.candidate(name), universe.providers(name)) {
        (Some(package), _) => Ok(package),
        (None, [(package, _), others @ ..]) if others.iter().all(|(other, _)| other == package) => {
            Ok(*package)
        }
        _ => Err(no_package(universe, name)),
    }
}

/// Says what there is instead of a package of that name.
pub(crate) fn no_package(universe: &Universe<'_>, name: &str) -> Unresolvable {
    let providers = universe.providers(name).iter().map(|(p, _)| universe.stanza(*p).name.to_owned());
    Unresolvable::NoPackage {
        name: name.into(),
        nearest: universe.nearest(name),
        providers: providers.collect(),
    }
}

struct Search<'u, 'a> {
    universe: &'u Universe<'a>,
    recommends: bool,
    /// Also the journal: undoing is cutting it short.
    chosen: Vec<usize>,
    is_chosen: HashSet<usize>,
    by_name: HashMap<&'a str, usize>,
    /// Who excludes what, in the order of `chosen`.
    excluded: Vec<(usize, Relation<'a>)>,
    steps: usize,
    depth: usize,
}

impl<'a> Search<'_, 'a> {
    fn require(&mut self, package: usize) -> Result<(), Unresolvable> {
        self.take(package)?;
        self.complete(package)
    }

    /// Chooses a package if nothing chosen excludes it, and it excludes nothing chosen.
    fn take(&mut self, package: usize) -> Result<(), Unresolvable> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(Unresolvable::TooTangled);
        }
        let stanza = self.universe.stanza(package);
        if let Some(first) = self.by_name.get(stanza.name) {
            return Err(Unresolvable::TwoVersions { first: self.name(*first), second: self.name(package) });
        }
        let excludes: Vec<_> =
            relation::list(stanza.conflicts).chain(relation::list(stanza.breaks)).collect();
        for relation in &excludes {
            if let Some(other) = self.chosen.iter().find(|c| self.is_meant(relation, **c, package)) {
                return Err(self.conflict(package, relation, *other));
            }
        }
        let refusal = self.excluded.iter().find(|(owner, r)| self.is_meant(r, package, *owner));
        if let Some((owner, relation)) = refusal {
            return Err(self.conflict(*owner, relation, package));
        }
        self.excluded.extend(excludes.into_iter().map(|r| (package, r)));
        self.chosen.push(package);
        self.is_chosen.insert(package);
        self.by_name.insert(stanza.name, package);
        Ok(())
    }

    /// Whether `relation` of `owner` means `package`. A package never excludes itself, even by a name it provides.
    fn is_meant(&self, relation: &Relation<'_>, package: usize, owner: usize) -> bool {
        let stanza = self.universe.stanza(package);
        if package == owner {
            return false;
        }
        if stanza.name == relation.name {
            return relation.accepts(stanza.version);
        }
        !stanza.provides.is_empty()
            && relation::list(stanza.provides)
                .any(|p| p.name == relation.name && relation.accepts_provided(p.version.map(|(_, v)| v)))
    }

    fn conflict(&self, package: usize, relation: &Relation<'_>, other: usize) -> Unresolvable {
        Unresolvable::Conflict {
            package: self.name(package),
            relation: relation.to_string(),
            other: self.name(other),
        }
    }

    /// A package with its version.
    fn name(&self, package: usize) -> String {
        let stanza = self.universe.stanza(package);
        format!("{} {}", stanza.name, stanza.version)
    }

    fn complete(&mut self, package: usize) -> Result<(), Unresolvable> {
        if self.depth > DEEPEST {
            return Err(Unresolvable::TooTangled);
        }
        self.depth += 1;
        let met = self.meet_all(package);
        self.depth -= 1;
        met
    }

    fn meet_all(&mut self, package: usize) -> Result<(), Unresolvable> {
        let stanza = self.universe.stanza(package);
        for group in relation::groups(stanza.pre_depends).chain(relation::groups(stanza.depends)) {
            self.meet(package, &group)?;
        }
        if self.recommends {
            for group in relation::groups(stanza.recommends) {
                // A recommendation that cannot be met is not followed.
                if let Err(Unresolvable::TooTangled) = self.meet(package, &group) {
                    return Err(Unresolvable::TooTangled);
                }
            }
        }
        Ok(())
    }

    fn meet(&mut self, package: usize, group: &[Relation<'a>]) -> Result<(), Unresolvable> {
        if group.iter().any(|relation| self.is_met(relation)) {
            return Ok(());
        }
        let mut first_cause = None;
        let candidates = group.iter().flat_map(|relation| self.universe.targets(relation));
        let ways_out = group.iter().flat_map(|relation| self.universe.ways_out(relation));
        for target in candidates.chain(ways_out) {
            let mark = self.chosen.len();
            match self.require(target) {
                Ok(()) => return Ok(()),
                Err(Unresolvable::TooTangled) => return Err(Unresolvable::TooTangled),
                Err(cause) => {
                    self.undo(mark);
                    first_cause.get_or_insert(Box::new(cause));
                }
            }
        }
        let cause = first_cause.or_else(|| self.not_offered(group).map(Box::new));
        let group = group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        Err(Unresolvable::Dependency { package: self.name(package), group, cause })
    }

    /// Why nothing meets a group: there are other versions, which is worth knowing.
    fn not_offered(&self, group: &[Relation<'_>]) -> Option<Unresolvable> {
        group.iter().find_map(|relation| {
            let offered: Vec<_> =
                self.universe.versions(relation.name).into_iter().map(str::to_owned).collect();
            let wanted = relation.constraint()?;
            (!offered.is_empty()).then(|| Unresolvable::NoVersion {
                name: relation.name.into(),
                wanted,
                offered,
            })
        })
    }

    fn is_met(&self, relation: &Relation<'_>) -> bool {
        let real = self.by_name.get(relation.name);
        let by_itself = |p: &usize| relation.accepts(self.universe.stanza(*p).version);
        let by_another = |(p, version): &(usize, Option<&str>)| {
            self.is_chosen.contains(p) && relation.accepts_provided(*version)
        };
        real.is_some_and(by_itself) || self.universe.providers(relation.name).iter().any(by_another)
    }

    fn undo(&mut self, mark: usize) {
        for package in self.chosen.drain(mark..) {
            self.is_chosen.remove(&package);
            self.by_name.remove(self.universe.stanza(package).name);
        }
        let is_chosen = &self.is_chosen;
        self.excluded.retain(|(owner, _)| is_chosen.contains(owner));
    }
}
