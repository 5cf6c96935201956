//! Which packages an image gets: what the order asks for, and what of the old lock stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kiln_model::{ImageName, LockedImage, LockedPackage};

use super::archive::{Archive, ArchiveError};
use super::index::{Stanza, stanzas};
use super::reasons::{Reason, reasons, reasons_of_the_gone};
use super::resolver::{Unresolvable, no_package, resolve};
use super::universe::{Preference, Rank, Universe};
use super::version;
use crate::BakeError;
use crate::order::{BakeOrder, Update};

/// The essential packages need either this or a package that moves directories about; the tree is merged from the
/// start.
pub(crate) const MERGED: &str = "usr-is-merged";

/// All stanzas of all indexes of `archive`.
pub(crate) fn stanzas_of(archive: &Archive) -> Result<Vec<Stanza<'_>>, BakeError> {
    let mut all = Vec::new();
    for (i, text) in archive.texts.iter().enumerate() {
        for stanza in stanzas(text, i) {
            all.push(stanza.map_err(ArchiveError::Index)?);
        }
    }
    Ok(all)
}

/// The packages of `order`, sorted by name, and why each is there, or is gone that was in `old`. Where they are chosen anew,
/// those of `old` keep their versions as far as `update` allows.
pub(crate) fn choose(
    order: &BakeOrder,
    archive: &Archive,
    all: &[Stanza<'_>],
    old: Option<&LockedImage>,
    update: &Update,
) -> Result<(Vec<LockedPackage>, BTreeMap<String, Reason>), BakeError> {
    let unresolvable = |source| BakeError::Unresolvable { image: order.image.clone(), source };
    let preference = Wishes::new(order, archive, old, update);
    preference.check(all).map_err(unresolvable)?;
    let universe = Universe::new(all, &preference);
    preference.check_names(&universe).map_err(unresolvable)?;
    let suite = archive.sources.first().map(|s| s.of.as_str());
    let base = universe.essential(|source| Some(archive.sources[source].of.as_str()) == suite);
    let merged = universe.candidate(MERGED).map(|_| MERGED);
    // In an order that does not depend on how the spec lists them: what is chosen first narrows what comes behind.
    let asked: BTreeSet<&str> = order.packages.iter().map(|p| Wish::new(p).name).collect();
    let asked: Vec<&str> = asked.into_iter().collect();
    let base: Vec<&str> = base.into_iter().chain(merged).collect();
    let wanted: Vec<&str> = asked.iter().chain(&base).copied().collect();
    let chosen = resolve(&universe, &wanted, order.recommends).map_err(unresolvable)?;
    let stanzas: Vec<&Stanza<'_>> = chosen.iter().map(|p| universe.stanza(*p)).collect();
    let mut why = reasons(&stanzas, &asked, &base, order.recommends);
    if let Some(old) = old {
        why.extend(no_longer(old, all, &base, (&stanzas, order.recommends)));
    }
    let mut packages = chosen
        .into_iter()
        .map(|p| locked(universe.stanza(p), archive, (&order.image, &order.architecture)))
        .collect::<Result<Vec<_>, _>>()?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((packages, why))
}

/// Why each package of `old` is gone that is not among `chosen`. Who had asked for it is told as far as the archive still
/// offers the versions that were there, which alone say what they need.
fn no_longer(
    old: &LockedImage,
    all: &[Stanza<'_>],
    base: &[&str],
    (chosen, recommends): (&[&Stanza<'_>], bool),
) -> BTreeMap<String, Reason> {
    let versions: HashMap<&str, &str> =
        old.packages.iter().map(|p| (p.name.as_str(), p.version.as_str())).collect();
    let mut were: BTreeMap<&str, &Stanza<'_>> = BTreeMap::new();
    for stanza in all.iter().filter(|s| versions.get(s.name) == Some(&s.version)) {
        were.entry(stanza.name).or_insert(stanza);
    }
    let were: Vec<&Stanza<'_>> = were.into_values().collect();
    let asked: Vec<&str> = old.request.requested.iter().map(|p| Wish::new(p).name).collect();
    let before = reasons(&were, &asked, base, old.request.recommends);
    let there: BTreeSet<&str> = chosen.iter().map(|s| s.name).collect();
    let gone = old.packages.iter().map(|p| p.name.as_str()).filter(|name| !there.contains(name));
    reasons_of_the_gone(gone, (&were, before), (chosen, recommends))
}

fn locked(
    stanza: &Stanza<'_>,
    archive: &Archive,
    (image, wanted): (&ImageName, &str),
) -> Result<LockedPackage, BakeError> {
    let suite = archive.indexes[stanza.source].suite.clone();
    if ![wanted, "all"].contains(&stanza.architecture) {
        let Stanza { name, architecture, .. } = stanza;
        let problem =
            format!("package `{name}` of image `{image}` is for {architecture}, in a list for {wanted}");
        return Err(ArchiveError::Damaged { suite, problem }.into());
    }
    let sha256 = stanza.sha256.parse().map_err(|_| ArchiveError::Damaged {
        suite: suite.clone(),
        problem: format!("package `{}` of image `{image}` has no usable sha256", stanza.name),
    })?;
    Ok(LockedPackage {
        name: stanza.name.into(),
        version: stanza.version.into(),
        architecture: stanza.architecture.into(),
        suite,
        path: stanza.path.into(),
        size: stanza.size,
        sha256,
    })
}

/// A package asked for, in its parts: `nginx`, `nginx=1.22.*` or `nginx/bookworm-backports`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish<'a> {
    pub(crate) name: &'a str,
    demand: Demand<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand<'a> {
    Any,
    Version(&'a str),
    Suite(&'a str),
}

impl<'a> Wish<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        if let Some((name, version)) = text.split_once('=') {
            return Self { name, demand: Demand::Version(version) };
        }
        match text.split_once('/') {
            Some((name, suite)) => Self { name, demand: Demand::Suite(suite) },
            None => Self { name: text, demand: Demand::Any },
        }
    }
}

/// What the order demands, and what the old lock would have stay.
struct Wishes<'a> {
    demanded: HashMap<&'a str, Vec<Demand<'a>>>,
    kept: HashMap<&'a str, &'a str>,
    /// Suite and priority of each index.
    sources: Vec<(&'a str, u16)>,
}

impl<'a> Wishes<'a> {
    fn new(
        order: &'a BakeOrder,
        archive: &'a Archive,
        old: Option<&'a LockedImage>,
        update: &Update,
    ) -> Self {
        let mut demanded: HashMap<_, Vec<_>> = HashMap::new();
        for Wish { name, demand } in order.packages.iter().map(|p| Wish::new(p)) {
            if demand != Demand::Any {
                demanded.entry(name).or_default().push(demand);
            }
        }
        let stays = |name: &String| match update {
            Update::Nothing => true,
            Update::All => false,
            Update::Packages(names) => !names.contains(name),
        };
        let kept = old.iter().flat_map(|o| &o.packages).filter(|p| stays(&p.name));
        let sources = archive.sources.iter().map(|s| (s.of.as_str(), s.priority));
        Self {
            demanded,
            kept: kept.map(|p| (p.name.as_str(), p.version.as_str())).collect(),
            sources: sources.collect(),
        }
    }

    fn meets(&self, stanza: &Stanza<'_>, demand: &Demand<'_>) -> bool {
        match demand {
            Demand::Any => true,
            Demand::Version(pin) => version::matches_pin(stanza.version, pin),
            Demand::Suite(suite) => self.sources[stanza.source].0 == *suite,
        }
    }

    /// Whether each demanded version exists.
    fn check(&self, stanzas: &[Stanza<'_>]) -> Result<(), Unresolvable> {
        for (name, demands) in &self.demanded {
            let all: Vec<&Stanza<'_>> = stanzas.iter().filter(|s| s.name == *name).collect();
            // A package that does not exist at all is the resolver's to report.
            if !all.is_empty() && !all.iter().any(|s| self.allows(s)) {
                let offered = |s: &&Stanza<'_>| format!("{} ({})", s.version, self.sources[s.source].0);
                return Err(Unresolvable::NoVersion {
                    name: (*name).to_owned(),
                    wanted: demands.iter().map(ToString::to_string).collect::<Vec<_>>().join("` and `"),
                    offered: all.iter().map(offered).collect(),
                });
            }
        }
        Ok(())
    }

    /// Whether each name a version is demanded of is that of a package: of a name that others provide there is none.
    fn check_names(&self, universe: &Universe<'_>) -> Result<(), Unresolvable> {
        let missing = self.demanded.keys().filter(|name| universe.candidate(name).is_none()).min();
        missing.map_or(Ok(()), |name| Err(no_package(universe, name)))
    }
}

impl std::fmt::Display for Demand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::Version(version) => f.write_str(version),
            Self::Suite(suite) => write!(f, "of {suite}"),
        }
    }
}

