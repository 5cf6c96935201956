//! Which layer of an OCI image a path goes into.
//!
//! | layer | holds | changes when |
//! |---|---|---|
//! | 40 of packages | the files of the Debian packages whose name falls there, and dpkg's files about them | one of those packages does |
//! | 8 of the rest | other files, by their first two directories | one of those files does |
//! | 1 of state | the rest of dpkg's database | any package does |
//! | 1 of directories | every directory, as it is | any directory does |
//!
//! Where a path goes depends on its package or its name alone, never on what else is there: so two images that share
//! packages share layers, and a change in one place leaves the others as they are. A layer lists the directories
//! that its files are in, all of one time, so that only the last layer changes with the times of directories.

use std::collections::{BTreeMap, HashMap};

use kiln_model::{Node, Sha256, Tree};
use kiln_store::StoreError;

use super::Stored;
use crate::tree_edit::resolve;
use crate::users;

const OF_PACKAGES: u8 = 40;
const OF_THE_REST: u8 = 8;
const INFO: &str = "/var/lib/dpkg/info/";
const DPKG: &[u8] = b"/var/lib/dpkg/";

/// A layer by what decides on it; in the order they are stacked, the ones that change most often last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Packages(u8),
    Rest(u8),
    State,
    Directories,
}

/// The layers of an image, bottom first; none is empty.
pub(crate) fn layers(image: &Stored<'_>) -> Result<Vec<Tree>, StoreError> {
    let owners = owners(image)?;
    let mut layers: BTreeMap<Slot, Tree> = BTreeMap::new();
    for (path, node) in image.tree.iter() {
        let slot = match node {
            Node::Directory(_) => Slot::Directories,
            // All names of a file are in one layer.
            Node::Hardlink(first) => slot(first, &owners),
            _ => slot(path, &owners),
        };
        put(layers.entry(slot).or_default(), &image.tree, path, node, slot);
    }
    Ok(layers.into_values().collect())
}

fn slot(path: &[u8], owners: &HashMap<Vec<u8>, String>) -> Slot {
    if let Some(package) = owners.get(path) {
        return Slot::Packages(place(package.as_bytes(), OF_PACKAGES));
    }
    if let Some(package) =
        std::str::from_utf8(path).ok().and_then(|p| p.strip_prefix(INFO)).and_then(described)
    {
        return Slot::Packages(place(package.as_bytes(), OF_PACKAGES));
    }
    if path.starts_with(DPKG) {
        return Slot::State;
    }
    let end = path.iter().enumerate().filter(|(_, c)| **c == b'/').nth(2).map_or(path.len(), |(at, _)| at);
    Slot::Rest(place(&path[..end], OF_THE_REST))
}

/// The package that a file of dpkg's database is about: `libc6:amd64.list` is about `libc6`.
fn described(file: &str) -> Option<&str> {
    let (name, _) = file.rsplit_once('.')?;
    name.split(':').next()
}

fn place(name: &[u8], of: u8) -> u8 {
    Sha256::of(name).0[0] % of
}

/// Which package brought a file, from the lists that dpkg keeps; nothing in images of other kinds.
fn owners(image: &Stored<'_>) -> Result<HashMap<Vec<u8>, String>, StoreError> {
    let mut owners = HashMap::new();
    let tree = &image.tree;
    for (path, _) in tree.below(INFO.as_bytes()) {
        let Some(file) = std::str::from_utf8(path).ok() else { continue };
        let Some(package) = file.strip_prefix(INFO).filter(|f| f.ends_with(".list")).and_then(described)
        else {
            continue;
        };
        for line in users::text(tree, file, image.store)?.lines().filter(|line| line.starts_with('/')) {
            // As packed: a directory may since have become a link, as /bin has.
            let Ok(place) = resolve(tree, line.as_bytes(), false) else { continue };
            owners.entry(place).or_insert_with(|| package.to_owned());
        }
    }
    Ok(owners)
}

fn put(layer: &mut Tree, tree: &Tree, path: &[u8], node: &Node, slot: Slot) {
    // The paths are those of a tree, which has looked at them.
    let mut insert = |path: &[u8], node: Node| drop(layer.insert(path, node));
    if slot != Slot::Directories {
        for end in path.iter().enumerate().filter(|(at, c)| **c == b'/' && *at > 0).map(|(at, _)| at) {
            if let Some(Node::Directory(meta)) = tree.get(&path[..end]) {
                let mut meta = meta.clone();
                meta.mtime = 0;
                insert(&path[..end], Node::Directory(meta));
            }
        }
    }
    insert(path, node.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_by_its_package_or_its_directories() {
        let owners = HashMap::from([(b"/usr/bin/x".to_vec(), "x-tools".to_owned())]);
        let of = |path: &str| slot(path.as_bytes(), &owners);
        assert_eq!(of("/usr/bin/x"), Slot::Packages(place(b"x-tools", 40)));
        assert_eq!(of("/var/lib/dpkg/info/x-tools:amd64.list"), of("/usr/bin/x"));
        assert_eq!(of("/var/lib/dpkg/status"), Slot::State);
        assert_eq!(of("/srv/www/a"), of("/srv/www/deep/b"));
        assert_eq!(of("/srv/www"), Slot::Rest(place(b"/srv/www", 8)));
    }
}
