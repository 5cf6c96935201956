//! Letting go of what nothing needs any more.
//!
//! A release leads to images, an image to objects, packages and the OCI image it started from. What no release that is
//! kept leads to is swept, but for images younger than [`Keep::grace`] (somebody may have baked one to deploy it next)
//! and handmade ones that have a name. While a sweep goes on nobody bakes or deploys ([`Store::while_in_use`]), so
//! nothing that is being made can be taken for garbage.
//!
//! The order makes it safe to die anywhere: a release goes before its images, an image's record before its files, all
//! of them before objects. What is left of a sweep that was broken off leads nowhere, and the next one takes it.

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::time::Duration;

use kiln_model::{ImageDigest, ImageRecord, InstanceId, ObjectDigest, ReleaseId, Sha256, Swept};
use rustix::fs::{FlockOperation, flock};

use crate::broom::{Broom, is_young, remove};
use crate::documents::names_in;
use crate::error::{if_present, on};
use crate::outputs::OUTPUT_PARTS;
use crate::temp::remove_abandoned;
use crate::verify::note;
use crate::{Damage, Result, Store, StoreError};

/// How long an image that no release needs is left alone, unless it is said otherwise.
pub const GRACE: Duration = Duration::from_secs(3600);

/// What a sweep must leave.
#[derive(Debug, Clone)]
pub struct Keep {
    /// Releases to keep; all others go.
    pub releases: BTreeSet<ReleaseId>,
    /// Instances whose output stays; that of all others goes.
    pub outputs: BTreeSet<InstanceId>,
    /// Images and packages that were written less than this ago stay: somebody may have baked one to deploy it next.
    pub grace: Duration,
    /// Images that do not stay for that: they were deployed, and their releases go now.
    pub served: BTreeSet<ImageDigest>,
    /// Whether caches go as well.
    pub caches: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            releases: BTreeSet::new(),
            outputs: BTreeSet::new(),
            grace: GRACE,
            served: BTreeSet::new(),
            caches: false,
        }
    }
}

/// The right to sweep.
#[derive(Debug)]
pub struct Sweeper {
    store: Store,
    /// Images do not change, and a search for what has to go sweeps dry again and again.
    needs: RefCell<BTreeMap<ImageDigest, Needs>>,
    /// What is recorded of images where they are found by inputs.
    by_inputs: BTreeMap<ImageDigest, Vec<ImageRecord>>,
    _file: File,
}

/// What an image needs.
#[derive(Debug)]
struct Needs {
    objects: BTreeSet<ObjectDigest>,
    /// And whatever else it was made from; none if it is not known.
    packages: Option<BTreeSet<Sha256>>,
    /// What is damaged of its record and its documents.
    damage: Vec<Damage>,
}

impl Sweeper {
    /// Removes everything that `keep` does not lead to; with `dry_run`, only says what that is.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it cannot be told which objects a kept release needs, and then nothing was removed;
    /// otherwise what the system refused.
    pub fn sweep(&self, keep: &Keep, dry_run: bool) -> Result<Swept> {
        self.store.sweep(&self.needed_by(keep)?, keep, dry_run)
    }

    fn needed_by(&self, keep: &Keep) -> Result<Marked> {
        let store = &self.store;
        let mut marked = Marked { packages: Some(BTreeSet::new()), ..Marked::default() };
        for id in &keep.releases {
            marked.images.extend(store.release(id)?.services.values().map(|s| s.image));
        }
        let named: BTreeSet<ImageDigest> = store.handmade()?.into_values().collect();
        for image in store.images()? {
            let is_young = || is_young(&store.image_dir(&image).join("record.json"), keep.grace);
            if named.contains(&image) || (!keep.served.contains(&image) && is_young()?) {
                marked.images.insert(image);
            }
        }
        let mut known = self.needs.borrow_mut();
        for image in &marked.images {
            let needs = match known.entry(*image) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.needs_of(image)?),
            };
            marked.objects.extend(&needs.objects);
            marked.damaged.extend(needs.damage.first().map(|damage| (*image, damage.to_string())));
            match (&mut marked.packages, &needs.packages) {
                (Some(all), Some(more)) => all.extend(more),
                // Where it is not known which packages an image needs, all stay.
                _ => marked.packages = None,
            }
        }
        Ok(marked)
    }

    /// What an image needs, and what everybody who came to the same made it from.
    fn needs_of(&self, image: &ImageDigest) -> Result<Needs> {
        let mut needs = self.store.needs_of(image)?;
        for record in self.by_inputs.get(image).into_iter().flatten() {
            needs.objects.extend(record.documents.values());
            if !record.documents.values().all(|document| self.store.objects().path(document).is_file()) {
                // Nobody finds it by that any more.
                continue;
            }
            let more = note(self.store.packages_in(record), &mut Vec::new())?.flatten();
            needs.packages = match (needs.packages, more) {
                (Some(all), Some(more)) => Some(all.into_iter().chain(more).collect()),
                _ => None,
            };
        }
        Ok(needs)
    }
}

