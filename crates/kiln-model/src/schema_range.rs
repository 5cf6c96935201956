//! Which versions of its data's schema a release works with.

use serde::{Deserialize, Serialize};

use crate::{Release, ReleaseId};

/// The versions of the schema a release works with. It leaves the data at the newest of them: that is what its
/// migration makes of older ones, and a release that does not know that version cannot come after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaRange {
    /// The oldest.
    pub oldest: u32,
    /// The newest, and the one the data has once the release serves.
    pub newest: u32,
}

/// The data is of a version that a release does not work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} works with data of schema {} to {}, and the data is of schema {found}",
    release.short(), range.oldest, range.newest
)]
pub struct WrongSchema {
    /// The release that was to serve.
    pub release: ReleaseId,
    /// What it works with.
    pub range: SchemaRange,
    /// The version of the data.
    pub found: u32,
}

impl WrongSchema {
    /// The way out.
    pub fn hint(&self) -> String {
        let Self { range, found, .. } = self;
        if *found > range.newest {
            let newest = range.newest;
            // One that was to be deployed is none to go back to: any that works with the data will do.
            format!(
                "go forward: deploy a release whose `[deploy] schema` takes in {found}; or bring the data back to \
                 schema {newest} and say so with a release that works with it: `kiln rollback RELEASE --schema {newest}`"
            )
        } else {
            format!("first deploy a release that brings the data to schema {} or newer", range.oldest)
        }
    }
}

impl Release {
    /// Whether it works with data of schema `found`, if that is known. A release that declares nothing works with
    /// everything.
    ///
    /// # Errors
    /// If not.
    pub fn works_with(&self, found: Option<u32>) -> Result<(), WrongSchema> {
        match (self.schema, found) {
            (Some(range), Some(found)) if !(range.oldest..=range.newest).contains(&found) => {
                Err(WrongSchema { release: self.id(), range, found })
            }
            _ => Ok(()),
        }
    }
}
