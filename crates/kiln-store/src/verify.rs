//! Looking at everything again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::PathBuf;

use kiln_model::{ImageDigest, ObjectDigest, ReleaseId, Sha256};
use rustix::io::Errno;

use crate::documents::names_in;
use crate::error::{if_present, on};
use crate::objects::digest_of;
use crate::packages::sha256_of;
use crate::{Result, Store, StoreError};

/// Something in the store that is not what its name promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged: {}", self.path.display(), self.problem)
    }
}

/// Who needs a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needing {
    /// Images.
    pub images: BTreeSet<ImageDigest>,
    /// Releases, by those images.
    pub releases: BTreeSet<ReleaseId>,
}

impl Store {
    /// Hashes every object, image, package and release again (about a second for two gigabytes), opens every secret, and
    /// lists what is damaged or missing. Empty if all is well.
    ///
    /// # Errors
    /// What the system refused; that a disk does not give back what it was given is damage.
    pub fn verify(&self) -> Result<Vec<Damage>> {
        Ok(self.verify_counted()?.1)
    }

    /// The same; also how many objects, images, packages, releases and settings of secrets were looked at.
    ///
    /// # Errors
    /// As [`Store::verify`].
    pub fn verify_counted(&self) -> Result<(u64, Vec<Damage>)> {
        let mut found = Vec::new();
        let mut count = self.verify_objects(&mut found)?;
        count += self.verify_images(&mut found)?;
        count += self.verify_packages(&mut found)?;
        count += self.verify_blobs(&mut found)?;
        count += self.verify_secrets(&mut found)?;
        let releases = self.releases()?;
        for id in &releases {
            note(self.release(id), &mut found)?;
        }
        Ok((count + releases.len() as u64, found))
    }

    /// The images and releases that need what is damaged, for each damage. What of that cannot be told because it is
    /// damaged itself is left out.
    ///
    /// # Errors
    /// What the system refused.
    pub fn who_needs(&self, damage: &[Damage]) -> Result<Vec<Needing>> {
        let mut needing = vec![Needing::default(); damage.len()];
        for image in self.images()? {
            let needed = self.files_of(&image)?;
            for (damage, needing) in damage.iter().zip(&mut needing) {
                if needed.contains(&damage.path) || damage.path.starts_with(self.image_dir(&image)) {
                    needing.images.insert(image);
                }
            }
        }
        for id in self.releases()? {
            let Some(release) = note(self.release(&id), &mut Vec::new())? else { continue };
            for needing in &mut needing {
                if release.services.values().any(|service| needing.images.contains(&service.image)) {
                    needing.releases.insert(id.clone());
                }
            }
        }
        Ok(needing)
    }

    /// The objects and packages of an image.
    fn files_of(&self, image: &ImageDigest) -> Result<BTreeSet<PathBuf>> {
        let unread = &mut Vec::new();
        let objects = note(self.image_objects(image), unread)?.flatten().unwrap_or_default();
        let packages = note(self.packages_of(image), unread)?.flatten().unwrap_or_default();
        let objects = objects.iter().map(|object| self.objects().path(object));
        Ok(objects.chain(packages.iter().map(|package| self.package_path(package))).collect())
    }

    /// Removes a damaged object, image, package or blob, so that the next bake makes it again: what is missing is made, what
    /// has the right name and size is taken for what it says. Whether it was one of these and was there.
    ///
    /// # Errors
    /// What the system refused.
    pub fn discard(&self, damage: &Damage) -> Result<bool> {
        let places =
            [self.objects_dir().to_owned(), self.dir("images"), self.dir("packages"), self.dir("blobs")];
        if !places.iter().any(|place| damage.path.starts_with(place)) {
            return Ok(false);
        }
        Ok(if_present(fs::remove_file(&damage.path)).map_err(on("remove", &damage.path))?.is_some())
    }

