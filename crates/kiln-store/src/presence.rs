//! Whether many objects are there, asked again and again.
//!
//! Looking for each of 200,000 objects takes longer than everything else a bake has to do when one file has changed.
//! So it is remembered in what state the 256 directories of objects were when all were found: only in a directory that
//! has changed since (something came or went) is looked again. Whoever removes an object, by whatever means, changes
//! its directory; nobody has to tell.

use std::fs;
use std::os::unix::fs::MetadataExt;

use kiln_model::{ObjectDigest, Sha256};

use crate::{Result, Store};

/// The number changes with the format.
const SEEN: &str = "objects-seen-1";
/// Inode, seconds and nanoseconds of the change.
const MARK: usize = 24;
const DIRECTORIES: usize = 256;
const THREADS: usize = 4;
/// A thread is not worth its start for fewer.
const AT_ONCE: usize = 500;

/// An object, and its size if it is known.
pub type Wanted = (ObjectDigest, Option<u64>);

impl Store {
    /// Whether all objects of a list are there, in the size given if one is. `key` stands for the list; another list
    /// needs another. The list is only asked for if there is something to look at. Contents are not looked at.
    ///
    /// # Errors
    /// What the system refused, or what `list` came to.
    pub fn has_all(&self, key: &Sha256, list: impl FnOnce() -> Result<Vec<Wanted>>) -> Result<bool> {
        // Taken before anything is looked at: what changes meanwhile is looked at the next time.
        let now: Vec<u8> = (0..DIRECTORIES).flat_map(|n| self.mark(n)).collect();
        let seen = self.cache_get(SEEN, key).filter(|seen| seen.len() == now.len());
        if seen.as_ref() == Some(&now) {
            return Ok(true);
        }
        let same = |n: usize| {
            let range = n * MARK..(n + 1) * MARK;
            seen.as_ref().is_some_and(|seen| seen[range.clone()] == now[range])
        };
        let settled: Vec<bool> = (0..DIRECTORIES).map(same).collect();
        let list = list()?;
        let open: Vec<_> = list.iter().filter(|w| !settled[usize::from(w.0.0.0[0])]).collect();
        let all_there = self.are_there(&open)?;
        if all_there {
            self.cache_put(SEEN, key, &now)?;
        }
        Ok(all_there)
    }

    fn is_there(&self, (digest, size): &Wanted) -> Result<bool> {
        match size {
            Some(size) => self.objects().contains(digest, *size),
            None => Ok(self.objects().path(digest).is_file()),
        }
    }

    /// Several at a time where there are many: what takes long is waiting for the directories.
    fn are_there(&self, objects: &[&Wanted]) -> Result<bool> {
        let each = objects.len().div_ceil(THREADS).max(AT_ONCE);
        let part = |part: &[&Wanted]| -> Result<bool> {
            for wanted in part {
                if !self.is_there(wanted)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        if objects.len() <= each {
            return part(objects);
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = objects.chunks(each).map(|p| scope.spawn(move || part(p))).collect();
            threads.into_iter().try_fold(true, |all, t| match t.join() {
                Ok(found) => Ok(all && found?),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    /// In what state the `n`-th directory of objects is; one that is not there has a state as well.
    fn mark(&self, n: usize) -> [u8; MARK] {
        let mut mark = [0; MARK];
        if let Ok(meta) = fs::symlink_metadata(self.objects_dir().join(format!("{n:02x}"))) {
            mark[..8].copy_from_slice(&meta.ino().to_le_bytes());
            mark[8..16].copy_from_slice(&meta.mtime().to_le_bytes());
            mark[16..].copy_from_slice(&meta.mtime_nsec().to_le_bytes());
        }
        mark
    }
}
