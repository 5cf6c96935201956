//! Looking at everything again.

use std::path::PathBuf;

use kiln_model::{ObjectDigest, Sha256};

use crate::documents::names_in;
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
        let mut found = Vec::new();
        self.verify_objects(&mut found)?;
        self.verify_images(&mut found)?;
        self.verify_packages(&mut found)?;
        self.verify_blobs(&mut found)?;
        for id in self.releases()? {
            note(self.release(&id), &mut found)?;
        }
        Ok(found)
    }

    fn verify_objects(&self, found: &mut Vec<Damage>) -> Result<()> {
        for prefix in names_in(self.objects_dir(), "")? {
            let dir = self.objects_dir().join(&prefix);
            for rest in names_in(&dir, "")? {
                let path = dir.join(&rest);
                let name = format!("{prefix}{rest}").parse::<ObjectDigest>();
                match (name, digest_of(&path)?) {
                    (Ok(name), digest) if name == digest => {}
                    (_, digest) => found.push(Damage { path, problem: format!("its content is {digest}") }),
                }
            }
        }
        Ok(())
    }

    fn verify_images(&self, found: &mut Vec<Damage>) -> Result<()> {
        for image in self.images()? {
            note(self.handle(&image), found)?;
            for object in note(self.image_objects(&image), found)?.flatten().unwrap_or_default() {
                let path = self.objects().path(&object);
                if !path.is_file() {
                    found
                        .push(Damage { path, problem: format!("it is missing, and image {image} needs it") });
                }
            }
        }
        Ok(())
    }

    fn verify_packages(&self, found: &mut Vec<Damage>) -> Result<()> {
        for name in names_in(&self.dir("packages"), ".deb")? {
            let Ok(hash) = name.parse::<Sha256>() else { continue };
            let path = self.package_path(&hash);
            match sha256_of(&path)? {
                Some(content) if content != hash => {
                    found.push(Damage { path, problem: format!("its content has sha256 {content}") });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn verify_blobs(&self, found: &mut Vec<Damage>) -> Result<()> {
        for name in names_in(&self.dir("blobs"), "")? {
            // Drafts are not whole yet, and have another name.
            let Ok(hash) = name.parse::<Sha256>() else { continue };
            let path = self.dir("blobs").join(&name);
            match sha256_of(&path)? {
                Some(content) if content != hash => {
                    found.push(Damage { path, problem: format!("its content has sha256 {content}") });
                }
                _ => {}
            }
        }
        Ok(())
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
