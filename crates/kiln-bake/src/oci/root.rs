//! From a reference to a pinned manifest, and from that to a root filesystem.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use kiln_model::{LockedImage, LockedOci, OciReference, Sha256, Tree};
use kiln_store::Store;

use super::document::{Config, Descriptor, LARGEST_CONFIG, Manifest, Top, choose, demanding, words};
use super::error::OciError;
use super::layer::Layer;
use super::source::{self, Source};
use super::{apply, unpack};
use crate::debian::Root;
use crate::debian::unpack::has_objects;
use crate::fetch::CONNECTIONS;
use crate::order::{BakeOrder, Report};
use crate::report::Task;
use crate::settings::Settings;
use crate::tree_file;

/// Trees of whole images, under the digest of their manifest. The number changes with what is done here.
const CACHE: &str = "oci-tree-3";
/// Indexes in indexes.
const DEEPEST: usize = 3;

/// An image being read.
struct Image<'a> {
    reference: &'a OciReference,
    order: &'a BakeOrder,
    store: &'a Store,
    report: &'a dyn Report,
}

/// The manifest that `reference` stands for now, pinned; it is in the store afterwards.
pub(crate) fn lock(
    reference: &OciReference,
    order: &BakeOrder,
    store: &Store,
    report: &dyn Report,
) -> Result<LockedOci, OciError> {
    let image = Image { reference, order, store, report };
    let cancelled = || report.cancelled();
    let task = Task::new(report, "resolving an OCI image", "", None);
    let source = source::open(reference, order, &cancelled)?;
    let bytes = image.resolve(&*source)?;
    task.finish();
    Ok(LockedOci { manifest: store.put_blob(&bytes)?, size: bytes.len() as u64 })
}

/// The tree of the image that is pinned, and how it wants to be run.
pub(crate) fn root(
    reference: &OciReference,
    order: &BakeOrder,
    locked: &LockedImage,
    store: &Store,
    report: &dyn Report,
) -> Result<(Root, Settings), OciError> {
    // Asked for an OCI image, a lock without one is none that answers; `lock::answer` has seen to that.
    let pin = locked.oci.clone().unwrap_or(LockedOci { manifest: Sha256([0; 32]), size: 0 });
    let image = Image { reference, order, store, report };
    let cancelled = || report.cancelled();
    let needed = Needed { image: &image, opened: Mutex::new(None), cancelled: &cancelled };
    image.root(&pin, &needed).map_err(|error| image.exchanged(&pin, &needed, &error).unwrap_or(error))
}

/// "Now" is the time of the newest file.
fn with_epoch(tree: Tree) -> Root {
    let times = tree.iter().filter_map(|(_, node)| node.meta()).map(|meta| meta.mtime);
    Root { epoch: times.max().unwrap_or(0), tree }
}

/// The source, opened when something of it is missing: what is in the store needs none.
struct Needed<'a> {
    image: &'a Image<'a>,
    opened: Mutex<Option<std::sync::Arc<dyn Source + 'a>>>,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Needed<'a> {
    fn source(&self) -> Result<std::sync::Arc<dyn Source + 'a>, OciError> {
        let mut opened = self.opened.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(source) = &*opened {
            return Ok(source.clone());
        }
        let source = source::open(self.image.reference, self.image.order, self.cancelled)?;
        Ok(opened.insert(std::sync::Arc::from(source)).clone())
    }
}