/// Held while something is baked or deployed.
#[derive(Debug)]
pub struct InUse {
    _file: File,
}

impl Store {
    /// Keeps sweeps away; waits for one that goes on.
    ///
    /// # Errors
    /// What the system refused.
    pub fn while_in_use(&self) -> Result<InUse> {
        let (file, path) = self.use_lock()?;
        flock(&file, FlockOperation::LockShared).map_err(|e| on("lock", &path)(e.into()))?;
        Ok(InUse { _file: file })
    }

    fn use_lock(&self) -> Result<(File, PathBuf)> {
        let path = self.run_dir().join("in-use");
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        Ok((opened.map_err(on("open the lock", &path))?, path))
    }

    /// The right to sweep: while it is held, nothing is baked or deployed.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if something is; otherwise what the system refused.
    pub fn sweeper(&self) -> Result<Sweeper> {
        let (file, path) = self.use_lock()?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let mut by_inputs: BTreeMap<_, Vec<_>> = BTreeMap::new();
                for record in self.image_records_by_inputs()? {
                    by_inputs.entry(record.digest).or_default().push(record);
                }
                Ok(Sweeper { store: self.clone(), needs: RefCell::default(), by_inputs, _file: file })
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse),
            Err(e) => Err(on("lock", &path)(e.into())),
        }
    }

    /// What the parts of the store that a sweep looks at take, in bytes.
    ///
    /// # Errors
    /// What the system refused.
    pub fn size(&self) -> Result<u64> {
        let parts =
            ["objects", "images", "packages", "blobs", "releases", "cache"].map(|part| self.dir(part));
        let mut rest: Vec<PathBuf> = parts.into_iter().chain([self.output_dir()]).collect();
        let mut bytes = 0;
        while let Some(path) = rest.pop() {
            let Some(meta) = if_present(fs::symlink_metadata(&path)).map_err(on("look for", &path))? else {
                continue;
            };
            if meta.is_dir() {
                rest.extend(names_in(&path, "")?.iter().map(|name| path.join(name)));
            } else {
                bytes += meta.len();
            }
        }
        Ok(bytes)
    }

    fn sweep(&self, marked: &Marked, keep: &Keep, dry_run: bool) -> Result<Swept> {
        let swept = Swept { damaged: marked.damaged.clone(), ..Swept::default() };
        let mut broom = Broom { dry_run, swept };
        for id in self.releases()?.into_iter().filter(|id| !keep.releases.contains(id)) {
            broom.release(self, &id)?;
        }
        self.sweep_images(marked, keep, &mut broom)?;
        self.sweep_objects(marked, &mut broom)?;
        self.sweep_packages(marked, keep.grace, &mut broom)?;
        if let Some(needed) = &marked.packages {
            self.sweep_blobs(needed, keep.grace, &mut broom)?;
        }
        for part in OUTPUT_PARTS {
            for name in names_in(&self.output_dir(), part)? {
                if name.parse::<InstanceId>().is_ok_and(|id| !keep.outputs.contains(&id)) {
                    broom.file("output", &self.output_dir().join(format!("{name}{part}")))?;
                }
            }
        }
        if keep.caches {
            for kind in names_in(&self.dir("cache"), "")? {
                broom.files("cache", &self.dir("cache").join(kind))?;
            }
        }
        if !dry_run {
            self.sweep_hints(keep.grace)?;
            // A host may run for years without opening its store again, and bakes beside it are interrupted.
            remove_abandoned(&self.dir("tmp"))?;
        }
        Ok(broom.swept)
    }

    /// Hints that lead to no image. They are worth nothing to anybody, and not counted.
    fn sweep_hints(&self, grace: Duration) -> Result<()> {
        let dir = self.dir("inputs");
        for name in names_in(&dir, "")? {
            let hint = dir.join(name);
            let leads = match Self::hinted(&hint)? {
                // One that is damaged is there, and has its name from here.
                Some(image) => note(self.image(&image), &mut Vec::new())?.is_none_or(|found| found.is_some()),
                None => false,
            };
            if !leads && !is_young(&hint, grace)? {
                remove(&hint)?;
            }
        }
        Ok(())
    }

    fn needs_of(&self, image: &ImageDigest) -> Result<Needs> {
        let Some(mut objects) = self.image_objects(image)? else {
            let list = self.image_dir(image).join("objects");
            return Err(StoreError::damaged(&list, "it is missing, so nothing can be swept"));
        };
        let mut damage = Vec::new();
        let packages = match note(self.image(image), &mut damage)? {
            Some(None) => return Err(StoreError::NoSuchImage(*image)),
            Some(Some(record)) => {
                objects.extend(record.documents.values());
                note(self.packages_in(&record), &mut damage)?.flatten()
            }
            // The list has its documents as well.
            None => None,
        };
        Ok(Needs { objects, packages, damage })
    }

    /// The hashes of everything an image was made from, as its documents have them; none if it has none.
    pub(crate) fn packages_of(&self, image: &ImageDigest) -> Result<Option<BTreeSet<Sha256>>> {
        Ok(self.image(image)?.map(|record| self.packages_in(&record)).transpose()?.flatten())
    }

    /// The same of one record of an image.
    pub(crate) fn packages_in(&self, record: &ImageRecord) -> Result<Option<BTreeSet<Sha256>>> {
        let mut found = BTreeSet::new();
        let mut any = false;
        for name in [ImageRecord::SBOM, ImageRecord::PROVENANCE] {
            let Some(document) = record.documents.get(name) else { continue };
            let bytes = self.objects().read(document)?;
            let Ok(document) = serde_json::from_slice::<serde_json::Value>(&bytes) else { continue };
            any = true;
            hashes(&document, &mut found);
        }
        Ok(any.then_some(found))
    }

    fn sweep_images(&self, marked: &Marked, keep: &Keep, broom: &mut Broom) -> Result<()> {
        for name in names_in(&self.dir("images"), "")? {
            let Ok(digest) = name.parse::<ImageDigest>() else { continue };
            let dir = self.image_dir(&digest);
            let has_served = keep.served.contains(&digest);
            if !marked.images.contains(&digest) && (has_served || !is_young(&dir, keep.grace)?) {
                // What goes need not be whole.
                let record = note(self.image(&digest), &mut Vec::new())?.flatten();
                let name = record.map(|record| record.name);
                broom.swept.images.insert(digest, name);
                broom.image(&dir)?;
            }
        }
        Ok(())
    }

    fn sweep_objects(&self, marked: &Marked, broom: &mut Broom) -> Result<()> {
        for prefix in names_in(self.objects_dir(), "")? {
            let dir = self.objects_dir().join(&prefix);
            for rest in names_in(&dir, "")? {
                let object = format!("{prefix}{rest}").parse::<ObjectDigest>();
                if object.is_ok_and(|o| !marked.objects.contains(&o)) {
                    broom.file("object", &dir.join(&rest))?;
                }
            }
        }
        Ok(())
    }

    fn sweep_packages(&self, marked: &Marked, grace: Duration, broom: &mut Broom) -> Result<()> {
        let Some(needed) = &marked.packages else { return Ok(()) };
        for name in names_in(&self.dir("packages"), ".deb")? {
            let Ok(hash) = name.parse::<Sha256>() else { continue };
            let path = self.package_path(&hash);
            if !needed.contains(&hash) && !is_young(&path, grace)? {
                broom.file("package", &path)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Marked {
    images: BTreeSet<ImageDigest>,
    objects: BTreeSet<ObjectDigest>,
    /// And whatever else they were made from; none if it is not known.
    packages: Option<BTreeSet<Sha256>>,
    /// Images that stay and are damaged, and how.
    damaged: BTreeMap<ImageDigest, String>,
}

/// Everything in a document that is the sha256 of something.
pub(crate) fn hashes(value: &serde_json::Value, found: &mut BTreeSet<Sha256>) {
    match value {
        serde_json::Value::String(text) => found.extend(text.parse::<Sha256>()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| hashes(item, found)),
        serde_json::Value::Object(fields) => fields.values().for_each(|field| hashes(field, found)),
        _ => {}
    }
}
