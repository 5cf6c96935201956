//! Root filesystems from Debian packages, without apt and without a Debian host.
//!
//! | module | does |
//! |---|---|
//! | `sources`, `apt_conf` | where packages come from |
//! | `archive`, `signature`, `release`, `index` | signed indexes: fetched, verified, read |
//! | `choice`, `universe`, `resolver`, `relation`, `version` | which packages a request comes to |
//! | `deb`, `unpack`, `package` | packages, unpacked once |
//! | `layers`, `layer` | in which steps they are installed; one step |
//! | `assemble`, `diversions`, `database` | their files in one tree, with dpkg's database |
//! | `plan`, `configure`, `capture`, `normalise`, `formats` | their own configuration, run for real and made repeatable |
//! | `by_chance` | what it may have made otherwise each time |

mod apt_conf;
mod ar;
pub(crate) mod archive;
pub(crate) mod assemble;
mod by_chance;
pub(crate) mod capture;
pub(crate) mod choice;
pub(crate) mod configure;
mod database;
pub(crate) mod deb;
mod diversions;
mod formats;
pub(crate) mod index;
mod layer;
mod layers;
pub(crate) mod normalise;
pub(crate) mod package;
mod plan;
pub(crate) mod reasons;
pub(crate) mod relation;
pub(crate) mod release;
pub(crate) mod resolver;
pub(crate) mod signature;
pub(crate) mod sources;
pub(crate) mod universe;
pub(crate) mod unpack;
pub(crate) mod version;

use kiln_model::{Fate, LeftOut, LockedImage, Sha256, Tree};
use kiln_store::{Look, Store};

use crate::order::{BakeOrder, Report};
use crate::{BakeError, machine_own, tree_file};
use package::Package;

/// Configured trees, under the key of the packages they come from. The number changes with the format.
const LAYERS: &str = "debian-layers-1";
/// What was left out of them, as JSON. There is one for each, and it is kept first.
const LEFT_OUT: &str = "debian-left-out-1";
/// Which of them is the tree of a lock, and "now" in it.
const ROOTS: &str = "debian-roots-1";
/// Changes with everything here that changes what comes out.
pub(crate) const RECIPE: &str = "kiln debian recipe 12";
/// Laid down first: other packages' paths lead through its links.
const FIRST: &str = "base-files";

/// A root filesystem, and the time that stands for "now" in it.
pub(crate) struct Root {
    pub(crate) tree: Tree,
    pub(crate) epoch: i64,
}

/// The configured tree of the packages of `locked`, and what their scripts made that was left out of it.
pub(crate) fn root(
    order: &BakeOrder,
    locked: &LockedImage,
    store: &Store,
    report: &dyn Report,
) -> Result<(Root, Vec<LeftOut>), BakeError> {
    let key = key(locked);
    let layer = match from_cache(store, &key) {
        Some(layer) => layer,
        None => {
            let made = make(order, locked, store, report)?;
            store.cache_put(ROOTS, &key, &[&made.epoch.to_le_bytes()[..], &made.key.0].concat())?;
            made
        }
    };
    Ok((Root { tree: layer.tree.unwrap_or_default(), epoch: layer.epoch }, layer.left_out))
}

fn from_cache(store: &Store, key: &Sha256) -> Option<Layer> {
    let bytes = store.cache_get(ROOTS, key)?;
    let (epoch, layer) = bytes.split_first_chunk::<8>()?;
    layer_from_cache(store, Sha256(layer.try_into().ok()?), i64::from_le_bytes(*epoch))
}

fn layer_from_cache(store: &Store, key: Sha256, epoch: i64) -> Option<Layer> {
    let left_out = serde_json::from_slice(&store.cache_get(LEFT_OUT, &key)?).ok()?;
    Some(Layer { key, epoch, tree: Some(tree_from_cache(store, &key)?), left_out })
}

fn tree_from_cache(store: &Store, key: &Sha256) -> Option<Tree> {
    let read = || tree_file::decode(&store.cache_get(LAYERS, key)?).ok();
    // Looked for meanwhile, if they ever were before.
    let look = || {
        let since = store.cache_written(LAYERS, key);
        store.has_seen(key, Look::Glance, since).unwrap_or(Some(false))
    };
    let (tree, seen) = rayon::join(read, look);
    let tree = tree?;
    seen.unwrap_or_else(|| unpack::has_objects(store, LAYERS, key, &tree)).then_some(tree)
}

