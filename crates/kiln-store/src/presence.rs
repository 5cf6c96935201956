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
//! removed, so that it is made again. One of which no state is remembered is read if it was written to after those who
//! need it were. What a disk loses without a trace in the file's state is found by [`Store::verify`].
//!
//! ```text
//! cache/objects-seen-2/<key>:   256 times inode, seconds, nanoseconds of a directory   (24 bytes each, `shelves.rs`)
//!                               per object its digest (32 bytes) and its stamp (8 bytes)
//! ```

use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_model::{ObjectDigest, Sha256};

use crate::error::{if_present, on};
use crate::objects::digest_in;
use crate::shelves::{MARKS, Shelves, Stamp, State, mark_of};
use crate::side_by_side::each;
use crate::{Moment, Result, Store};

/// The number changes with the format.
const SEEN: &str = "objects-seen-2";
/// A digest and a stamp.
const ENTRY: usize = 40;
/// A thread is not worth its start for fewer.
pub(crate) const FEW: usize = 500;

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

/// An object and in what state it was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry([u8; ENTRY]);

impl Entry {
    pub(crate) fn new(digest: &ObjectDigest, stamp: Stamp) -> Self {
        let mut entry = [0; ENTRY];
        entry[..32].copy_from_slice(&digest.0.0);
        entry[32..].copy_from_slice(&stamp.to_le_bytes());
        Self(entry)
    }

    fn digest(&self) -> ObjectDigest {
        ObjectDigest(Sha256(*self.0.first_chunk().expect("an entry begins with a digest")))
    }

    fn stamp(&self) -> Stamp {
        Stamp::from_le_bytes(*self.0.last_chunk().expect("an entry ends with a stamp"))
    }
}

/// What is remembered.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) marks: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
}

impl Seen {
    fn decode(mut bytes: Vec<u8>) -> Option<Self> {
        let (entries, []) = bytes.get(MARKS..)?.as_chunks() else { return None };
        let entries = entries.iter().copied().map(Entry).collect();
        bytes.truncate(MARKS);
        Some(Self { marks: bytes, entries })
    }

    /// Whether the directory of an object is as it was, with these marks `now`.
    fn is_settled(&self, now: &[u8], digest: &ObjectDigest) -> bool {
        let mark = mark_of(digest);
        self.marks.get(mark.clone()).is_some_and(|was| *was == now[mark])
    }

    /// What is remembered of the `n`th of a list, which has the same order each time.
    pub(crate) fn of(&self, n: usize, digest: &ObjectDigest) -> Option<&Entry> {
        self.entries.get(n).filter(|entry| entry.digest() == *digest)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.marks.len() + self.entries.len() * ENTRY);
        bytes.extend_from_slice(&self.marks);
        self.entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.0));
        bytes
    }
}

impl Store {
    /// Whether all objects of a list are there, in the size given if one is, and unchanged as far as `look` goes. `key`
    /// stands for the list; another list needs another. The list is only asked for if there is something new to look
    /// at. `since` is when it was known that all of them are there, if that is known. A damaged object that is noticed
    /// counts as missing, and is from then on.
    ///
    /// # Errors
    /// What the system refused, or what `list` came to.
    pub fn has_all(
        &self,
        key: &Sha256,
        look: Look,
        since: Option<Moment>,
        list: impl FnOnce() -> Result<Vec<Wanted>>,
    ) -> Result<bool> {
        let shelves = Shelves::of(self)?;
        // Taken before anything is looked at: what changes meanwhile is looked at the next time.
        let now = shelves.marks();
        let seen = self.seen(key);
        if seen.marks == now {
            return match changed(&shelves, &part(&seen.entries, look))? {
                changed if changed.is_empty() => Ok(true),
                changed => self.look_into(key, &shelves, seen, &changed),
            };
        }
        // A bake of something new changes a few directories. What lies in the others is not to be believed for it.
        let settled = |entry: &&Entry| seen.is_settled(&now, &entry.digest());
        let part = part(&seen.entries, look).into_iter().filter(settled).collect::<Vec<_>>();
        let changed = changed(&shelves, &part)?;
        self.look_for(key, &shelves, now, (&seen, &changed, since), &list()?)
    }

