//! Whether many objects are there, and as they were, asked again and again.
//!
//! Looking for each of 200,000 objects takes longer than everything else a bake has to do when one file has changed.
//! So it is remembered in what state the 256 directories of objects were when all were found: only in a directory that
//! has changed since (something came or went) is looked again. Whoever removes an object, by whatever means, changes
//! its directory; nobody has to tell.
//!
//! Whoever writes into an object changes nothing about its directory. So the state of each object (inode, size, time) is
//! remembered as well, and compared for as many of them as a moment allows: all of an image of usual size, a part of a
//! larger one, another part each time. An object in another state is read, and one that is not what its name says is
//! removed, so that it is made again. What a disk loses without a trace in the file's state is found by
//! [`Store::verify`].
//!
//! ```text
//! cache/objects-seen-2/<key>:   256 times inode, seconds, nanoseconds of a directory   (24 bytes each)
//!                               per object its digest (32 bytes) and its stamp (8 bytes)
//! ```

use std::fs::{self, Metadata};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_model::{ObjectDigest, Sha256};

use crate::error::{if_present, on};
use crate::objects::digest_of;
use crate::{Result, Store};

/// The number changes with the format.
const SEEN: &str = "objects-seen-2";
/// Inode, seconds and nanoseconds of the change.
const MARK: usize = 24;
const DIRECTORIES: usize = 256;
const MARKS: usize = MARK * DIRECTORIES;
/// A digest and a stamp.
const ENTRY: usize = 40;
const THREADS: usize = 4;
/// A thread is not worth its start for fewer.
const AT_ONCE: usize = 500;

/// An object, and its size if it is known.
pub type Wanted = (ObjectDigest, Option<u64>);

/// How many objects whose directories have not changed are looked at themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A few: about a millisecond's worth.
    Glance,
    /// As many as an image of usual size has: some milliseconds' worth.
    Long,
}

impl Look {
    fn most(self) -> usize {
        match self {
            Self::Glance => 1 << 10,
            Self::Long => 1 << 13,
        }
    }
}

/// In what state an object was.
type Stamp = u64;
type Seen = (ObjectDigest, Stamp);

impl Store {
    /// Whether all objects of a list are there, in the size given if one is, and unchanged as far as `look` goes. `key`
    /// stands for the list; another list needs another. The list is only asked for if there is something new to look
    /// at. A damaged object that is noticed counts as missing, and is from then on.
    ///
    /// # Errors
    /// What the system refused, or what `list` came to.
    pub fn has_all(
        &self,
        key: &Sha256,
        look: Look,
        list: impl FnOnce() -> Result<Vec<Wanted>>,
    ) -> Result<bool> {
        // Taken before anything is looked at: what changes meanwhile is looked at the next time.
        let now: Vec<u8> = (0..DIRECTORIES).flat_map(|n| self.mark(n)).collect();
        let seen = self.cache_get(SEEN, key).and_then(|bytes| decode(&bytes));
        if let Some((marks, seen)) = &seen
            && *marks == now
        {
            return match self.changed(part(seen, look))? {
                changed if changed.is_empty() => Ok(true),
                changed => self.look_into(key, &now, seen, &changed),
            };
        }
        let (marks, seen) = seen.unwrap_or_default();
        self.look_for(key, &now, &marks, &seen, &list()?)
    }

    /// Looks for those of `list` whose directory is not as `marks` say, and takes the state of those that are new.
    fn look_for(
        &self,
        key: &Sha256,
        now: &[u8],
        marks: &[u8],
        seen: &[Seen],
        list: &[Wanted],
    ) -> Result<bool> {
        // The same list has the same order.
        let known = |n: usize, digest| seen.get(n).filter(|(d, _)| d == digest).map(|(_, stamp)| *stamp);
        let settled = |digest: &ObjectDigest| {
            let n = usize::from(digest.0.0[0]) * MARK;
            let range = n..n + MARK;
            marks.get(range.clone()).is_some_and(|mark| *mark == now[range])
        };
        let gone = AtomicBool::new(false);
        let state = |n: &usize| -> Result<Seen> {
            let (digest, size) = &list[*n];
            let was = known(*n, digest);
            if let Some(stamp) = was.filter(|_| settled(digest)) {
                return Ok((*digest, stamp));
            }
            let meta = self.state_of(digest)?;
            let Some(meta) = meta.filter(|m| m.is_file() && size.is_none_or(|size| size == m.len())) else {
                gone.store(true, Ordering::Relaxed);
                return Ok((*digest, 0));
            };
            let is = stamp(&meta);
            if was.is_some_and(|was| was != is) && !self.is_whole_or_gone(digest)? {
                gone.store(true, Ordering::Relaxed);
            }
            Ok((*digest, is))
        };
        let found = each(&(0..list.len()).collect::<Vec<_>>(), state)?;
        let all_there = !gone.into_inner();
        if all_there {
            self.cache_put(SEEN, key, &encode(now, &found))?;
        }
        Ok(all_there)
    }

