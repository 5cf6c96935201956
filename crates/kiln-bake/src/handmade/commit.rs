//! The image of an instance as it is.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use kiln_model::{
    Handmade, ImageDigest, ImageName, ImageRecord, InstanceId, KeptPath, LockRequest, LockedImage, Node,
    NotKept, ReleaseId, Sha256, Tree, Volatile,
};
use kiln_store::{Store, Verity};
use rustix::fs::fstat;
use serde_json::json;

use super::HandmadeError;
use super::gather::{Gathered, Gatherer};
use crate::erofs;
use crate::export::Stored;
use crate::merge::describe;
use crate::provenance::statement;
use crate::sbom::{self, Distribution};
use crate::tree_edit::TreeEdit;

/// What every instance has to itself and nobody could do anything with later: other instances' sockets, locks and
/// temporary files, and secrets.
const NEVER_KEPT: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];

/// An instance to be made an image of.
#[derive(Debug)]
pub struct Source<'a> {
    /// Which.
    pub instance: &'a InstanceId,
    /// Its release.
    pub release: &'a ReleaseId,
    /// The image it was made from.
    pub image: &'a ImageDigest,
    /// Its root directory; what belongs to its owner is root's inside.
    pub root: &'a OwnedFd,
    /// Where it may write.
    pub volatile: &'a [Volatile],
}

/// An image of an instance.
#[derive(Debug)]
pub struct Committed {
    /// What is recorded of it.
    pub record: ImageRecord,
    /// What of the instance became part of it beyond its image.
    pub kept: Vec<KeptPath>,
    /// What did not.
    pub left_out: Vec<NotKept>,
}

/// Makes an image of an instance and gives it a name. The same state gives the same image.
///
/// # Errors
/// If it holds nothing its image does not, does not hold still, or cannot be read; then nothing was kept.
pub fn commit(source: &Source<'_>, name: &ImageName, store: &Store) -> Result<Committed, HandmadeError> {
    let Stored { record: base, tree, .. } = Stored::open(store, source.image)?;
    let batch = store.objects().batch()?;
    let epoch = epoch_of(&tree);
    let stat = fstat(source.root).map_err(|e| HandmadeError::Read { path: "/".into(), source: e.into() })?;
    let gatherer =
        Gatherer { instance: source.instance, root: source.root, base_id: stat.st_uid, epoch, batch: &batch };
    let mut laid = Laid { edit: TreeEdit::new(tree), kept: Vec::new(), left_out: Vec::new() };
    for Volatile { path, .. } in source.volatile {
        if is_never_kept(path) {
            continue;
        }
        laid.lay(path, gatherer.gather(path)?)?;
    }
    let Laid { mut edit, kept, left_out } = laid;
    if kept.is_empty() {
        return Err(HandmadeError::Nothing(source.instance.clone()));
    }
    let handmade = handmade(source, name, &base, &kept);
    let is_kept = |v: &&Volatile| !kept.iter().any(|k| k.path == v.path);
    let volatile: Vec<Volatile> = base.volatile.iter().filter(is_kept).cloned().collect();
    describe(&mut edit, &base.run, &volatile, Some(&handmade.image));
    let tree = edit.into_tree();
    let record = write(&tree, (&base, volatile, handmade), source, store, batch)?;
    store.name_handmade(name, &record.digest)?;
    Ok(Committed { record, kept, left_out })
}

/// "Now" is the time of the newest file of the image, as it was when others were laid over it.
pub(super) fn epoch_of(tree: &Tree) -> i64 {
    tree.iter().filter_map(|(_, node)| node.meta()).map(|meta| meta.mtime).max().unwrap_or(0)
}

