//! What a sweep does to one thing after another.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use kiln_model::{ReleaseId, Swept};

use crate::boundary::changed;
use crate::documents::names_in;
use crate::error::{if_present, on};
use crate::temp::sync_dir;
use crate::{Result, Store};

/// Removes, or counts what it would.
pub(crate) struct Broom {
    pub(crate) dry_run: bool,
    pub(crate) swept: Swept,
}

impl Broom {
    pub(crate) fn release(&mut self, store: &Store, id: &ReleaseId) -> Result<()> {
        self.swept.releases.insert(id.clone());
        if self.dry_run {
            return Ok(());
        }
        let path = store.release_path(id);
        remove(&path)?;
        sync_dir(path.parent().unwrap_or(&path))?;
        let documents = store.release_documents_dir(id);
        match if_present(fs::metadata(&documents)).map_err(on("look for", &documents))? {
            Some(_) => remove_all(&documents),
            None => Ok(()),
        }
    }

    /// The record first: without it there is no image, only files.
    pub(crate) fn image(&mut self, dir: &Path) -> Result<()> {
        let bytes = size(&dir.join("metadata.erofs"))?;
        self.count("image", bytes);
        if self.dry_run {
            return Ok(());
        }
        let record = dir.join("record.json");
        if if_present(fs::metadata(&record)).map_err(on("look for", &record))?.is_some() {
            remove(&record)?;
            sync_dir(dir)?;
        }
        remove_all(dir)
    }

    pub(crate) fn file(&mut self, kind: &'static str, path: &Path) -> Result<()> {
        self.count(kind, size(path)?);
        if self.dry_run { Ok(()) } else { remove(path) }
    }

    pub(crate) fn files(&mut self, kind: &'static str, dir: &Path) -> Result<()> {
        names_in(dir, "")?.iter().try_for_each(|name| self.file(kind, &dir.join(name)))
    }

    fn count(&mut self, kind: &'static str, bytes: u64) {
        let amount = self.swept.amounts.entry(kind.to_owned()).or_default();
        amount.count += 1;
        amount.bytes += bytes;
    }
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    let remove = || match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(on("remove", path)),
    };
    changed("remove", || path.to_owned(), remove)
}

fn remove_all(dir: &Path) -> Result<()> {
    changed("remove", || dir.to_owned(), || fs::remove_dir_all(dir).map_err(on("remove", dir)))
}

fn size(path: &Path) -> Result<u64> {
    let found = if_present(fs::metadata(path)).map_err(on("look for", path))?;
    Ok(found.map_or(0, |m| m.len()))
}

/// Whether it was written lately; what is not there is not young.
pub(crate) fn is_young(path: &Path, grace: Duration) -> Result<bool> {
    let Some(meta) = if_present(fs::metadata(path)).map_err(on("look for", path))? else { return Ok(false) };
    let written = meta.modified().map_err(on("look for", path))?;
    // A clock that went back makes everything young: nothing is lost by that.
    Ok(SystemTime::now().duration_since(written).map_or(true, |age| age < grace))
}