    /// Those of `seen` that are not in the state they were in.
    fn changed(&self, seen: Vec<&Seen>) -> Result<Vec<ObjectDigest>> {
        let differs = |(digest, was): &&Seen| -> Result<Option<ObjectDigest>> {
            let same = self.state_of(digest)?.is_some_and(|meta| stamp(&meta) == *was);
            Ok((!same).then_some(*digest))
        };
        Ok(each(&seen, differs)?.into_iter().flatten().collect())
    }

    /// Whether those that have changed are what they should be all the same; if so, remembers the state they are in.
    fn look_into(&self, key: &Sha256, now: &[u8], seen: &[Seen], changed: &[ObjectDigest]) -> Result<bool> {
        let mut seen = seen.to_vec();
        let mut all_whole = true;
        for (digest, stamped) in seen.iter_mut().filter(|(digest, _)| changed.contains(digest)) {
            if self.is_whole_or_gone(digest)?
                && let Some(meta) = self.state_of(digest)?
            {
                *stamped = stamp(&meta);
            } else {
                all_whole = false;
            }
        }
        if all_whole {
            self.cache_put(SEEN, key, &encode(now, &seen))?;
        }
        Ok(all_whole)
    }

    /// Reads an object. One that is not what its name says is removed.
    fn is_whole_or_gone(&self, digest: &ObjectDigest) -> Result<bool> {
        let path = self.objects().path(digest);
        if digest_of(&path)? == *digest {
            return Ok(true);
        }
        if_present(fs::remove_file(&path)).map_err(on("remove the damaged object", &path))?;
        Ok(false)
    }

    fn state_of(&self, digest: &ObjectDigest) -> Result<Option<Metadata>> {
        let path = self.objects().path(digest);
        if_present(fs::symlink_metadata(&path)).map_err(on("look for the object", &path))
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

/// As many as `look` allows, from anywhere on.
fn part(seen: &[Seen], look: Look) -> Vec<&Seen> {
    // Nothing is decided by it that could show anywhere: any random number will do.
    let start = RandomState::new().build_hasher().finish() as usize;
    let count = seen.len().min(look.most());
    seen.iter().cycle().skip(start.checked_rem(seen.len()).unwrap_or(0)).take(count).collect()
}

/// Tells states apart; nobody gains by making two look the same.
fn stamp(meta: &Metadata) -> Stamp {
    // Not the time of the last change of anything: a further name would count, which copies of a store are made by.
    let parts = [meta.ino(), meta.len(), meta.mtime() as u64, meta.mtime_nsec() as u64];
    parts.into_iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, part| {
        (sum.rotate_left(23) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Several at a time where there are many: what takes long is waiting for the directories.
fn each<T: Sync, R: Send>(all: &[T], one: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let size = all.len().div_ceil(THREADS).max(AT_ONCE);
    if all.len() <= size {
        return all.iter().map(one).collect();
    }
    let one = &one;
    std::thread::scope(|scope| {
        let work = |part| scope.spawn(move || <[T]>::iter(part).map(one).collect::<Result<Vec<R>>>());
        let threads: Vec<_> = all.chunks(size).map(work).collect();
        let mut found = Vec::with_capacity(all.len());
        for thread in threads {
            match thread.join() {
                Ok(part) => found.extend(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(found)
    })
}

fn encode(marks: &[u8], seen: &[Seen]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(marks.len() + seen.len() * ENTRY);
    bytes.extend_from_slice(marks);
    for (digest, stamp) in seen {
        bytes.extend_from_slice(&digest.0.0);
        bytes.extend_from_slice(&stamp.to_le_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<(Vec<u8>, Vec<Seen>)> {
    let (marks, entries) = bytes.split_at_checked(MARKS)?;
    let entry = |entry: &[u8]| {
        let (digest, stamp) = entry.split_first_chunk::<32>()?;
        Some((ObjectDigest(Sha256(*digest)), u64::from_le_bytes(stamp.try_into().ok()?)))
    };
    Some((marks.to_vec(), entries.chunks(ENTRY).map(entry).collect::<Option<_>>()?))
}