impl Preference for Wishes<'_> {
    fn allows(&self, stanza: &Stanza<'_>) -> bool {
        self.demanded.get(stanza.name).is_none_or(|all| all.iter().all(|d| self.meets(stanza, d)))
    }

    fn rank(&self, stanza: &Stanza<'_>) -> Rank {
        let kept = self.kept.get(stanza.name).is_some_and(|kept| *kept == stanza.version);
        (kept, self.sources[stanza.source].1)
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::{LockedIndex, Sha256};

    use super::*;

    #[test]
    fn a_wish_has_a_name_and_maybe_a_demand() {
        let wish = |text| Wish::new(text);
        assert_eq!(wish("nginx"), Wish { name: "nginx", demand: Demand::Any });
        assert_eq!(wish("nginx=1.22.*").demand, Demand::Version("1.22.*"));
        assert_eq!(wish("curl/bookworm-backports").demand, Demand::Suite("bookworm-backports"));
        assert_eq!(wish("a=1/2").demand, Demand::Version("1/2"));
    }

    #[test]
    fn a_package_for_another_machine_is_refused() {
        let index = LockedIndex { suite: "bookworm".into(), date: String::new(), sha256: Sha256([0; 32]) };
        let archive = Archive { texts: Vec::new(), indexes: vec![index], sources: Vec::new() };
        let image = "web".parse().unwrap();
        let digest = "0".repeat(64);
        let of = |architecture| {
            let stanza = Stanza { name: "x", architecture, sha256: &digest, ..Stanza::default() };
            locked(&stanza, &archive, (&image, "amd64")).map(|p| p.architecture).map_err(|e| e.to_string())
        };
        assert_eq!([of("amd64"), of("all")], [Ok("amd64".into()), Ok("all".into())]);
        let foreign = of("i386").unwrap_err();
        assert!(
            foreign.ends_with("package `x` of image `web` is for i386, in a list for amd64"),
            "{foreign}"
        );
    }
}
