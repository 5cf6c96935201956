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
//! cache/objects-seen-3/<key>:    per object its digest (32 bytes) and its stamp (8 bytes)
//! cache/objects-marks-3/<key>:   256 times inode, seconds, nanoseconds of a directory (24 bytes each, `shelves.rs`)
//! ```
//! Two files, because the marks change with every bake of something new and the states hardly ever. Neither makes the
//! other true: marks say that all were there, states are of objects that were whole, each at its time. States that are older
//! than who needs the objects may be those of another list, and then only tell who has been written to.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};

use kiln_model::{ObjectDigest, Sha256};

use crate::error::{if_present, on};
use crate::objects::digest_in;
use crate::shelves::{Shelves, Stamp, State, mark_of};
use crate::side_by_side::each;
use crate::{Moment, Result, Store};

/// The numbers change with the format.
const SEEN: &str = "objects-seen-3";
const MARKS: &str = "objects-marks-3";
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

/// What is remembered of the objects of a list.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) marks: Vec<u8>,
    /// None, if they were never looked at.
    pub(crate) entries: Option<Vec<Entry>>,
}

impl Seen {
    /// Whether the directory of an object is as it was, with these marks `now`.
    fn is_settled(&self, now: &[u8], digest: &ObjectDigest) -> bool {
        let mark = mark_of(digest);
        self.marks.get(mark.clone()).is_some_and(|was| *was == now[mark])
    }

    /// What is remembered of the `n`th of a list, which has the same order each time.
    pub(crate) fn of(&self, n: usize, digest: &ObjectDigest) -> Option<&Entry> {
        self.entries.as_ref()?.get(n).filter(|entry| entry.digest() == *digest)
    }
}

