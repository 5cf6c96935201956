//! From orders to a lock: every package pinned by hash.

use std::collections::HashMap;
use std::path::Path;

use jiff::fmt::rfc2822::DateTimeParser;
use kiln_model::{ImageName, Lock, LockedImage, LockedPackage};
use kiln_store::Store;

use crate::debian::archive::{Archive, ArchiveError, Opener};
use crate::debian::index::{Stanza, stanzas};
use crate::debian::resolver::resolve;
use crate::debian::sources;
use crate::debian::universe::{Preference, Universe};
use crate::debian::version;
use crate::fetch::Client;
use crate::order::{BakeOrder, Base, Report, Sources, Update};
use crate::report::Task;
use crate::{BakeError, LockProblem};

/// The essential packages need either this or a package that moves directories about; the tree is merged from the
/// start.
const MERGED: &str = "usr-is-merged";

/// The lock that answers all `orders`. What `old` already answers is taken over, and the network asked only for the
/// rest; where an image's packages are chosen anew, those that stay keep their versions as far as `update` allows
/// and the archive still offers them.
///
/// # Errors
/// If a request cannot be met, or the archive's indexes cannot be had or trusted.
pub fn lock(
    orders: &[BakeOrder],
    old: Option<&Lock>,
    update: &Update,
    store: &Store,
    report: &dyn Report,
) -> Result<Lock, BakeError> {
    let mut locker = Locker { old, update, store, report, archives: Vec::new() };
    let mut lock = Lock::default();
    for order in orders {
        lock.images.insert(order.image.clone(), locker.image(order)?);
    }
    Ok(lock)
}

/// The answer of `lock` to `order`.
///
/// # Errors
/// If it has none, or one to another request.
pub(crate) fn answer<'l>(order: &BakeOrder, lock: &'l Lock) -> Result<&'l LockedImage, BakeError> {
    let problem = match lock.images.get(&order.image) {
        None => LockProblem::Missing,
        Some(locked) if locked.request != order.lock_request() => LockProblem::Stale,
        Some(locked) => return Ok(locked),
    };
    Err(BakeError::Lock { image: order.image.clone(), problem })
}

struct Locker<'a> {
    old: Option<&'a Lock>,
    update: &'a Update,
    store: &'a Store,
    report: &'a dyn Report,
    archives: Vec<((String, String, Sources), Archive)>,
}

impl Locker<'_> {
    fn image(&mut self, order: &BakeOrder) -> Result<LockedImage, BakeError> {
        let request = order.lock_request();
        let old = self.old.and_then(|lock| lock.images.get(&order.image));
        if let Some(old) = old.filter(|o| o.request == request && self.stays(o)) {
            return Ok(old.clone());
        }
        let suite = match &order.from {
            Base::Scratch if order.packages.is_empty() => {
                return Ok(LockedImage { request, indexes: Vec::new(), packages: Vec::new() });
            }
            Base::Scratch => return Err(BakeError::ScratchWithPackages(order.image.clone())),
            Base::Debian { suite } => suite.clone(),
        };
        let preference = Pins::new(order, old, self.update);
        let archive = self.archive(&suite, order)?;
        let packages = choose(order, archive, &preference)?;
        Ok(LockedImage { request, indexes: archive.indexes.clone(), packages })
    }

    /// Whether nothing of what an image has locked is to be let go.
    fn stays(&self, locked: &LockedImage) -> bool {
        match self.update {
            Update::Nothing => true,
            Update::All => false,
            Update::Packages(names) => !locked.packages.iter().any(|p| names.contains(&p.name)),
        }
    }

    fn archive(&mut self, suite: &str, order: &BakeOrder) -> Result<&Archive, BakeError> {
        let key = (suite.to_owned(), order.architecture.clone(), order.sources.clone());
        let known = self.archives.iter().position(|(k, _)| *k == key);
        let place = match known {
            Some(place) => place,
            None => {
                let archive = self.open(suite, order)?;
                self.archives.push((key, archive));
                self.archives.len() - 1
            }
        };
        Ok(&self.archives[place].1)
    }

    fn open(&self, suite: &str, order: &BakeOrder) -> Result<Archive, BakeError> {
        let task = Task::new(self.report, "fetching package indexes", "bytes", None);
        let cancelled = || self.report.cancelled();
        let client = Client::new(&cancelled);
        let sources =
            sources::sources(suite, &order.sources, Path::new("/")).map_err(ArchiveError::Sources)?;
        let opener = Opener {
            store: self.store,
            client: &client,
            architecture: &order.architecture,
            seen: &|suite| self.seen(suite),
        };
        let archive = opener.open(&sources, &task)?;
        task.finish();
        Ok(archive)
    }

    /// The latest date that the old lock has of a suite's index: who offers an older one hides updates from us.
    fn seen(&self, suite: &str) -> Option<String> {
        let all = self.old.iter().flat_map(|lock| lock.images.values()).flat_map(|image| &image.indexes);
        let parsed = |date: &str| DateTimeParser::new().parse_timestamp(date.replace("UTC", "+0000")).ok();
        all.filter(|i| i.suite == suite).map(|i| &i.date).max_by_key(|d| parsed(d)).cloned()
    }
}

