//! What holds for every tar archive from elsewhere, whether a package or an OCI layer is in it.

mod entries;
mod pax;

use std::io::{self, Read};

use kiln_model::{Meta, Node, Xattrs};

pub(crate) use entries::{Entries, Entry};

/// This many paths and no more; the largest package of Debian has a tenth of it.
pub(crate) const MOST_ENTRIES: usize = 1_000_000;
/// The longest target of a symbolic link, in bytes.
const LONGEST_LINK: usize = 4095;

/// What is wrong with an entry that is not made as it should be.
pub(crate) struct BadEntry(pub(crate) String);

/// The node that an entry at `path` is. Files and further names of files are what `file` and `name` make of them, the
/// latter out of the name that is linked to; `what` holds such archives, for messages.
pub(crate) fn node<R: Read, E: From<BadEntry>>(
    entry: &mut Entry<'_, R>,
    path: &[u8],
    meta: Meta,
    what: &str,
    file: impl FnOnce(&mut Entry<'_, R>, Meta) -> Result<Node, E>,
    name: impl FnOnce(Vec<u8>) -> Result<Node, E>,
) -> Result<Node, E> {
    Ok(match entry.header().entry_type() {
        tar::EntryType::Directory => Node::Directory(meta),
        tar::EntryType::Regular | tar::EntryType::Continuous => file(entry, meta)?,
        tar::EntryType::Symlink => Node::Symlink(meta, link(entry, path)?),
        tar::EntryType::Link => name(normal(&link(entry, path)?)?)?,
        tar::EntryType::Char => {
            device(entry, path).map(|(major, minor)| Node::CharDevice(meta, major, minor))?
        }
        tar::EntryType::Block => {
            device(entry, path).map(|(major, minor)| Node::BlockDevice(meta, major, minor))?
        }
        tar::EntryType::Fifo => Node::Fifo(meta),
        other => {
            let path = String::from_utf8_lossy(path);
            return Err(BadEntry(format!("{path} is of a kind ({other:?}) that {what} do not hold")).into());
        }
    })
}

/// Where a link at `path` leads.
fn link<R: Read>(entry: &Entry<'_, R>, path: &[u8]) -> Result<Vec<u8>, BadEntry> {
    let target = entry.link().map(|t| t.into_owned()).unwrap_or_default();
    if target.is_empty() || target.len() > LONGEST_LINK {
        return Err(BadEntry(format!("{} is a link to nothing", String::from_utf8_lossy(path))));
    }
    Ok(target)
}

/// The extended attributes of an entry at `path`.
pub(crate) fn xattrs<R: Read>(entry: &Entry<'_, R>, path: &[u8]) -> Result<Xattrs, BadEntry> {
    let mut xattrs = Xattrs::new();
    for (key, value) in entry.records() {
        if key.starts_with(b"GNU.sparse.") {
            let path = String::from_utf8_lossy(path);
            return Err(BadEntry(format!("{path} is packed as a sparse file, which is not read")));
        }
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            xattrs.insert(name.to_vec(), value.to_vec());
        }
    }
    Ok(xattrs)
}

fn device<R: Read>(entry: &Entry<'_, R>, path: &[u8]) -> Result<(u32, u32), BadEntry> {
    let number = |n: io::Result<Option<u32>>| {
        let problem =
            |e| BadEntry(format!("the number of the device {}: {e}", String::from_utf8_lossy(path)));
        n.map(Option::unwrap_or_default).map_err(problem)
    };
    Ok((number(entry.header().device_major())?, number(entry.header().device_minor())?))
}

/// `./usr/bin/` as `/usr/bin`.
pub(crate) fn normal(path: &[u8]) -> Result<Vec<u8>, BadEntry> {
    let mut out = Vec::with_capacity(path.len() + 1);
    for part in path.split(|c| *c == b'/').filter(|p| !matches!(*p, b"" | b".")) {
        if part == b".." {
            return Err(BadEntry(format!("it holds {}, outside of any tree", String::from_utf8_lossy(path))));
        }
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    Ok(out)
}