    fn verify_objects(&self, found: &mut Vec<Damage>) -> Result<u64> {
        let mut count = 0;
        for prefix in names_in(self.objects_dir(), "")? {
            let dir = self.objects_dir().join(&prefix);
            for rest in names_in(&dir, "")? {
                count += 1;
                let path = dir.join(&rest);
                let name = format!("{prefix}{rest}").parse::<ObjectDigest>();
                let Some(digest) = note(digest_of(&path), found)? else { continue };
                if name.ok() != Some(digest) {
                    found.push(Damage { path, problem: format!("its content is {digest}") });
                }
            }
        }
        Ok(count)
    }

    fn verify_images(&self, found: &mut Vec<Damage>) -> Result<u64> {
        let images = self.images()?;
        // What many images share is missing once.
        let mut missing: BTreeMap<PathBuf, BTreeSet<ImageDigest>> = BTreeMap::new();
        for image in &images {
            note(self.handle(image), found)?;
            for object in note(self.image_objects(image), found)?.flatten().unwrap_or_default() {
                let path = self.objects().path(&object);
                if !path.is_file() {
                    missing.entry(path).or_default().insert(*image);
                }
            }
        }
        found.extend(missing.into_iter().map(|(path, images)| Damage { path, problem: missed_by(&images) }));
        Ok(images.len() as u64)
    }

    /// Whether every value can be had. A key that is gone is one damage, however many values it takes with it.
    fn verify_secrets(&self, found: &mut Vec<Damage>) -> Result<u64> {
        let mut count = 0;
        for app in self.apps_with_secrets()? {
            for setting in self.secret_settings(&app)? {
                count += 1;
                let shut = match setting.problem {
                    Some(StoreError::Key { path, problem }) => Damage { path, problem },
                    Some(StoreError::NoKey { path }) => {
                        Damage { path, problem: "it is missing, and nothing else opens the secrets".into() }
                    }
                    Some(error) => damage(error)?,
                    None => continue,
                };
                if !found.contains(&shut) {
                    found.push(shut);
                }
            }
        }
        Ok(count)
    }

    fn verify_packages(&self, found: &mut Vec<Damage>) -> Result<u64> {
        let mut count = 0;
        for name in names_in(&self.dir("packages"), ".deb")? {
            let Ok(hash) = name.parse::<Sha256>() else { continue };
            count += 1;
            let path = self.package_path(&hash);
            match note(sha256_of(&path), found)?.flatten() {
                Some(content) if content != hash => {
                    found.push(Damage { path, problem: format!("its content has sha256 {content}") });
                }
                _ => {}
            }
        }
        Ok(count)
    }

    fn verify_blobs(&self, found: &mut Vec<Damage>) -> Result<u64> {
        let mut count = 0;
        for name in names_in(&self.dir("blobs"), "")? {
            // Drafts are not whole yet, and have another name.
            let Ok(hash) = name.parse::<Sha256>() else { continue };
            count += 1;
            let path = self.dir("blobs").join(&name);
            match note(sha256_of(&path), found)?.flatten() {
                Some(content) if content != hash => {
                    found.push(Damage { path, problem: format!("its content has sha256 {content}") });
                }
                _ => {}
            }
        }
        Ok(count)
    }
}

fn missed_by(images: &BTreeSet<ImageDigest>) -> String {
    match images.first() {
        Some(image) if images.len() == 1 => format!("it is missing, and image {image} needs it"),
        _ => format!("it is missing, and {} images need it", images.len()),
    }
}

/// Damage is a finding, everything else an error.
pub(crate) fn note<T>(answer: Result<T>, found: &mut Vec<Damage>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            found.push(damage(error)?);
            Ok(None)
        }
    }
}

fn damage(error: StoreError) -> Result<Damage> {
    match error {
        StoreError::Damaged { path, problem } => Ok(Damage { path, problem }),
        StoreError::Io { path, source, .. } if is_broken_disk(&source) => {
            Ok(Damage { path, problem: format!("it cannot be read: {source}") })
        }
        other => Err(other),
    }
}

/// Whether an error is about one file that is not what it was.
pub(crate) fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Damaged { .. } => true,
        StoreError::Io { source, .. } => is_broken_disk(source),
        _ => false,
    }
}

fn is_broken_disk(error: &std::io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::IO)
}
