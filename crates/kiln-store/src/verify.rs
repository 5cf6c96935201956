//! Looking at everything again.

use std::fs;
use std::path::PathBuf;

use kiln_model::{ObjectDigest, Sha256};

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

impl Store {
    /// Hashes every object, image, package and release again (about a second for two gigabytes), and lists what is
    /// damaged or missing. Empty if all is well.
    ///
    /// # Errors
    /// What the system refused; reading errors of a disk are among that.
    pub fn verify(&self) -> Result<Vec<Damage>> {
        Ok(self.verify_counted()?.1)
    }

    /// The same; also how many objects, images, packages and releases were looked at.
    ///
    /// # Errors
    /// As [`Store::verify`].
    pub fn verify_counted(&self) -> Result<(u64, Vec<Damage>)> {
        let mut found = Vec::new();
        let mut count = self.verify_objects(&mut found)?;
        count += self.verify_images(&mut found)?;
        count += self.verify_packages(&mut found)?;
        count += self.verify_blobs(&mut found)?;
        let releases = self.releases()?;
        for id in &releases {
            note(self.release(id), &mut found)?;
        }
        Ok((count + releases.len() as u64, found))
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
                match (name, digest_of(&path)?) {
                    (Ok(name), digest) if name == digest => {}
                    (_, digest) => found.push(Damage { path, problem: format!("its content is {digest}") }),
                }
            }
        }
        Ok(count)
    }

    fn verify_images(&self, found: &mut Vec<Damage>) -> Result<u64> {
        let images = self.images()?;
        for image in &images {
            note(self.handle(image), found)?;
            for object in note(self.image_objects(image), found)?.flatten().unwrap_or_default() {
                let path = self.objects().path(&object);
                if !path.is_file() {
                    found
                        .push(Damage { path, problem: format!("it is missing, and image {image} needs it") });
                }
            }
        }
        Ok(images.len() as u64)
    }

    fn verify_packages(&self, found: &mut Vec<Damage>) -> Result<u64> {
        let mut count = 0;
        for name in names_in(&self.dir("packages"), ".deb")? {
            let Ok(hash) = name.parse::<Sha256>() else { continue };
            count += 1;
            let path = self.package_path(&hash);
            match sha256_of(&path)? {
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
            match sha256_of(&path)? {
                Some(content) if content != hash => {
                    found.push(Damage { path, problem: format!("its content has sha256 {content}") });
                }
                _ => {}
            }
        }
        Ok(count)
    }
}

/// Damage is a finding, everything else an error.
fn note<T>(answer: Result<T>, found: &mut Vec<Damage>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Damaged { path, problem }) => {
            found.push(Damage { path, problem });
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
