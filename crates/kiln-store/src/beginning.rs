//! A state directory that is made for something that may fail: then it goes again.

use std::fs;
use std::path::{Path, PathBuf};

/// What was not there before a state directory was made.
#[derive(Debug)]
pub struct Beginning {
    root: PathBuf,
    /// The directories that lead to it and it itself, the innermost first, as far as they were not there.
    missing: Vec<PathBuf>,
}

impl Beginning {
    /// Looks at where a state directory is to be made. None if there is one, or something else.
    pub fn at(root: &Path) -> Option<Self> {
        let root = std::path::absolute(root).ok()?;
        let missing: Vec<PathBuf> =
            root.ancestors().take_while(|dir| !dir.exists()).map(Path::to_owned).collect();
        let is_empty = || fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_none());
        (!missing.is_empty() || is_empty()).then_some(Self { root, missing })
    }

    /// Removes what was made since. For whoever holds the host lock, and has nothing to keep; what cannot be removed
    /// stays, and is a state directory like any other.
    pub fn undo(self) {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        for entry in entries {
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
        // Only empty ones: others may have put something there.
        let _ = self.missing.iter().try_for_each(fs::remove_dir);
    }
}
