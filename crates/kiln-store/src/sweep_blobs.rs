//! Which parts of OCI images are still needed.
//!
//! An image that started from one names its manifest in its provenance, the manifest names configuration and layers.
//! What no kept image leads to goes, layers made for an export among it: they are made again when one is wanted.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use kiln_model::Sha256;

use crate::broom::{Broom, is_young};
use crate::documents::names_in;
use crate::error::on;
use crate::sweep::hashes;
use crate::{Result, Store};

/// No manifest is larger.
const LARGEST_MANIFEST: u64 = 4 << 20;

impl Store {
    /// Sweeps the blobs that nothing in `roots`, the hashes of all that kept images were made from, leads to.
    pub(crate) fn sweep_blobs(
        &self,
        roots: &BTreeSet<Sha256>,
        grace: Duration,
        broom: &mut Broom,
    ) -> Result<()> {
        let names = names_in(&self.dir("blobs"), "")?;
        let here = names.iter().filter_map(|name| name.parse::<Sha256>().ok());
        let mut needed: BTreeSet<Sha256> = here.filter(|hash| roots.contains(hash)).collect();
        for manifest in needed.clone() {
            needed.extend(self.named_in(&manifest)?);
        }
        for name in names {
            let path = self.dir("blobs").join(&name);
            // What is no hash is a draft: what a broken download left, to go on with.
            let is_needed = name.parse().is_ok_and(|hash| needed.contains(&hash));
            if !is_needed && !is_young(&path, grace)? {
                broom.file("blob", &path)?;
            }
        }
        Ok(())
    }

    /// The digests in a blob, if it is a document.
    fn named_in(&self, blob: &Sha256) -> Result<BTreeSet<Sha256>> {
        let path = self.blob_path(blob);
        let mut found = BTreeSet::new();
        if fs::metadata(&path).map_err(on("look for", &path))?.len() <= LARGEST_MANIFEST {
            let bytes = fs::read(&path).map_err(on("read", &path))?;
            if let Ok(document) = serde_json::from_slice(&bytes) {
                hashes(&document, &mut found);
            }
        }
        Ok(found)
    }
}
