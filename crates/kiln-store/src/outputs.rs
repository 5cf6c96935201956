//! What instances have written, as the keeper keeps it: a few files for each.

use std::fs;
use std::time::SystemTime;

use kiln_model::InstanceId;

use crate::documents::names_in;
use crate::error::{if_present, on};
use crate::{Result, Store};

/// How the names of files with output end: the newest part, the one before, and what a keeper may have left behind.
pub(crate) const OUTPUT_PARTS: [&str; 3] = [".log", ".log.1", ".log.new"];

/// The output of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOutput {
    /// Whose it is.
    pub instance: InstanceId,
    /// How much, in bytes.
    pub bytes: u64,
    /// When it was last written to.
    pub written: SystemTime,
}

impl Store {
    /// The instances whose output is here, sorted.
    ///
    /// # Errors
    /// What the system refused.
    pub fn outputs(&self) -> Result<Vec<InstanceId>> {
        let names = names_in(&self.output_dir(), ".log")?;
        Ok(names.into_iter().filter_map(|n| n.parse().ok()).collect())
    }

    /// How much output of an instance is here; none if there is none any more.
    ///
    /// # Errors
    /// What the system refused.
    pub fn stored_output(&self, instance: &InstanceId) -> Result<Option<StoredOutput>> {
        let mut found: Option<StoredOutput> = None;
        for part in OUTPUT_PARTS {
            let path = self.output_dir().join(format!("{instance}{part}"));
            let Some(meta) = if_present(fs::metadata(&path)).map_err(on("look for", &path))? else {
                continue;
            };
            let written = meta.modified().map_err(on("look for", &path))?;
            let before = found.map_or((0, written), |found| (found.bytes, found.written));
            found = Some(StoredOutput {
                instance: instance.clone(),
                bytes: before.0 + meta.len(),
                written: before.1.max(written),
            });
        }
        Ok(found)
    }

    /// Removes the output of an instance that is no more.
    ///
    /// # Errors
    /// What the system refused.
    pub fn remove_output(&self, instance: &InstanceId) -> Result<()> {
        // The newest last: as long as any of it is here, that is found.
        for part in OUTPUT_PARTS.into_iter().rev() {
            let path = self.output_dir().join(format!("{instance}{part}"));
            if_present(fs::remove_file(&path)).map_err(on("remove", &path))?;
        }
        Ok(())
    }
}