/// The packages and what was asked for decide on everything; the epoch comes from the packages as well.
fn key(locked: &LockedImage) -> Sha256 {
    let packages: Vec<&Sha256> = locked.packages.iter().map(|p| &p.sha256).collect();
    let all = (RECIPE, &locked.request, packages);
    Sha256::of(&serde_json::to_vec(&all).expect("plain data that JSON can hold"))
}

/// What has been installed so far.
struct Layer {
    key: Sha256,
    epoch: i64,
    tree: Option<Tree>,
    /// Of all steps until then.
    left_out: Vec<LeftOut>,
}

fn make(
    order: &BakeOrder,
    locked: &LockedImage,
    store: &Store,
    report: &dyn Report,
) -> Result<Layer, BakeError> {
    let debs = unpack::unpacked(order, &locked.packages, store, report)?;
    let mut packages = locked
        .packages
        .iter()
        .zip(&debs)
        .map(|(locked, deb)| Package::new(locked, deb))
        .collect::<Result<Vec<_>, _>>()?;
    packages.sort_by_key(|p| p.name() != FIRST);
    let layers = layers::layers(&packages, &locked.request.requested, locked.request.recommends);
    let keys = keys(&packages, &layers, &order.architecture);
    let found = keys.iter().rposition(|(key, _)| store.cache_get(LAYERS, key).is_some());
    // A cached tree whose objects are gone counts as none, and so do those it is made from.
    let cached = found.and_then(|n| layer_from_cache(store, keys[n].0, keys[n].1));
    let nothing = Layer { key: Sha256::of(b""), epoch: 0, tree: None, left_out: Vec::new() };
    let mut done = cached.unwrap_or(nothing);
    let from = keys.iter().position(|(key, _)| *key == done.key).map_or(0, |n| n + 1);
    let mut old: Vec<Package<'_>> = layers[..from].iter().flatten().map(|i| packages[*i].clone()).collect();
    for (layer, (key, epoch)) in layers.iter().zip(&keys).skip(from) {
        let new: Vec<Package<'_>> = layer.iter().map(|i| packages[*i].clone()).collect();
        let step = layer::Step { old: &old, new: &new, architecture: &order.architecture, epoch: *epoch };
        let (tree, more) = layer::built(done.tree.take(), &step, store, report)?;
        old.extend(new);
        let mut left_out = machine_own::together(done.left_out, more);
        // Of the whole tree each time: a package may take away what one before it made.
        left_out.retain(|one| one.fate == Fate::LeftOut);
        left_out.extend(by_chance::made(&tree, &old));
        store.cache_put(
            LEFT_OUT,
            key,
            &serde_json::to_vec(&left_out).expect("plain data that JSON can hold"),
        )?;
        store.cache_put(LAYERS, key, &tree_file::encode(&tree))?;
        done = Layer { key: *key, epoch: *epoch, tree: Some(tree), left_out };
    }
    Ok(done)
}

/// The key and the epoch of each layer; both cover all layers before it.
fn keys(packages: &[Package<'_>], layers: &[Vec<usize>], architecture: &str) -> Vec<(Sha256, i64)> {
    let (mut text, mut epoch) = (format!("{RECIPE}\n{architecture}\n"), 0);
    let mut one = |layer: &Vec<usize>| {
        for package in layer.iter().map(|i| &packages[*i]) {
            text.push_str(&format!("{}\n", package.locked.sha256));
            epoch = epoch.max(newest(package));
        }
        text.push('\n');
        (Sha256::of(text.as_bytes()), epoch)
    };
    layers.iter().map(&mut one).collect()
}

/// The time of the newest file in a package: "now", for a tree that has nothing newer.
fn newest(package: &Package<'_>) -> i64 {
    let times = package.data.iter().filter_map(|(_, node)| node.meta());
    times.map(|m| m.mtime).max().unwrap_or(0)
}