fn choose(order: &BakeOrder, archive: &Archive, preference: &Pins) -> Result<Vec<LockedPackage>, BakeError> {
    let unresolvable = |source| BakeError::Unresolvable { image: order.image.clone(), source };
    let stanzas = all_stanzas(archive)?;
    preference.check(&stanzas).map_err(unresolvable)?;
    let universe = Universe::new(&stanzas, preference);
    let base = universe.essential();
    let merged = universe.candidate(MERGED).map(|_| MERGED);
    let asked = order.packages.iter().map(|p| name_and_pin(p).0);
    let wanted: Vec<&str> = asked.chain(base).chain(merged).collect();
    let chosen = resolve(&universe, &wanted, order.recommends).map_err(unresolvable)?;
    let mut packages = chosen
        .into_iter()
        .map(|p| locked(universe.stanza(p), archive, &order.image))
        .collect::<Result<Vec<_>, _>>()?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

fn all_stanzas(archive: &Archive) -> Result<Vec<Stanza<'_>>, BakeError> {
    let mut all = Vec::new();
    for (i, text) in archive.texts.iter().enumerate() {
        for stanza in stanzas(text, i) {
            all.push(stanza.map_err(ArchiveError::Index)?);
        }
    }
    Ok(all)
}

fn locked(stanza: &Stanza<'_>, archive: &Archive, image: &ImageName) -> Result<LockedPackage, BakeError> {
    let suite = archive.indexes[stanza.source].suite.clone();
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

/// `nginx=1.22.*` in its two parts.
fn name_and_pin(package: &str) -> (&str, Option<&str>) {
    package.split_once('=').map_or((package, None), |(name, pin)| (name, Some(pin)))
}

/// What the order demands, and what the old lock would have stay.
struct Pins {
    demanded: HashMap<String, String>,
    kept: HashMap<String, String>,
}

impl Pins {
    fn new(order: &BakeOrder, old: Option<&LockedImage>, update: &Update) -> Self {
        let demanded = order.packages.iter().filter_map(|p| {
            let (name, pin) = name_and_pin(p);
            Some((name.to_owned(), pin?.to_owned()))
        });
        let stays = |name: &String| match update {
            Update::Nothing => true,
            Update::All => false,
            Update::Packages(names) => !names.contains(name),
        };
        let kept = old.iter().flat_map(|o| &o.packages).filter(|p| stays(&p.name));
        Self {
            demanded: demanded.collect(),
            kept: kept.map(|p| (p.name.clone(), p.version.clone())).collect(),
        }
    }

    /// Whether each demanded version exists.
    fn check(&self, stanzas: &[Stanza<'_>]) -> Result<(), crate::Unresolvable> {
        for (name, pin) in &self.demanded {
            let offered: Vec<_> = stanzas.iter().filter(|s| s.name == name).map(|s| s.version).collect();
            // A package that does not exist at all is the resolver's to report.
            if !offered.is_empty() && !offered.iter().any(|v| version::matches_pin(v, pin)) {
                let offered = offered.into_iter().map(str::to_owned).collect();
                return Err(crate::Unresolvable::NoVersion {
                    name: name.clone(),
                    wanted: pin.clone(),
                    offered,
                });
            }
        }
        Ok(())
    }
}

impl Preference for Pins {
    fn allows(&self, name: &str, version: &str) -> bool {
        self.demanded.get(name).is_none_or(|pin| version::matches_pin(version, pin))
    }

    fn prefers(&self, name: &str, version: &str) -> bool {
        self.kept.get(name).is_some_and(|kept| kept == version)
    }
}
