//! The disk of a storm, under the real operation log: it tears what it writes, fills up, loses what was not made safe,
//! refuses and cannot be read; by chance, and the same chance each time.
//!
//! ```text
//!   cached     what programs see: survives the control plane
//!   durable    what is safe: survives everything
//! ```
//! Between the two lies what was written and not made safe. After a death either all of `cached` is found, or
//! `durable` with some of the rest, torn anywhere, or with pages in it that never were written.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use kiln_model::Record;
use kiln_store::{Medium, OperationLog, StoreError};

use super::{Chance, Crash};
use crate::sim::lock;

/// What the log is called in messages.
const NAME: &str = "log/operations.jsonl";

/// A handle; all clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct StormDisk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    chance: Chance,
    cached: Vec<u8>,
    durable: Vec<u8>,
    fate: Fate,
    /// Nothing more can be written; what is there can be cut off.
    full: bool,
    /// Once in so many times the log cannot be read.
    unreadable: u64,
}

/// What happens in the course of the next append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes well, if there is room.
    Good,
    /// Writing breaks off, or what was written cannot be made safe; perhaps the end cannot be cut off, either.
    Fails,
    /// The control plane dies while it writes.
    Dies,
}

/// What was found on the disk after a death.
pub(super) enum Found {
    /// What was known to be there, and nothing else.
    All,
    /// One record more: somebody was told that it could not be written, or nobody was told anything.
    More(Box<Record>),
    /// Not what was known to be there.
    Wrong(String),
}

impl StormDisk {
    pub(super) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x6469_736b);
        let unreadable = *chance.pick(&[0, 0, 10, 3]).expect("four");
        let (cached, durable) = (Vec::new(), Vec::new());
        Self(Arc::new(Mutex::new(Platter {
            chance,
            cached,
            durable,
            fate: Fate::Good,
            full: false,
            unreadable,
        })))
    }

    /// The log on it and each of its entries, by the code that real hosts use.
    pub(super) fn open(&self, each: &mut dyn FnMut(Record)) -> Result<OperationLog, StoreError> {
        OperationLog::over(Path::new(NAME), Arc::new(self.clone()), each)
    }

    pub(super) fn meet(&self, fate: Fate) {
        lock(&self.0).fate = fate;
    }

    pub(super) fn set_full(&self, full: bool) {
        lock(&self.0).full = full;
    }

    pub(super) fn is_full(&self) -> bool {
        lock(&self.0).full
    }

    /// Nothing goes wrong any more.
    pub(super) fn clear(&self) {
        let mut platter = lock(&self.0);
        (platter.fate, platter.full, platter.unreadable) = (Fate::Good, false, 0);
    }

    /// The control plane is dead: settles what is left, and compares it with the records that are known to be safe.
    pub(super) fn after_death(&self, known: &[Record]) -> Found {
        lock(&self.0).settle();
        self.compare(known)
    }

    /// Looks at what is on it as another machine would.
    pub(super) fn compare(&self, known: &[Record]) -> Found {
        // A look at a copy: whatever opening repairs is left to those who open it.
        let copy = {
            let platter = lock(&self.0);
            let (cached, durable) = (platter.cached.clone(), platter.durable.clone());
            let (chance, fate) = (Chance::new(0), Fate::Good);
            Self(Arc::new(Mutex::new(Platter { chance, cached, durable, fate, full: false, unreadable: 0 })))
        };
        let mut found: Vec<Record> = Vec::new();
        if let Err(e) = copy.open(&mut |record| found.push(record)) {
            return Found::Wrong(format!("{e}"));
        }
        match found.strip_prefix(known) {
            Some([]) => Found::All,
            Some([more]) => Found::More(Box::new(more.clone())),
            Some(more) => Found::Wrong(format!("{} records more than were written", more.len())),
            None => Found::Wrong(format!("{} records where {} were safe", found.len(), known.len())),
        }
    }
}

impl Platter {
    /// What is found after a death: the file as programs saw it, or, as if the machine had died, what is safe and
    /// some of what was not.
    fn settle(&mut self) {
        self.fate = Fate::Good;
        if self.chance.one_in(2) {
            let same = self.cached.iter().zip(&self.durable).take_while(|(a, b)| a == b).count();
            if same == self.durable.len() {
                let rest = self.cached[same..].to_vec();
                let torn = usize::try_from(self.chance.below(rest.len() as u64 + 1)).unwrap_or(0);
                let mut kept = rest[..torn].to_vec();
                if self.chance.one_in(3) {
                    // Its length was written, and these pages were not.
                    kept = rest;
                    let end = kept.len().saturating_sub(1);
                    kept[torn.min(end)..end].fill(0);
                }
                self.durable.extend(kept);
            }
            self.cached.clone_from(&self.durable);
        }
        self.durable.clone_from(&self.cached);
    }

    fn dies(&mut self) {
        if self.fate == Fate::Dies && self.chance.one_in(2) {
            std::panic::resume_unwind(Box::new(Crash));
        }
    }

    fn fails(&mut self, one_in: u64) -> bool {
        self.fate == Fate::Fails && self.chance.one_in(one_in)
    }
}

fn broken() -> io::Error {
    // EIO
    io::Error::from_raw_os_error(5)
}

impl Medium for StormDisk {
    fn read(&self) -> io::Result<Vec<u8>> {
        let mut platter = lock(&self.0);
        let unreadable = platter.unreadable;
        if platter.chance.one_in(unreadable) { Err(broken()) } else { Ok(platter.cached.clone()) }
    }

    fn length(&self) -> io::Result<u64> {
        let mut platter = lock(&self.0);
        if platter.fails(8) { Err(broken()) } else { Ok(platter.cached.len() as u64) }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut platter = lock(&self.0);
        let offset = usize::try_from(offset).expect("a short log");
        let breaks_off =
            platter.full || platter.fails(2) || platter.fate == Fate::Dies && platter.chance.one_in(2);
        let length =
            if breaks_off { platter.chance.below(bytes.len() as u64 + 1) } else { bytes.len() as u64 };
        let length = usize::try_from(length).expect("a short line");
        let end = platter.cached.len().max(offset + length);
        platter.cached.resize(end, 0);
        platter.cached[offset..offset + length].copy_from_slice(&bytes[..length]);
        platter.dies();
        match breaks_off {
            // ENOSPC
            true if platter.full => Err(io::Error::from_raw_os_error(28)),
            true => Err(broken()),
            false => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut platter = lock(&self.0);
        platter.dies();
        if platter.fate == Fate::Fails {
            if platter.chance.one_in(2) {
                platter.durable = platter.cached.clone();
            }
            return Err(broken());
        }
        platter.durable = platter.cached.clone();
        if platter.fate == Fate::Dies {
            std::panic::resume_unwind(Box::new(Crash));
        }
        Ok(())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let mut platter = lock(&self.0);
        platter.dies();
        if platter.fails(4) {
            return Err(broken());
        }
        platter.cached.truncate(usize::try_from(length).expect("a short log"));
        if platter.fails(4) {
            return Err(broken());
        }
        platter.durable = platter.cached.clone();
        platter.dies();
        Ok(())
    }
}
