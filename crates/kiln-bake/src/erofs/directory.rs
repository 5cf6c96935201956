//! Directories.
//!
//! ```text
//!   one block:  for each name: inode (8), where its name starts in this block (2), type (1), 0
//!               then the names, without separators; zeroes, unless it is the last block
//! ```
//! Names are sorted by bytes over all blocks, `.` and `..` among them.

use super::BLOCK;
use super::inode::Entry;

const ENTRY: usize = 12;

/// The entries of each block: as many as fit.
pub(super) fn blocks<'e, 'a>(mut entries: &'e [Entry<'a>]) -> impl Iterator<Item = &'e [Entry<'a>]> {
    std::iter::from_fn(move || {
        let mut used = 0;
        let fits = |e: &&Entry<'_>| {
            used += ENTRY + e.name.len();
            used <= BLOCK
        };
        let count = entries.iter().take_while(fits).count();
        let (block, rest) = entries.split_at(count);
        entries = rest;
        (count > 0).then_some(block)
    })
}

/// The size of a whole directory.
pub(super) fn size(entries: &[Entry<'_>]) -> usize {
    let mut size = 0;
    let mut last = 0;
    for block in blocks(entries) {
        size += BLOCK;
        last = block.iter().map(|e| ENTRY + e.name.len()).sum();
    }
    size - BLOCK + last
}

/// A whole directory; `numbered` tells an entry's inode number and type.
pub(super) fn encode(entries: &[Entry<'_>], numbered: impl Fn(&Entry<'_>) -> (u64, u8)) -> Vec<u8> {
    let mut out = Vec::with_capacity(size(entries));
    for block in blocks(entries) {
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        let mut name_at = block.len() * ENTRY;
        for entry in block {
            let (number, kind) = numbered(entry);
            out.extend(number.to_le_bytes());
            out.extend((name_at as u16).to_le_bytes());
            out.extend([kind, 0]);
            name_at += entry.name.len();
        }
        block.iter().for_each(|e| out.extend(e.name));
    }
    out
}