impl Image<'_> {
    fn document(&self, what: &'static str) -> impl Fn(super::BadDocument) -> OciError + '_ {
        move |source| OciError::Document { what, reference: self.reference.to_string(), source }
    }

    fn root(&self, pin: &LockedOci, needed: &Needed<'_>) -> Result<(Root, Settings), OciError> {
        let manifest = self.pinned(pin, needed)?;
        let config = self.config(&manifest, needed)?;
        if let Some(tree) = self.cached(&pin.manifest) {
            return Ok((with_epoch(tree), config.settings));
        }
        let layers = self.layers(&manifest, &config, needed)?;
        let tree = self.stacked(&layers)?;
        self.store.cache_put(CACHE, &pin.manifest, &tree_file::encode(&tree))?;
        Ok((with_epoch(tree), config.settings))
    }

    /// Whether something is missing at a path because another image is there than the one that is pinned, or none of its
    /// name. (What is pinned is asked for by its digest, whatever a tag leads to.)
    fn exchanged(&self, pin: &LockedOci, needed: &Needed<'_>, error: &OciError) -> Option<OciError> {
        let is_missing = matches!(error, OciError::Shape { .. } | OciError::Read { .. });
        if !is_missing || matches!(self.reference, OciReference::Registry(_)) {
            return None;
        }
        let source = needed.opened.lock().unwrap_or_else(|e| e.into_inner()).clone()?;
        let found = match self.resolve(&*source) {
            Ok(manifest) => Sha256::of(&manifest),
            Err(error) => return matches!(error, OciError::NotNamed { .. }).then_some(error),
        };
        let (image, reference) = (self.order.image.clone(), self.reference.to_string());
        let exchanged = OciError::Exchanged { image, reference, expected: pin.manifest, found };
        (found != pin.manifest).then_some(exchanged)
    }

    /// The manifest for the order's architecture.
    fn resolve(&self, source: &dyn Source) -> Result<Vec<u8>, OciError> {
        let mut bytes = source.top()?;
        for _ in 0..DEEPEST {
            let index = match Top::parse(&bytes).map_err(self.document("manifest"))? {
                Top::Manifest(_) => return Ok(bytes),
                Top::Index(index) => index,
            };
            let chosen = choose(&index, &self.order.architecture).map_err(self.document("index"))?;
            if let Some(platform) = demanding(chosen) {
                let name = format!("{} is for {platform} alone, which older CPUs do not run", self.reference);
                Task::new(self.report, name, "", None).finish();
            }
            bytes = source.manifest(chosen)?;
            self.check("manifest", chosen, &bytes)?;
        }
        Err(self.document("index")(super::BadDocument("it leads from index to index".into())))
    }

    fn check(&self, what: &'static str, promised: &Descriptor, bytes: &[u8]) -> Result<(), OciError> {
        let found = bytes.len() as u64;
        if found != promised.size {
            let (reference, expected) = (self.reference.to_string(), promised.size);
            return Err(OciError::Size { what, reference, expected, found });
        }
        let found = Sha256::of(bytes);
        if found != promised.digest {
            let (reference, expected) = (self.reference.to_string(), promised.digest);
            return Err(OciError::Hash { what, reference, expected, found });
        }
        Ok(())
    }

    fn pinned(&self, pin: &LockedOci, needed: &Needed<'_>) -> Result<Manifest, OciError> {
        let bytes = match self.small(&pin.manifest)? {
            Some(bytes) => bytes,
            None => {
                let descriptor = Descriptor {
                    media_type: String::new(),
                    digest: pin.manifest,
                    size: pin.size,
                    platform: None,
                    name: None,
                };
                let bytes = needed.source()?.manifest(&descriptor)?;
                self.check("manifest", &descriptor, &bytes)?;
                self.store.put_blob(&bytes)?;
                bytes
            }
        };
        match Top::parse(&bytes).map_err(self.document("manifest"))? {
            Top::Manifest(manifest) => Ok(manifest),
            Top::Index(_) => Err(self.document("manifest")(super::BadDocument("it is an index".into()))),
        }
    }

    fn small(&self, digest: &Sha256) -> Result<Option<Vec<u8>>, OciError> {
        let Some(path) = self.store.blob(digest)? else { return Ok(None) };
        super::layout::read(&path, LARGEST_CONFIG).map(Some)
    }

    fn config(&self, manifest: &Manifest, needed: &Needed<'_>) -> Result<Config, OciError> {
        let task =
            Task::new(self.report, "fetching the OCI configuration", "bytes", Some(manifest.config.size));
        self.blob("configuration", &manifest.config, needed, &task)?;
        task.finish();
        let bytes = self.small(&manifest.config.digest)?.unwrap_or_default();
        let bad = self.document("configuration");
        let config = Config::parse(&bytes).map_err(&bad)?;
        let (found, wanted) = (&config.platform, &self.order.architecture);
        if found.os != "linux" || found.architecture != *wanted {
            return Err(bad(super::BadDocument(format!("it is for {}, not linux/{wanted}", words(found)))));
        }
        if config.diff_ids.len() != manifest.layers.len() {
            let (told, there) = (config.diff_ids.len(), manifest.layers.len());
            return Err(bad(super::BadDocument(format!(
                "it tells of {told} layers, and the manifest of {there}"
            ))));
        }
        Ok(config)
    }

    /// Brings a blob into the store, if it is not there.
    fn blob(
        &self,
        what: &'static str,
        descriptor: &Descriptor,
        needed: &Needed<'_>,
        task: &Task<'_>,
    ) -> Result<std::path::PathBuf, OciError> {
        if let Some(path) = self.store.blob(&descriptor.digest)? {
            task.add(descriptor.size);
            return Ok(path);
        }
        let mut draft = self.store.blob_draft(&descriptor.digest)?;
        needed.source()?.blob(descriptor, &mut draft, &|n| task.add(n))?;
        let (found, expected) = (draft.length(), descriptor.size);
        if found != expected {
            draft.restart()?;
            return Err(OciError::Size { what, reference: self.reference.to_string(), expected, found });
        }
        draft.finish().map_err(|e| match e {
            kiln_store::StoreError::WrongHash { expected, found, .. } => {
                OciError::Hash { what, reference: self.reference.to_string(), expected, found }
            }
            other => OciError::Store(other),
        })
    }

    fn cached(&self, manifest: &Sha256) -> Option<Tree> {
        let tree = tree_file::decode(&self.store.cache_get(CACHE, manifest)?).ok()?;
        has_objects(self.store, CACHE, manifest, &tree).then_some(tree)
    }

    /// All layers, bottom first: fetched and unpacked several at a time. The first failure ends it all; what has
    /// arrived stays.
    fn layers(
        &self,
        manifest: &Manifest,
        config: &Config,
        needed: &Needed<'_>,
    ) -> Result<Vec<Layer>, OciError> {
        let count = manifest.layers.len();
        let bytes = manifest.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        let task = Task::new(self.report, "fetching OCI layers", "bytes", Some(bytes));
        let done: Vec<Mutex<Option<Layer>>> = (0..count).map(|_| Mutex::default()).collect();
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let (Some(place), Some(layer), Some(diff_id)) =
                    (done.get(index), manifest.layers.get(index), config.diff_ids.get(index))
                else {
                    break;
                };
                match self.layer(index, layer, diff_id, needed, &task) {
                    Ok(layer) => *place.lock().unwrap_or_else(|e| e.into_inner()) = Some(layer),
                    Err(error) => {
                        next.store(count, Ordering::Relaxed);
                        failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
                    }
                }
            }
        };
        thread::scope(|scope| (0..CONNECTIONS.min(count)).for_each(|_| drop(scope.spawn(work))));
        if let Some(error) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
            return Err(error);
        }
        task.finish();
        Ok(done.into_iter().filter_map(|d| d.into_inner().unwrap_or_else(|e| e.into_inner())).collect())
    }

    fn layer(
        &self,
        index: usize,
        descriptor: &Descriptor,
        diff_id: &Sha256,
        needed: &Needed<'_>,
        task: &Task<'_>,
    ) -> Result<Layer, OciError> {
        if self.report.cancelled() {
            return Err(OciError::Cancelled);
        }
        if let Some(layer) = unpack::from_cache(self.store, &descriptor.digest, diff_id) {
            task.add(descriptor.size);
            return Ok(layer);
        }
        let path = self.blob("layer", descriptor, needed, task)?;
        let cancelled = || self.report.cancelled();
        unpack::unpack(self.store, &path, &descriptor.digest, diff_id, &cancelled).map_err(|source| {
            if cancelled() {
                return OciError::Cancelled;
            }
            OciError::Layer { number: index + 1, reference: self.reference.to_string(), source }
        })
    }

    fn stacked(&self, layers: &[Layer]) -> Result<Tree, OciError> {
        let fits = |number: usize| {
            move |source| OciError::Apply { number, reference: self.reference.to_string(), source }
        };
        let mut edit = apply::empty().map_err(fits(0))?;
        for (index, layer) in layers.iter().enumerate() {
            apply::apply(&mut edit, layer).map_err(fits(index + 1))?;
        }
        apply::with_first_names(edit.into_tree()).map_err(fits(layers.len()))
    }
}
