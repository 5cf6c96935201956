//! Root filesystems from Debian packages, without apt and without a Debian host.
//!
//! | module | does |
//! |---|---|
//! | `sources`, `apt_conf` | where packages come from |
//! | `archive`, `signature`, `release`, `index` | signed indexes: fetched, verified, read |
//! | `choice`, `universe`, `resolver`, `relation`, `version` | which packages a request comes to |
//! | `deb`, `unpack`, `package` | packages, unpacked once |
//! | `assemble` | their files in one tree, with dpkg's database |
//! | `plan`, `configure`, `capture`, `normalise` | their own configuration, run for real and made repeatable |

mod apt_conf;
pub(crate) mod archive;
pub(crate) mod assemble;
pub(crate) mod capture;
pub(crate) mod choice;
pub(crate) mod configure;
pub(crate) mod deb;
pub(crate) mod index;
mod normalise;
pub(crate) mod package;
mod plan;
pub(crate) mod relation;
pub(crate) mod release;
pub(crate) mod resolver;
pub(crate) mod signature;
pub(crate) mod sources;
pub(crate) mod universe;
pub(crate) mod unpack;
pub(crate) mod version;

use kiln_model::{Content, LockedImage, Node, Sha256, Tree};
use kiln_store::Store;

use crate::order::{BakeOrder, Report};
use crate::tree_edit::{TreeEdit, root_meta};
use crate::{BakeError, tree_file};
use package::Package;

/// Configured trees, under a digest of all that they come from.
const CACHE: &str = "debian-configured";
/// Changes with everything here that changes what comes out.
pub(crate) const RECIPE: &str = "kiln debian recipe 3";
/// Laid down first: other packages' paths lead through its links.
const FIRST: &str = "base-files";

/// A root filesystem, and the time that stands for "now" in it.
pub(crate) struct Root {
    pub(crate) tree: Tree,
    pub(crate) epoch: i64,
}

/// The configured tree of the packages of `locked`.
pub(crate) fn root(
    order: &BakeOrder,
    locked: &LockedImage,
    store: &Store,
    report: &dyn Report,
) -> Result<Root, BakeError> {
    let key = key(locked);
    if let Some(root) = from_cache(store, &key) {
        return Ok(root);
    }
    let root = make(order, locked, store, report)?;
    let mut bytes = root.epoch.to_le_bytes().to_vec();
    bytes.extend_from_slice(&tree_file::encode(&root.tree));
    store.cache_put(CACHE, &key, &bytes)?;
    Ok(root)
}

fn from_cache(store: &Store, key: &Sha256) -> Option<Root> {
    let bytes = store.cache_get(CACHE, key)?;
    let (epoch, tree) = bytes.split_first_chunk::<8>()?;
    let tree = tree_file::decode(tree).ok()?;
    unpack::has_objects(store, &tree).then_some(Root { tree, epoch: i64::from_le_bytes(*epoch) })
}

/// The packages decide on everything, their order included; the epoch comes from them as well.
fn key(locked: &LockedImage) -> Sha256 {
    let mut text = format!("{RECIPE}\n{}\n", locked.request.architecture);
    for package in &locked.packages {
        text.push_str(&format!("{}\n", package.sha256));
    }
    Sha256::of(text.as_bytes())
}

fn make(
    order: &BakeOrder,
    locked: &LockedImage,
    store: &Store,
    report: &dyn Report,
) -> Result<Root, BakeError> {
    let debs = unpack::unpacked(order, &locked.packages, store, report)?;
    let mut packages = locked
        .packages
        .iter()
        .zip(&debs)
        .map(|(locked, deb)| Package::new(locked, deb))
        .collect::<Result<Vec<_>, _>>()?;
    packages.sort_by_key(|p| p.name() != FIRST);
    let epoch = newest(&packages);
    let batch = store.objects().batch()?;
    let mut edit = TreeEdit::new(assemble::assemble(&packages, &order.architecture, epoch, &batch)?);
    batch.commit()?;
    forbid_services(&mut edit, epoch)?;
    let configured = configure::configured(&packages, edit.into_tree(), epoch, store, report)?;
    Ok(Root { tree: normalise::normalised(configured, epoch)?, epoch })
}

/// The time of the newest file in any package: "now", for a tree that has nothing newer.
fn newest(packages: &[Package<'_>]) -> i64 {
    let times = packages.iter().flat_map(|p| p.data.iter()).filter_map(|(_, node)| node.meta());
    times.map(|m| m.mtime).max().unwrap_or(0)
}

/// Asked by packages that want to start a service: 101 is "no".
fn forbid_services(edit: &mut TreeEdit, epoch: i64) -> Result<(), BakeError> {
    let script = Content::Inline(b"#!/bin/sh\nexit 101\n".to_vec());
    Ok(edit.put(b"/usr/sbin/policy-rc.d", Node::File(root_meta(0o755, epoch), script))?)
}
