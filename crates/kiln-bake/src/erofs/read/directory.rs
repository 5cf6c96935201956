//! The entries of a directory back from its blocks.

use super::super::BLOCK;
use super::bytes::number;

const ENTRY: usize = 12;

/// One entry.
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) nid: u64,
    pub(super) kind: u8,
}

/// All entries of a directory, `.` and `..` among them, in order; nothing if it is damaged.
pub(super) fn read(data: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let blocks = data.chunks(BLOCK).enumerate();
    for (n, block) in blocks {
        let is_last = (n + 1) * BLOCK >= data.len();
        read_block(block, is_last, &mut entries)?;
    }
    let ascending = entries.is_sorted_by(|a: &Entry, b: &Entry| a.name < b.name);
    // A name with a slash in it would be a path somewhere else.
    let are_names = entries.iter().all(|e| !e.name.is_empty() && !e.name.contains(&b'/'));
    (ascending && are_names).then_some(entries)
}

fn read_block(block: &[u8], is_last: bool, entries: &mut Vec<Entry>) -> Option<()> {
    let count = name_at(block, 0)? / ENTRY;
    if count == 0 {
        return None;
    }
    for n in 0..count {
        let head = block.get(n * ENTRY..(n + 1) * ENTRY)?;
        let start = name_at(block, n)?;
        let name = match n + 1 < count {
            true => block.get(start..name_at(block, n + 1)?)?,
            false => {
                let rest = block.get(start..)?;
                // Only a whole block is filled up with zeroes.
                let end = rest.iter().position(|b| *b == 0).filter(|_| !is_last || block.len() == BLOCK);
                &rest[..end.unwrap_or(rest.len())]
            }
        };
        entries.push(Entry { name: name.to_vec(), nid: number::<8>(head, 0), kind: head[10] });
    }
    Some(())
}

fn name_at(block: &[u8], n: usize) -> Option<usize> {
    let head = block.get(n * ENTRY..(n + 1) * ENTRY)?;
    Some(number::<2>(head, 8) as usize)
}
