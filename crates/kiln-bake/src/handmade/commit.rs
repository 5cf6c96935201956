//! The image of an instance as it is.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use kiln_model::{
    Handmade, ImageDigest, ImageName, ImageRecord, InstanceId, KeptPath, LeftOut, LockRequest, LockedImage,
    Node, NotKept, ReleaseId, Sha256, Tree, Volatile,
};
use kiln_store::Store;
use rustix::fs::fstat;
use serde_json::json;

use super::gather::{Gathered, Gatherer};
use super::{HandmadeError, is_in};
use crate::description::describe;
use crate::erofs;
use crate::export::Stored;
use crate::machine_own;
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
    let mut laid = Laid { edit: TreeEdit::new(tree), paths: Vec::new(), left_out: Vec::new() };
    for Volatile { path, .. } in source.volatile {
        if is_never_kept(path) {
            continue;
        }
        laid.lay(path, gatherer.gather(path)?)?;
    }
    let of_the_machine = laid.take_machine_own(epoch)?;
    let kept = laid.kept();
    let Laid { mut edit, left_out, .. } = laid;
    if kept.is_empty() {
        return Err(HandmadeError::Nothing(source.instance.clone()));
    }
    let handmade = handmade(source, name, &base, &kept);
    let is_kept = |v: &&Volatile| !kept.iter().any(|k| k.path == v.path);
    let volatile: Vec<Volatile> = base.volatile.iter().filter(is_kept).cloned().collect();
    describe(&mut edit, &base.run, &volatile, Some(&handmade.image));
    let tree = edit.into_tree();
    let record = write(&tree, (&base, volatile, handmade, of_the_machine), source, store, batch)?;
    store.name_handmade(name, &record.digest)?;
    Ok(Committed { record, kept, left_out })
}

/// "Now" is the time of the newest file of the image, as it was when others were laid over it.
pub(super) fn epoch_of(tree: &Tree) -> i64 {
    tree.iter().filter_map(|(_, node)| node.meta()).map(|meta| meta.mtime).max().unwrap_or(0)
}

fn is_never_kept(path: &str) -> bool {
    NEVER_KEPT.iter().any(|top| is_in(path, top))
}

/// A tree being laid over.
struct Laid {
    edit: TreeEdit,
    /// The paths where something was laid.
    paths: Vec<String>,
    left_out: Vec<NotKept>,
}

