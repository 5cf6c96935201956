//! The packages of a lock, unpacked: from the cache, else from the store's package files, else from the mirror.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use kiln_model::{Content, LockedPackage, Node, Sha256, Tree};
use kiln_store::{Look, Store};
use rayon::prelude::*;

use super::deb::{self, Deb};
use super::sources::{self, Source};
use crate::fetch::{CONNECTIONS, Client, FetchError};
use crate::order::{BakeOrder, Report};
use crate::report::Task;
use crate::{BakeError, tree_file};

/// Unpacked packages, under the sha256 of the package file. The number changes with the format.
const CACHE: &str = "debian-unpacked-1";

/// All `packages`, in their order. Afterwards the objects they refer to are in the store.
pub(crate) fn unpacked(
    order: &BakeOrder,
    packages: &[LockedPackage],
    store: &Store,
    report: &dyn Report,
) -> Result<Vec<Deb>, BakeError> {
    let mut debs: Vec<Option<Deb>> = packages.par_iter().map(|p| from_cache(store, &p.sha256)).collect();
    let missing: Vec<usize> = (0..packages.len()).filter(|i| debs[*i].is_none()).collect();
    if !missing.is_empty() {
        let wanted: Vec<&LockedPackage> = missing.iter().map(|i| &packages[*i]).collect();
        fetch_missing(order, &wanted, store, report)?;
        for (place, deb) in missing.into_iter().zip(unpack_all(&wanted, store, report)?) {
            debs[place] = Some(deb);
        }
    }
    Ok(debs.into_iter().flatten().collect())
}

/// An unpacked package whose objects are all still there.
fn from_cache(store: &Store, sha256: &Sha256) -> Option<Deb> {
    let bytes = store.cache_get(CACHE, sha256)?;
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (control, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let deb = Deb { control: tree_file::decode(control).ok()?, data: tree_file::decode(data).ok()? };
    has_objects(store, CACHE, sha256, &deb.data).then_some(deb)
}

fn to_cache(store: &Store, sha256: &Sha256, deb: &Deb) -> Result<(), BakeError> {
    let control = tree_file::encode(&deb.control);
    let mut bytes = (control.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&control);
    bytes.extend_from_slice(&tree_file::encode(&deb.data));
    Ok(store.cache_put(CACHE, sha256, &bytes)?)
}

/// Whether the store has every object that `tree` refers to: caches outlive objects that were collected. The tree comes
/// from the cache, under `key`.
pub(crate) fn has_objects(store: &Store, cache: &str, key: &Sha256, tree: &Tree) -> bool {
    let wanted = |(_, node): (&[u8], &Node)| match node {
        Node::File(_, Content::Object { digest, size }) => Some((*digest, Some(*size))),
        _ => None,
    };
    // What is in a cache was written when its objects were there.
    let since = store.cache_written(cache, key);
    store.has_all(key, Look::Glance, since, || Ok(tree.iter().filter_map(wanted).collect())).unwrap_or(false)
}

fn unpack_all(
    packages: &[&LockedPackage],
    store: &Store,
    report: &dyn Report,
) -> Result<Vec<Deb>, BakeError> {
    let task = Task::new(report, "unpacking packages", "packages", Some(packages.len() as u64));
    let batch = store.objects().batch()?;
    let unpack = |package: &&LockedPackage| -> Result<Deb, BakeError> {
        if report.cancelled() {
            return Err(BakeError::Cancelled);
        }
        let path =
            store.package(&package.sha256)?.ok_or_else(|| BakeError::PackageGone(package.name.clone()))?;
        let deb = unpack_one(package, &path, &batch)?;
        task.add(1);
        Ok(deb)
    };
    let debs = packages.par_iter().map(unpack).collect::<Result<Vec<_>, _>>()?;
    batch.commit()?;
    packages.par_iter().zip(&debs).try_for_each(|(p, deb)| to_cache(store, &p.sha256, deb))?;
    task.finish();
    Ok(debs)
}

fn unpack_one(package: &LockedPackage, path: &Path, batch: &kiln_store::Batch) -> Result<Deb, BakeError> {
    let file = File::open(path).map_err(|e| BakeError::io("open the package", path, e))?;
    deb::unpack(BufReader::with_capacity(256 << 10, file), deb::most_data(package.size), batch)
        .map_err(|source| BakeError::Deb { package: package.name.clone(), source })
}

/// Brings those of `packages` into the store that are not there yet, several at a time.
fn fetch_missing(
    order: &BakeOrder,
    packages: &[&LockedPackage],
    store: &Store,
    report: &dyn Report,
) -> Result<(), BakeError> {
    let mut absent = Vec::new();
    for package in packages {
        if store.package(&package.sha256)?.is_none() {
            absent.push(*package);
        }
    }
    if absent.is_empty() {
        return Ok(());
    }
    let roots = roots(order)?;
    let bytes = absent.iter().map(|p| p.size).sum();
    let cancelled = || report.cancelled();
    let fetcher = Fetcher {
        store,
        client: Client::new(&cancelled),
        roots,
        task: Task::new(report, "fetching packages", "bytes", Some(bytes)),
    };
    fetcher.all(&absent)?;
    fetcher.task.finish();
    Ok(())
}

/// Where each suite's archive is, now: the lock names suites, and the host says where they are.
fn roots(order: &BakeOrder) -> Result<HashMap<String, String>, BakeError> {
    let sources =
        sources::of_order(order, Path::new("/")).map_err(crate::debian::archive::ArchiveError::Sources)?;
    Ok(sources.into_iter().map(|Source { root, suite, .. }| (suite, root)).collect())
}

struct Fetcher<'a> {
    store: &'a Store,
    client: Client<'a>,
    roots: HashMap<String, String>,
    task: Task<'a>,
}

impl Fetcher<'_> {
    /// The first failure ends it all; what has arrived stays.
    fn all(&self, packages: &[&LockedPackage]) -> Result<(), BakeError> {
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let work = || {
            while let Some(package) = packages.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.one(package) {
                    next.store(packages.len(), Ordering::Relaxed);
                    failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..CONNECTIONS.min(packages.len()) {
                scope.spawn(work);
            }
        });
        failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
    }

    fn one(&self, package: &LockedPackage) -> Result<(), BakeError> {
        let root = self.roots.get(&package.suite).ok_or_else(|| BakeError::NoSourceOfPackage {
            package: package.name.clone(),
            suite: package.suite.clone(),
        })?;
        // A `:` or `~` in a name is written as it is; `%` is what archives have already encoded.
        let url = format!("{root}/{}", package.path);
        let bytes = self
            .client
            .get_verified(&url, package.size, package.sha256, &|n| self.task.add(n))
            .map_err(|e| match e {
                FetchError::Cancelled => BakeError::Cancelled,
                source => BakeError::Fetch { package: package.name.clone(), source },
            })?;
        self.store.put_package(&package.sha256, &mut bytes.as_slice())?;
        Ok(())
    }
}
