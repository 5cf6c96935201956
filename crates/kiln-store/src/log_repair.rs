//! What becomes of an operation log that is not what was appended.
//!
//! ```text
//!   line 41   ──"prev"──▶  what line 42 says line 41 was: its witness
//! ```
//! Each line is vouched for by the one after it. Where a line is not what its successor says it was, somebody has edited
//! it, or the disk has lost it, and what it said is known to nobody. A repair takes nothing on trust and throws nothing
//! away: the file as it is stays in the same directory under another name, byte for byte, and a log is written in its
//! place in which the entries of all lines that can be read follow each other again. Entries that say what was done come
//! last. Where one byte is all that was changed, as a disk does it, the line is what it was again: its witness proves it.
//! Any other line that was contradicted and still reads as an entry is kept: to leave it out would make a state the host
//! never was in, and what is different about it may be a name. A line that cannot be read is left out.

use std::path::PathBuf;

use kiln_model::Sha256;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::chain::{Line, follow};
use crate::error::on;
use crate::operation_log::{FILE, without_torn_line};
use crate::temp::sync_dir;
use crate::{HostLock, OperationLog, Result, Store, StoreError};

/// A log that was repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// Where the damaged one is kept, as it was.
    pub kept_as: PathBuf,
    /// What was wrong with it, line by line.
    pub damage: Vec<String>,
    /// How many entries were taken over.
    pub entries: u64,
    /// How many lines could not be.
    pub left_out: u64,
}

/// A line of a damaged log.
struct Found<T> {
    text: Vec<u8>,
    line: Option<Line<T>>,
}

impl OperationLog {
    /// Sets a damaged log aside and puts one in its place that can be continued; nothing if it is not damaged. `note` makes
    /// the entries that tell of it, from those that were taken over.
    ///
    /// # Errors
    /// What the system refused; then the log is as it was.
    pub fn repair<T: DeserializeOwned + Serialize + Send>(
        store: &Store,
        _held: &HostLock,
        note: impl FnOnce(&Repair, &[T]) -> Vec<T>,
    ) -> Result<Option<Repair>> {
        let dir = store.dir("log");
        let path = dir.join(FILE);
        let bytes = std::fs::read(&path).map_err(on("read", &path))?;
        let whole = without_torn_line(&bytes);
        let wrong = match follow::<T>(&path, whole, &mut |_, _| {}) {
            Ok(_) => return Ok(None),
            Err(e) => e.to_string(),
        };
        let mut found = lines(whole);
        let mut damage = judge(&mut found);
        if damage.is_empty() {
            damage.push(wrong);
        }
        let kept_as = dir.join(format!("damaged-{}.jsonl", &Sha256::of(&bytes).to_string()[..12]));
        let mut entries: Vec<T> = Vec::new();
        let mut left_out = 0;
        for one in found {
            match one.line {
                Some(line) => entries.push(line.entry),
                None => left_out += 1,
            }
        }
        let repair = Repair { kept_as, damage, entries: entries.len() as u64, left_out };
        entries.extend(note(&repair, &entries));
        let chained = chain(&path, &entries)?;
        put(store, &repair.kept_as, &bytes)?;
        put(store, &path, &chained)?;
        sync_dir(&dir)?;
        Ok(Some(repair))
    }
}

fn put(store: &Store, path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let mut file = store.temp().file()?;
    file.write(bytes)?;
    file.persist(path)
}

fn lines<T: DeserializeOwned>(bytes: &[u8]) -> Vec<Found<T>> {
    let ended = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    ended.split(|b| *b == b'\n').map(|text| Found::of(text.to_vec())).collect()
}

impl<T: DeserializeOwned> Found<T> {
    fn of(text: Vec<u8>) -> Self {
        Self { line: serde_json::from_slice(&text).ok(), text }
    }
}

/// What a line says of the one before it.
#[derive(Clone, Copy)]
struct Witness {
    seq: u64,
    prev: Sha256,
}

/// What is wrong, from the first line to the last; what can be proved to have been otherwise is so again. Witnesses are
/// heard from the last to the first: one that was contradicted itself is none.
fn judge<T: DeserializeOwned>(found: &mut [Found<T>]) -> Vec<String> {
    let mut damage = Vec::new();
    let mut witness: Option<Witness> = None;
    for (at, one) in found.iter_mut().enumerate().rev() {
        let number = at + 1;
        let is_contradicted = witness.is_some_and(|w| w.prev != Sha256::of(&one.text));
        let misses_some = one.line.as_ref().zip(witness).is_some_and(|(line, w)| line.seq + 1 != w.seq);
        let before = if is_contradicted { witness.and_then(|w| before(&one.text, w.prev)) } else { None };
        if let Some(before) = before {
            damage.push(format!("line {number} was changed in one byte, and is what it was again"));
            *one = Found::of(before);
        } else if one.line.is_none() {
            damage.push(format!("line {number} does not read as an entry, and is left out"));
        } else if misses_some {
            damage.push(format!("what was between line {number} and the one behind it is not there"));
        } else if is_contradicted {
            damage.push(format!("line {number} is not what was appended; what it says now is kept"));
            witness = None;
            continue;
        }
        witness = one.line.as_ref().map(|line| Witness { seq: line.seq, prev: line.prev });
    }
    damage.reverse();
    damage
}

/// The text with that hash, if `text` differs from it in one byte: a bit, or a letter somebody has typed. Of long lines
/// only as much is tried as takes seconds.
fn before(text: &[u8], hash: Sha256) -> Option<Vec<u8>> {
    const MOST_HASHED: usize = 1 << 30;
    let mut text = text.to_vec();
    let mut left = MOST_HASHED / text.len().max(1);
    let bits = (0..8).map(|bit| 1_u8 << bit);
    let others = (1..=u8::MAX).filter(|mask| mask.count_ones() > 1);
    for mask in bits.chain(others) {
        for at in 0..text.len() {
            left = left.checked_sub(1)?;
            text[at] ^= mask;
            if Sha256::of(&text) == hash {
                return Some(text);
            }
            text[at] ^= mask;
        }
    }
    None
}

/// The bytes of a log of these entries.
fn chain<T: Serialize>(path: &std::path::Path, entries: &[T]) -> Result<Vec<u8>> {
    let (mut bytes, mut prev) = (Vec::new(), Sha256([0; 32]));
    for (entry, seq) in entries.iter().zip(1..) {
        let text = serde_json::to_vec(&Line { seq, prev, entry })
            .map_err(|source| StoreError::Encode { path: path.to_owned(), source })?;
        prev = Sha256::of(&text);
        bytes.extend(text);
        bytes.push(b'\n');
    }
    follow::<IgnoredAny>(path, &bytes, &mut |_, _| {})?;
    Ok(bytes)
}
