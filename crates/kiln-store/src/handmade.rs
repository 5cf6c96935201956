//! The names of handmade images.
//!
//! Baked images are found by their inputs; a handmade one has none, and is kept as long as it has its name.

use std::collections::BTreeMap;

use kiln_model::{ImageDigest, ImageName};

use crate::{Result, Store};

const NAMES: &str = "handmade";

impl Store {
    /// The handmade images by name.
    ///
    /// # Errors
    /// [`crate::StoreError::Damaged`], or what the system refused.
    pub fn handmade(&self) -> Result<BTreeMap<ImageName, ImageDigest>> {
        Ok(self.state(NAMES)?.unwrap_or_default())
    }

    /// Gives a handmade image a name; the one that had it before has it no more. One caller at a time.
    ///
    /// # Errors
    /// As [`Store::handmade`].
    pub fn name_handmade(&self, name: &ImageName, image: &ImageDigest) -> Result<()> {
        let mut names = self.handmade()?;
        names.insert(name.clone(), *image);
        self.put_state(NAMES, &names)
    }
}
