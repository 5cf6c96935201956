//! The chain of the operation log: each line holds the hash of the one before.
//!
//! A log of years has hundreds of thousands of lines, and a host reads them all whenever it starts. What can be said of a
//! line by itself (its hash, what it holds) is found out in stretches, on every processor; whether the lines follow each
//! other, from the first to the last, is then looked at in their order. What is held in memory beside the bytes is a few
//! stretches, however long the log.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use kiln_model::Sha256;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Result, StoreError, side_by_side};

/// Bytes of a stretch, at least: enough that handing it over costs nothing beside reading it.
const STRETCH: usize = 256 << 10;

#[derive(Serialize, Deserialize)]
pub(crate) struct Line<T> {
    pub(crate) seq: u64,
    pub(crate) prev: Sha256,
    pub(crate) entry: T,
}

/// Where the chain ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) seq: u64,
    pub(crate) hash: Sha256,
    pub(crate) length: u64,
}

pub(crate) const BEGINNING: End = End { seq: 0, hash: Sha256([0; 32]), length: 0 };

/// What one line says, and what the one behind it must say of it.
struct Link<T> {
    line: Line<T>,
    hash: Sha256,
    length: usize,
}

/// Each line of a stretch up to the first that does not read, which is the last then.
type Read<T> = Vec<std::result::Result<Link<T>, String>>;

/// Follows the chain through `bytes`, handing out each entry; returns where it ends.
pub(crate) fn follow<T: DeserializeOwned + Send>(
    path: &Path,
    bytes: &[u8],
    each: &mut dyn FnMut(u64, T),
) -> Result<End> {
    let stretches = stretches(bytes);
    let mut end = BEGINNING;
    if let [all] = stretches[..] {
        end.go_on(path, read(all), each)?;
        return Ok(end);
    }
    let threads = side_by_side::threads().min(stretches.len());
    thread::scope(|scope| {
        // In turns, so that whose the next stretch is needs no asking.
        let readers: Vec<Receiver<Read<T>>> = (0..threads)
            .map(|first| {
                let (tell, told) = sync_channel(1);
                let stretches = &stretches;
                scope.spawn(move || read_each(stretches.iter().skip(first).step_by(threads), &tell));
                told
            })
            .collect();
        for number in 0..stretches.len() {
            let read = readers[number % threads].recv().expect("a reader reads all of its stretches");
            end.go_on(path, read, each)?;
        }
        Ok(end)
    })
}

/// Reads stretches for as long as somebody wants them.
fn read_each<'a, T: DeserializeOwned>(
    stretches: impl Iterator<Item = &'a &'a [u8]>,
    tell: &SyncSender<Read<T>>,
) {
    for stretch in stretches {
        if tell.send(read(stretch)).is_err() {
            return;
        }
    }
}

fn read<T: DeserializeOwned>(stretch: &[u8]) -> Read<T> {
    let mut links = Vec::new();
    let mut rest = stretch;
    while !rest.is_empty() {
        let Some(length) = memchr::memchr(b'\n', rest) else {
            links.push(Err("has no end".to_owned()));
            break;
        };
        let text = &rest[..length];
        rest = &rest[length + 1..];
        let link = serde_json::from_slice(text)
            .map(|line| Link { line, hash: Sha256::of(text), length: length + 1 })
            .map_err(|e| format!("does not read as an entry: {e}"));
        let is_last = link.is_err();
        links.push(link);
        if is_last {
            break;
        }
    }
    links
}

impl End {
    fn go_on<T>(&mut self, path: &Path, read: Read<T>, each: &mut dyn FnMut(u64, T)) -> Result<()> {
        for link in read {
            let number = self.seq + 1;
            let wrong = |what: String| StoreError::damaged(path, format!("line {number} {what}"));
            let Link { line, hash, length } = link.map_err(wrong)?;
            if line.prev != self.hash {
                let before = self.hash;
                return Err(wrong(format!("does not follow the line before it, whose sha256 is {before}")));
            }
            if line.seq != number {
                return Err(wrong(format!("has the number {}", line.seq)));
            }
            *self = End { seq: number, hash, length: self.length + length as u64 };
            each(number, line.entry);
        }
        Ok(())
    }
}

/// `bytes` in pieces of whole lines, the last line perhaps without its end.
fn stretches(bytes: &[u8]) -> Vec<&[u8]> {
    let mut stretches = Vec::new();
    let mut rest = bytes;
    while rest.len() > STRETCH {
        let Some(end) = memchr::memchr(b'\n', &rest[STRETCH..]) else { break };
        let (stretch, behind) = rest.split_at(STRETCH + end + 1);
        stretches.push(stretch);
        rest = behind;
    }
    if !rest.is_empty() || stretches.is_empty() {
        stretches.push(rest);
    }
    stretches
}