impl Laid {
    /// What is on a volatile path takes the place of what the image has there, which the instance does not see.
    fn lay(&mut self, path: &str, gathered: Gathered) -> Result<(), HandmadeError> {
        self.left_out.extend(gathered.left_out);
        if gathered.nodes.len() <= 1 {
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
        self.paths.push(path.to_owned());
        Ok(())
    }

    /// What belongs to one machine goes again, whoever made it there.
    fn take_machine_own(&mut self, epoch: i64) -> Result<Vec<LeftOut>, HandmadeError> {
        if machine_own::has_identity(self.edit.tree()) {
            let why = "an identity belongs to one machine, and each instance is given one".to_owned();
            self.left_out.push(NotKept { path: machine_own::MACHINE_ID.to_owned(), why });
        }
        let taken = machine_own::taken_out(&mut self.edit);
        for LeftOut { what, paths, .. } in &taken {
            let why = format!("{what} belong to one machine");
            self.left_out.extend(paths.iter().map(|path| NotKept { path: path.clone(), why: why.clone() }));
        }
        // As in an image that is baked: what hands left there is no place for the next instance's.
        machine_own::link_machine_id(&mut self.edit, epoch)?;
        Ok(taken)
    }

    /// What is there now of each path, without what is on another volatile path below it; one that held nothing but
    /// what was taken again is not kept.
    fn kept(&self) -> Vec<KeptPath> {
        let weigh = |path: &String| {
            let deeper: Vec<String> = self
                .paths
                .iter()
                .filter(|other| other.starts_with(&format!("{path}/")))
                .map(|other| format!("{other}/"))
                .collect();
            let is_own = |place: &[u8]| !deeper.iter().any(|other| place.starts_with(other.as_bytes()));
            let own = || self.edit.tree().below(path.as_bytes()).filter(|(place, _)| is_own(place));
            let (entries, bytes) = (own().count() as u64, own().map(|(_, node)| node.size()).sum());
            KeptPath { path: path.clone(), entries, bytes }
        };
        self.paths.iter().map(weigh).filter(|kept| kept.entries > 0).collect()
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
    (base, volatile, handmade, of_the_machine): (&ImageRecord, Vec<Volatile>, Handmade, Vec<LeftOut>),
    source: &Source<'_>,
    store: &Store,
    batch: kiln_store::Batch,
) -> Result<ImageRecord, HandmadeError> {
    // What is in the tree by now has to be found in the store, to be looked into.
    batch.commit()?;
    let packages = sbom::installed(tree, store)?;
    let mut left_out = base.left_out.clone();
    left_out.extend(of_the_machine.into_iter().filter(|new| !base.left_out.contains(new)));
    let mut written = erofs::write(tree)?;
    let batch = store.objects().batch()?;
    let staged = batch.stage_image(&written.bytes, &written.objects)?;
    let digest = *staged.digest();
    let mut record = ImageRecord {
        format: std::mem::take(&mut written.format),
        digest,
        name: handmade.name.clone(),
        metadata_bytes: staged.size(),
        content_bytes: written.content_bytes,
        entries: written.entries,
        packages: packages.iter().map(sbom::Installed::as_ref).collect(),
        run: base.run.clone(),
        volatile,
        // No bake has such inputs.
        inputs: Sha256::of(format!("kiln commit 1 {digest}").as_bytes()),
        documents: Default::default(),
        left_out,
        handmade: Some(handmade),
    };
    let inside = sbom::document(&record, &packages, &unlocked(), &Distribution::of(tree, store)?);
    let origin = provenance(&record, staged.sha256(), source, store)?;
    for (name, bytes) in [(ImageRecord::SBOM, inside), (ImageRecord::PROVENANCE, origin)] {
        let (object, _) = batch.put_bytes(&bytes)?;
        record.documents.insert(name.into(), object);
    }
    batch.commit_image(staged, &record)?;
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
    use kiln_model::Content;

    use super::*;
    use crate::tree_edit::{directory, root_meta};

    #[test]
    fn what_belongs_to_one_machine_is_taken_again_and_told() {
        let mut edit = TreeEdit::new(Tree::new());
        edit.put(b"/", directory(0o755, 0)).unwrap();
        for path in ["/etc/ssh/ssh_host_rsa_key", "/etc/machine-id", "/srv/page", "/srv/deeper/page"] {
            edit.ensure_parent(path.as_bytes(), 0).unwrap();
            let node = Node::File(root_meta(0o600, 0), Content::Inline(b"text".to_vec()));
            edit.put(path.as_bytes(), node).unwrap();
        }
        let paths = ["/etc/ssh", "/srv", "/srv/deeper"].map(str::to_owned).to_vec();
        let mut laid = Laid { edit, paths, left_out: Vec::new() };
        let taken = laid.take_machine_own(7).unwrap();
        assert_eq!(taken.iter().map(|t| t.what.as_str()).collect::<Vec<_>>(), ["SSH host keys"]);
        let told: Vec<&str> = laid.left_out.iter().map(|not| not.path.as_str()).collect();
        assert_eq!(told, ["/etc/machine-id", "/etc/ssh/ssh_host_*", "/etc/dropbear/dropbear_*_host_key"]);
        let id = laid.edit.tree().get(b"/etc/machine-id").unwrap();
        assert_eq!(*id, Node::Symlink(root_meta(0o777, 7), b"../run/machine-id".to_vec()));
        // One that was none is a link as well, and nothing was lost by it.
        let blank = Node::File(root_meta(0o644, 0), Content::Inline(b"uninitialized\n".to_vec()));
        laid.edit.put(b"/etc/machine-id", blank).unwrap();
        laid.take_machine_own(7).unwrap();
        assert!(matches!(laid.edit.tree().get(b"/etc/machine-id"), Some(Node::Symlink(..))));
        assert_eq!(laid.left_out.len(), 3);
        let kept = |path: &str, entries, bytes| KeptPath { path: path.into(), entries, bytes };
        // Nothing is left on the first, and each of the others has its own.
        assert_eq!(laid.kept(), [kept("/srv", 2, 4), kept("/srv/deeper", 1, 4)]);
        assert!(machine_own::check(laid.edit.tree()).is_ok());
    }

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
