//! Packages as the mirror served them, each under its plain sha256.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_model::Sha256;
use sha2::Digest as _;

use crate::error::{READ_GIVEN, if_present, on};
use crate::objects::any_chunk;
use crate::{Result, Store, StoreError};

impl Store {
    /// The package with this hash, if it is here and intact (hashing 40 MB takes about 20 ms; a damaged one counts
    /// as absent, so that it is fetched again).
    ///
    /// # Errors
    /// What the system refused.
    pub fn package(&self, hash: &Sha256) -> Result<Option<PathBuf>> {
        let path = self.package_path(hash);
        let intact = sha256_of(&path)? == Some(*hash);
        Ok(intact.then_some(path))
    }

    /// Keeps the package that `reader` yields; returns where it is.
    ///
    /// # Errors
    /// [`StoreError::WrongHash`] if it is another one; otherwise what the system refused or reading came to.
    pub fn put_package(&self, hash: &Sha256, reader: &mut dyn Read) -> Result<PathBuf> {
        let mut file = self.temp().file()?;
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = reader.read(&mut buffer).map_err(on(READ_GIVEN, file.path()))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            file.write(&buffer[..n])?;
        }
        let found = Sha256(hasher.finalize().into());
        if found != *hash {
            return Err(StoreError::WrongHash { what: "package", expected: *hash, found });
        }
        let path = self.package_path(hash);
        file.persist(&path)?;
        Ok(path)
    }

    pub(crate) fn package_path(&self, hash: &Sha256) -> PathBuf {
        self.dir("packages").join(format!("{hash}.deb"))
    }
}

/// The hash of the file at `path`, if there is one.
pub(crate) fn sha256_of(path: &Path) -> Result<Option<Sha256>> {
    let Some(mut file) = if_present(File::open(path)).map_err(on("open", path))? else { return Ok(None) };
    let mut hasher = sha2::Sha256::new();
    any_chunk(&mut file, path, 128 << 10, |chunk| {
        hasher.update(chunk);
        false
    })?;
    Ok(Some(Sha256(hasher.finalize().into())))
}
