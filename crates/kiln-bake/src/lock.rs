//! From orders to a lock: every package pinned by hash.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::fmt::rfc2822::DateTimeParser;
use kiln_model::{ImageName, Lock, LockRequest, LockedImage, LockedPackage};
use kiln_store::Store;

use crate::debian::archive::{Archive, ArchiveError, Opener};
use crate::debian::choice;
use crate::debian::reasons::Reason;
use crate::debian::sources::{self, Source};
use crate::fetch::Client;
use crate::order::{BakeOrder, Base, Report, Update};
use crate::report::Task;
use crate::{BakeError, LockProblem, oci};

/// The lock that answers all `orders`. What `old` already answers is taken over, and the network asked only for the
/// rest; where an image's packages are chosen anew, those that stay keep their versions as far as `update` allows
/// and the archive still offers them.
///
/// # Errors
/// If a request cannot be met, the archive's indexes cannot be had or trusted, or what would be taken over has packages
/// for other machines.
pub fn lock(
    orders: &[BakeOrder],
    old: Option<&Lock>,
    update: &Update,
    store: &Store,
    report: &dyn Report,
) -> Result<Lock, BakeError> {
    lock_with_reasons(orders, old, update, store, report).map(|(lock, _)| lock)
}

/// Why the packages of an image are there, or are not any more, by the name of each; of images that were chosen anew.
pub type Reasons = BTreeMap<ImageName, BTreeMap<String, Reason>>;

/// As [`lock`], and why each package is there.
///
/// # Errors
/// As [`lock`].
pub fn lock_with_reasons(
    orders: &[BakeOrder],
    old: Option<&Lock>,
    update: &Update,
    store: &Store,
    report: &dyn Report,
) -> Result<(Lock, Reasons), BakeError> {
    let mut locker = Locker { old, update, store, report, archives: Vec::new() };
    let mut lock = Lock::default();
    let mut open = Vec::new();
    let mut reasons = Reasons::new();
    for order in orders {
        match locker.image(order)? {
            Ok(locked) => drop(lock.images.insert(order.image.clone(), locked)),
            Err(question) => open.push(question),
        }
    }
    // All at once: reading an archive takes longer than choosing from it.
    for (place, (_, _, archive)) in locker.archives.iter().enumerate() {
        let stanzas = choice::stanzas_of(archive)?;
        for Open { order, old, .. } in open.iter().filter(|o| o.archive == place) {
            let (packages, why) = choice::choose(order, archive, &stanzas, *old, update)?;
            reasons.insert(order.image.clone(), why);
            let locked = LockedImage {
                request: order.lock_request().in_order_of(old.map(|o| &o.request)),
                oci: None,
                handmade: None,
                indexes: archive.indexes.clone(),
                packages,
            };
            lock.images.insert(order.image.clone(), locked);
        }
    }
    Ok((lock, reasons))
}

/// The answer of `lock` to `order`.
///
/// # Errors
/// If it has none, one to another request, or one with packages for other machines.
pub(crate) fn answer<'l>(order: &BakeOrder, lock: &'l Lock) -> Result<&'l LockedImage, BakeError> {
    let problem = match lock.images.get(&order.image) {
        None => LockProblem::Missing,
        Some(locked) if !locked.request.asks_the_same(&order.lock_request()) => LockProblem::Stale,
        Some(locked) => return of_one_architecture(order, locked).map(|()| locked),
    };
    Err(BakeError::Lock { image: order.image.clone(), problem })
}

/// Refuses packages that no machine of the order's architecture can run, whatever chose them.
fn of_one_architecture(order: &BakeOrder, locked: &LockedImage) -> Result<(), BakeError> {
    let wanted = order.architecture.as_str();
    let foreign = locked.packages.iter().find(|p| ![wanted, "all"].contains(&p.architecture.as_str()));
    let Some(LockedPackage { name, architecture, .. }) = foreign else { return Ok(()) };
    let (package, architecture) = (name.clone(), architecture.clone());
    let problem = LockProblem::Foreign { package, architecture, wanted: wanted.into() };
    Err(BakeError::Lock { image: order.image.clone(), problem })
}

fn without_packages(request: LockRequest) -> LockedImage {
    LockedImage { request, oci: None, handmade: None, indexes: Vec::new(), packages: Vec::new() }
}

/// An order that needs an answer from an archive, and which of them.
struct Open<'a> {
    order: &'a BakeOrder,
    old: Option<&'a LockedImage>,
    archive: usize,
}

struct Locker<'a> {
    old: Option<&'a Lock>,
    update: &'a Update,
    store: &'a Store,
    report: &'a dyn Report,
    archives: Vec<(Vec<Source>, String, Archive)>,
}

impl<'a> Locker<'a> {
    /// What needs no archive, or the question for one.
    fn image(&mut self, order: &'a BakeOrder) -> Result<Result<LockedImage, Open<'a>>, BakeError> {
        let request = order.lock_request();
        let old = self.old.and_then(|lock| lock.images.get(&order.image));
        if let Some(old) = old.filter(|o| o.request.asks_the_same(&request) && self.stays(order, o)) {
            of_one_architecture(order, old)?;
            return Ok(Ok(old.clone()));
        }
        match &order.from {
            Base::Scratch if order.packages.is_empty() => Ok(Ok(without_packages(request))),
            Base::Oci(reference) => {
                let oci = oci::lock(reference, order, self.store, self.report)?;
                Ok(Ok(LockedImage { oci: Some(oci), ..without_packages(request) }))
            }
            Base::Handmade(name) => {
                let named = self.store.handmade()?;
                let digest = named.get(name).copied().ok_or_else(|| BakeError::HandmadeGone {
                    image: order.image.clone(),
                    from: order.from.to_string(),
                })?;
                Ok(Ok(LockedImage { handmade: Some(digest), ..without_packages(request) }))
            }
            Base::Scratch => Err(BakeError::ScratchWithPackages(order.image.clone())),
            Base::Debian { .. } => Ok(Err(Open { order, old, archive: self.archive(order)? })),
        }
    }

    /// Whether nothing of what an image has locked is to be let go.
    fn stays(&self, order: &BakeOrder, locked: &LockedImage) -> bool {
        match self.update {
            Update::Nothing => true,
            Update::All => false,
            Update::Packages(names) => {
                let image = (locked.oci.is_some() || locked.handmade.is_some())
                    && names.iter().any(|name| name == order.image.as_str());
                !image && !locked.packages.iter().any(|p| names.contains(&p.name))
            }
        }
    }

    /// Which of the archives has the suites of `order`; each is opened once.
    fn archive(&mut self, order: &BakeOrder) -> Result<usize, BakeError> {
        let sources = sources::of_order(order, Path::new("/")).map_err(ArchiveError::Sources)?;
        let known = self.archives.iter().position(|(s, a, _)| *s == sources && *a == order.architecture);
        if let Some(place) = known {
            return Ok(place);
        }
        let archive = self.open(&sources, &order.architecture)?;
        self.archives.push((sources, order.architecture.clone(), archive));
        Ok(self.archives.len() - 1)
    }

    fn open(&self, sources: &[Source], architecture: &str) -> Result<Archive, BakeError> {
        let task = Task::new(self.report, "fetching package indexes", "bytes", None);
        let cancelled = || self.report.cancelled();
        let client = Client::new(&cancelled);
        let seen = &|suite: &str| self.seen(suite);
        let opener = Opener { store: self.store, client: &client, architecture, seen };
        let archive = opener.open(sources, &task)?;
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