    /// Looks for those of `list` that have `changed` or whose directory is not as it was `seen`, and takes the state of
    /// those that are new.
    fn look_for(
        &self,
        key: &Sha256,
        shelves: &Shelves<'_>,
        now: Vec<u8>,
        (seen, changed, since): (&Seen, &HashSet<ObjectDigest>, Option<Moment>),
        list: &[Wanted],
    ) -> Result<bool> {
        let gone = AtomicBool::new(false);
        let state = |n: usize, (digest, size): &Wanted| -> Result<Entry> {
            let was = seen.of(n, digest);
            if let Some(entry) = was.filter(|_| seen.is_settled(&now, digest) && !changed.contains(digest)) {
                return Ok(*entry);
            }
            let state = shelves.state_of(digest)?;
            let Some(state) = state.filter(|s| s.is_file && size.is_none_or(|size| size == s.size)) else {
                gone.store(true, Ordering::Relaxed);
                return Ok(Entry::new(digest, 0));
            };
            if is_suspect(&state, was, since) && !self.is_whole_or_gone(digest)? {
                gone.store(true, Ordering::Relaxed);
            }
            Ok(Entry::new(digest, state.stamp))
        };
        let entries = each(list, FEW, state)?;
        let all_there = !gone.into_inner();
        if all_there {
            self.remember(key, &Seen { marks: now, entries })?;
        }
        Ok(all_there)
    }

    /// Whether those that have changed are what they should be all the same; if so, remembers the state they are in.
    fn look_into(
        &self,
        key: &Sha256,
        shelves: &Shelves<'_>,
        mut seen: Seen,
        changed: &HashSet<ObjectDigest>,
    ) -> Result<bool> {
        let mut all_whole = true;
        for entry in &mut seen.entries {
            let digest = entry.digest();
            if !changed.contains(&digest) {
                continue;
            }
            match shelves.state_of(&digest)? {
                Some(state) if self.is_whole_or_gone(&digest)? => *entry = Entry::new(&digest, state.stamp),
                _ => all_whole = false,
            }
        }
        if all_whole {
            self.remember(key, &seen)?;
        }
        Ok(all_whole)
    }

    pub(crate) fn seen(&self, key: &Sha256) -> Seen {
        self.cache_get(SEEN, key).and_then(Seen::decode).unwrap_or_default()
    }

    pub(crate) fn remember(&self, key: &Sha256, seen: &Seen) -> Result<()> {
        self.cache_put(SEEN, key, &seen.encode())
    }

    /// Reads an object. One that is not what its name says is removed, and not left until a good one takes its place: that
    /// it is missing is what every cache that leads to it notices, so that nothing new is made of it; and an instance that
    /// opens it meanwhile is given an error, where it would be given wrong bytes.
    fn is_whole_or_gone(&self, digest: &ObjectDigest) -> Result<bool> {
        let path = self.objects().path(digest);
        let Some(mut file) = if_present(File::open(&path)).map_err(on("open", &path))? else {
            return Ok(false);
        };
        if digest_in(&mut file, &path)? == *digest {
            return Ok(true);
        }
        if_present(fs::remove_file(&path)).map_err(on("remove the damaged object", &path))?;
        Ok(false)
    }
}

/// Whether somebody has written to an object since its state was taken, or, if it never was, `since` it was known to be
/// whole.
pub(crate) fn is_suspect(state: &State, was: Option<&Entry>, since: Option<Moment>) -> bool {
    match was {
        Some(was) => was.stamp() != state.stamp,
        None => since.is_some_and(|since| state.modified > since),
    }
}

/// Those of `seen` that are not in the state they were in.
fn changed(shelves: &Shelves<'_>, seen: &[&Entry]) -> Result<HashSet<ObjectDigest>> {
    let differs = |_, entry: &&Entry| -> Result<Option<ObjectDigest>> {
        let digest = entry.digest();
        let same = shelves.state_of(&digest)?.is_some_and(|state| state.stamp == entry.stamp());
        Ok((!same).then_some(digest))
    };
    Ok(each(seen, FEW, differs)?.into_iter().flatten().collect())
}

/// As many as `look` allows, from anywhere on.
fn part(seen: &[Entry], look: Look) -> Vec<&Entry> {
    // Nothing is decided by it that could show anywhere: any random number will do.
    let start = RandomState::new().build_hasher().finish() as usize;
    let count = seen.len().min(look.most());
    seen.iter().cycle().skip(start.checked_rem(seen.len()).unwrap_or(0)).take(count).collect()
}