impl Store {
    /// Whether all objects of a list are there, in the size given if one is, and unchanged as far as `look` goes. `key`
    /// stands for the list; another list needs another. The list is only asked for if it was never looked at. `since` is
    /// when it was known that all of them are there, if that is known. A damaged object that is noticed counts as
    /// missing, and is from then on.
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
        match self.has_seen(key, look, since)? {
            Some(all_there) => Ok(all_there),
            None => self.look_for(key, since, &list()?),
        }
    }

    /// The same of a list that was looked at before, and after `since`; nothing of another one.
    ///
    /// # Errors
    /// What the system refused.
    pub fn has_seen(&self, key: &Sha256, look: Look, since: Option<Moment>) -> Result<Option<bool>> {
        let shelves = Shelves::of(self)?;
        // Taken before anything is looked at: what changes meanwhile is looked at the next time.
        let now = shelves.marks();
        let seen = self.seen(key);
        let Some(entries) = seen.entries.as_ref().filter(|_| self.cache_written(SEEN, key) >= since) else {
            return Ok(None);
        };
        let changed = changed(&shelves, &worth_a_look(&seen, entries, &now, look))?;
        let Some(news) = self.look_into(&shelves, &changed)? else { return Ok(Some(false)) };
        if !news.is_empty() {
            let mut entries = entries.clone();
            news.into_iter().for_each(|(n, entry)| entries[n] = entry);
            if_there_is_room(self.remember_states(key, &entries))?;
        }
        if seen.marks != now {
            if_there_is_room(self.cache_put(MARKS, key, &now))?;
        }
        Ok(Some(true))
    }

    /// Looks for all of a list, and takes the state they are in.
    fn look_for(&self, key: &Sha256, since: Option<Moment>, list: &[Wanted]) -> Result<bool> {
        let shelves = Shelves::of(self)?;
        let marks = shelves.marks();
        let seen = self.seen(key);
        let before: HashMap<ObjectDigest, &Entry> =
            seen.entries.iter().flatten().map(|entry| (entry.digest(), entry)).collect();
        let state = |_, (digest, size): &Wanted| -> Result<Option<Entry>> {
            let state =
                shelves.state_of(digest)?.filter(|s| s.is_file && size.is_none_or(|size| size == s.size));
            let Some(state) = state else { return Ok(None) };
            let was = before.get(digest).copied();
            let is_well = !is_suspect(&state, was, since) || self.is_whole_or_gone(digest)?;
            Ok(is_well.then(|| Entry::new(digest, state.stamp)))
        };
        let Some(entries) = each(list, FEW, state)?.into_iter().collect() else { return Ok(false) };
        if_there_is_room(self.remember(key, &Seen { marks, entries: Some(entries) }))?;
        Ok(true)
    }

    /// Whether those that have changed are what they should be all the same; if so, the state they are in, with their
    /// places in the list.
    fn look_into(
        &self,
        shelves: &Shelves<'_>,
        changed: &[(usize, ObjectDigest)],
    ) -> Result<Option<Vec<(usize, Entry)>>> {
        let mut news = Some(Vec::new());
        for (n, digest) in changed {
            match shelves.state_of(digest)? {
                Some(state) if self.is_whole_or_gone(digest)? => {
                    news.iter_mut().for_each(|news| news.push((*n, Entry::new(digest, state.stamp))));
                }
                // The others are looked into all the same: what is damaged goes.
                _ => news = None,
            }
        }
        Ok(news)
    }

    pub(crate) fn seen(&self, key: &Sha256) -> Seen {
        let entries = self.cache_get(SEEN, key).and_then(|states| match states.as_chunks() {
            (entries, []) => Some(entries.iter().copied().map(Entry).collect()),
            _ => None,
        });
        Seen { marks: self.cache_get(MARKS, key).unwrap_or_default(), entries }
    }

    pub(crate) fn remember(&self, key: &Sha256, seen: &Seen) -> Result<()> {
        self.remember_states(key, seen.entries.as_deref().unwrap_or_default())?;
        self.cache_put(MARKS, key, &seen.marks)
    }

    fn remember_states(&self, key: &Sha256, entries: &[Entry]) -> Result<()> {
        let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
        entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.0));
        self.cache_put(SEEN, key, &bytes)
    }

    /// Reads an object. One that is not what its name says is removed, and not left until a good one takes its place: that
    /// it is missing is what every cache that leads to it notices, so that nothing new is made of it; and an instance that
    /// opens it meanwhile is given an error, where it would be given wrong bytes.
    fn is_whole_or_gone(&self, digest: &ObjectDigest) -> Result<bool> {
        let path = self.objects().path(digest);
        let Some(file) = if_present(File::open(&path)).map_err(on("open", &path))? else {
            return Ok(false);
        };
        if digest_in(&file, &path)? == *digest {
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

/// Those of `looked_at` that are not in the state they were in, with their places in the list.
fn changed(shelves: &Shelves<'_>, looked_at: &[(usize, &Entry)]) -> Result<Vec<(usize, ObjectDigest)>> {
    let differs = |_, (n, entry): &(usize, &Entry)| -> Result<Option<(usize, ObjectDigest)>> {
        let digest = entry.digest();
        let same = shelves.state_of(&digest)?.is_some_and(|state| state.stamp == entry.stamp());
        Ok((!same).then_some((*n, digest)))
    };
    Ok(each(looked_at, FEW, differs)?.into_iter().flatten().collect())
}

/// Those in directories that have changed, for something may have gone, and of the others as many as `look` allows, from
/// anywhere on.
fn worth_a_look<'e>(seen: &Seen, entries: &'e [Entry], now: &[u8], look: Look) -> Vec<(usize, &'e Entry)> {
    // Nothing is decided by it that could show anywhere: any random number will do.
    let random = RandomState::new().build_hasher().finish() as usize;
    let (start, count) = (random.checked_rem(entries.len()).unwrap_or(0), look.most().min(entries.len()));
    let is_of_the_part = |n: usize| (n + entries.len() - start) % entries.len() < count;
    let all_settled = seen.marks == now;
    let worth = |(n, entry): &(usize, &Entry)| {
        is_of_the_part(*n) || !all_settled && !seen.is_settled(now, &entry.digest())
    };
    entries.iter().enumerate().filter(worth).collect()
}

/// What was found out is so on a full disk as well, and is found out again where it could not be remembered.
pub(crate) fn if_there_is_room(remembered: Result<()>) -> Result<()> {
    remembered.or_else(|error| if error.is_no_space() { Ok(()) } else { Err(error) })
}