fn is_never_kept(path: &str) -> bool {
    NEVER_KEPT
        .iter()
        .any(|top| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// A tree being laid over.
struct Laid {
    edit: TreeEdit,
    kept: Vec<KeptPath>,
    left_out: Vec<NotKept>,
}

impl Laid {
    /// What is on a volatile path takes the place of what the image has there, which the instance does not see.
    fn lay(&mut self, path: &str, gathered: Gathered) -> Result<(), HandmadeError> {
        self.left_out.extend(gathered.left_out);
        let entries = gathered.nodes.len().saturating_sub(1) as u64;
        if entries == 0 {
            return Ok(());
        }
        self.edit.clear(path.as_bytes());
        for (place, node) in gathered.nodes {
            if let (Some(Node::Directory(old)), Node::Directory(new)) = (self.edit.node_mut(&place), &node) {
                *old = new.clone();
                continue;
            }
            self.edit.put(&place, node)?;
        }
        self.kept.push(KeptPath { path: path.to_owned(), entries, bytes: gathered.bytes });
        Ok(())
    }
}

/// What is kept of one who is handmade already stays kept.
fn handmade(source: &Source<'_>, name: &ImageName, base: &ImageRecord, kept: &[KeptPath]) -> Handmade {
    let before = base.handmade.iter().flat_map(|h| h.kept.iter().cloned());
    let all: BTreeSet<String> = before.chain(kept.iter().map(|k| k.path.clone())).collect();
    Handmade {
        name: name.clone(),
        image: *source.image,
        instance: source.instance.clone(),
        kept: all.into_iter().collect(),
    }
}

fn write(
    tree: &Tree,
    (base, volatile, handmade): (&ImageRecord, Vec<Volatile>, Handmade),
    source: &Source<'_>,
    store: &Store,
    batch: kiln_store::Batch,
) -> Result<ImageRecord, HandmadeError> {
    // What is in the tree by now has to be found in the store, to be looked into.
    batch.commit()?;
    let packages = sbom::installed(tree, store)?;
    let mut written = erofs::write(tree)?;
    let digest = ImageDigest(Verity::of(&written.bytes).0);
    let mut record = ImageRecord {
        format: written.format,
        digest,
        name: handmade.name.clone(),
        metadata_bytes: written.bytes.len() as u64,
        content_bytes: written.content_bytes,
        entries: written.entries,
        packages: packages.iter().map(sbom::Installed::as_ref).collect(),
        run: base.run.clone(),
        volatile,
        // No bake has such inputs.
        inputs: Sha256::of(format!("kiln commit 1 {digest}").as_bytes()),
        documents: Default::default(),
        left_out: base.left_out.clone(),
        handmade: Some(handmade),
    };
    let metadata = Sha256::of(&written.bytes);
    let inside = sbom::document(&record, &packages, &unlocked(), &Distribution::of(tree, store)?);
    let origin = provenance(&record, &metadata, source, store)?;
    let batch = store.objects().batch()?;
    for (name, bytes) in [(ImageRecord::SBOM, inside), (ImageRecord::PROVENANCE, origin)] {
        let (object, _) = batch.put_bytes(&bytes)?;
        written.objects.insert(object);
        record.documents.insert(name.into(), object);
    }
    batch.commit_image(&written.bytes, &record, &written.objects)?;
    Ok(record)
}

/// Nothing was locked for it.
fn unlocked() -> LockedImage {
    let request = LockRequest {
        from: String::new(),
        architecture: String::new(),
        requested: Vec::new(),
        recommends: false,
        suites: Vec::new(),
    };
    LockedImage { request, oci: None, handmade: None, indexes: Vec::new(), packages: Vec::new() }
}

/// What it was made from: the image, and what that was made from; and that hands made the rest.
fn provenance(
    record: &ImageRecord,
    metadata: &Sha256,
    source: &Source<'_>,
    store: &Store,
) -> Result<Vec<u8>, HandmadeError> {
    let before = store.image_document(source.image, ImageRecord::PROVENANCE)?;
    let before: serde_json::Value = before.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    let inherited = before["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().cloned();
    let image = json!({
        "name": "image of the instance",
        "digest": { "fsverity_sha256": source.image.hex() },
    });
    let dependencies: Vec<serde_json::Value> =
        std::iter::once(image).chain(inherited.unwrap_or_default()).collect();
    let definition = json!({
        "buildType": "urn:kiln:commit:v1",
        "externalParameters": {
            "handmade": record.handmade,
            "release": source.release.as_str(),
        },
        "internalParameters": { "format": record.format },
        "resolvedDependencies": dependencies,
    });
    Ok(statement(record, metadata, &definition))
}

#[cfg(test)]
mod tests {
    use super::is_never_kept;

    #[test]
    fn what_belongs_to_the_moment_is_never_kept() {
        for path in ["/tmp", "/run", "/run/secrets", "/run/app", "/var/tmp", "/dev/shm"] {
            assert!(is_never_kept(path), "{path}");
        }
        for path in ["/var/lib/app", "/srv/www", "/runner", "/tmpfiles", "/var/run"] {
            assert!(!is_never_kept(path), "{path}");
        }
    }
}
