//! Trees as tar archives. The same tree gives the same bytes: paths in order, nothing of the moment or the machine.
//!
//! | archive | order | hard links |
//! |---|---|---|
//! | a whole image | each directory followed by all that is in it: `a`, `a/b`, `a.b` | among the others |
//! | a layer of one | of the bytes of paths: `a`, `a.b`, `a/b`. Another one would give every layer another digest | at the end |
//!
//! tar sets the time of a directory as soon as a path is not below it, and whatever is written there later changes it
//! again. A layer holds its directories with a time of no meaning; the one that holds their times holds nothing else.
//!
//! Headers are GNU's, with pax records for what does not fit there: long names, xattrs. Sockets have no form in tar
//! and are left out, as every tool does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use kiln_model::{Meta, Node, Tree};

use super::{ExportError, Stored};

/// Longer ones need a pax record.
const SHORT: usize = 100;

/// Writes the whole image as one tar archive to `path`, which must not be there yet.
///
/// # Errors
/// If it is there, or cannot be written.
pub fn to_tar(image: &Stored<'_>, path: &Path) -> Result<u64, ExportError> {
    ExportError::if_there(path)?;
    image.check_whole()?;
    super::oci::new_file(path, |file: &mut File| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write_whole(image, &mut out)?;
        out.flush()
    })
}

fn write_whole(image: &Stored<'_>, out: &mut dyn Write) -> io::Result<()> {
    let tree = &image.tree;
    let mut archive = Archive { image, tree, builder: tar::Builder::new(out) };
    let mut entries: Vec<(&[u8], &Node)> = tree.iter().collect();
    // No name has a NUL byte: what is in a directory comes right behind it.
    entries.sort_by_cached_key(|(path, _)| {
        path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect::<Vec<u8>>()
    });
    // Which of a file's names the archive has first; the tree may have another one first.
    let mut first_names: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    for (path, node) in entries {
        if node.is_directory() {
            archive.node(path, node)?;
            continue;
        }
        let own = if let Node::Hardlink(first) = node { first.as_slice() } else { path };
        let file = tree.get(own).ok_or_else(to_nothing)?;
        match first_names.entry(own) {
            Entry::Vacant(entry) => {
                entry.insert(path);
                archive.node(path, file)?;
            }
            Entry::Occupied(entry) => archive.link(path, entry.get(), file)?,
        }
    }
    archive.builder.into_inner().map(drop)
}

fn to_nothing() -> io::Error {
    io::Error::other("a hard link to nothing")
}

/// Writes `tree`, a part of the tree of `image`.
pub(crate) fn write(image: &Stored<'_>, tree: &Tree, out: &mut dyn Write) -> io::Result<()> {
    let mut archive = Archive { image, tree, builder: tar::Builder::new(out) };
    let is_link = |node: &Node| matches!(node, Node::Hardlink(_));
    for (path, node) in tree.iter().filter(|(_, node)| !is_link(node)) {
        archive.node(path, node)?;
    }
    // After the files they are other names of.
    for (path, node) in tree.iter().filter(|(_, node)| is_link(node)) {
        archive.node(path, node)?;
    }
    archive.builder.into_inner().map(drop)
}

struct Archive<'a, W: Write> {
    image: &'a Stored<'a>,
    tree: &'a Tree,
    builder: tar::Builder<W>,
}

impl<W: Write> Archive<'_, W> {
    fn node(&mut self, path: &[u8], node: &Node) -> io::Result<()> {
        use tar::EntryType;
        match node {
            Node::Directory(meta) => self.entry(EntryType::Directory, path, meta, b"", None),
            Node::Symlink(meta, target) => self.entry(EntryType::Symlink, path, meta, target, None),
            Node::CharDevice(meta, major, minor) => {
                self.entry(EntryType::Char, path, meta, b"", Some((*major, *minor)))
            }
            Node::BlockDevice(meta, major, minor) => {
                self.entry(EntryType::Block, path, meta, b"", Some((*major, *minor)))
            }
            Node::Fifo(meta) => self.entry(EntryType::Fifo, path, meta, b"", None),
            Node::Socket(_) => Ok(()),
            Node::Hardlink(first) => {
                let file = self.tree.get(first).ok_or_else(to_nothing)?;
                self.link(path, first, file)
            }
            Node::File(meta, content) => {
                let image = self.image;
                image.content(content, &mut |reader, size| {
                    let mut header = self.header(EntryType::Regular, path, meta, b"", None)?;
                    header.set_size(size);
                    header.set_cksum();
                    self.builder.append(&header, reader)
                })
            }
        }
    }

    /// `path` as another name of `file`, which the archive has as `first`.
    fn link(&mut self, path: &[u8], first: &[u8], file: &Node) -> io::Result<()> {
        let meta = file.meta().ok_or_else(to_nothing)?;
        self.entry(tar::EntryType::Link, path, meta, first, None)
    }

    fn entry(
        &mut self,
        kind: tar::EntryType,
        path: &[u8],
        meta: &Meta,
        link: &[u8],
        device: Option<(u32, u32)>,
    ) -> io::Result<()> {
        let mut header = self.header(kind, path, meta, link, device)?;
        header.set_cksum();
        self.builder.append(&header, io::empty())
    }

    /// The header, after the pax records for what it has no room for.
    fn header(
        &mut self,
        kind: tar::EntryType,
        path: &[u8],
        meta: &Meta,
        link: &[u8],
        device: Option<(u32, u32)>,
    ) -> io::Result<tar::Header> {
        let name = name(path, kind);
        // A hard link names a path of the archive, a symbolic link whatever it says.
        let link = if kind == tar::EntryType::Link { link.strip_prefix(b"/").unwrap_or(link) } else { link };
        let mut records: Vec<(String, &[u8])> = Vec::new();
        if name.len() > SHORT || !name.is_ascii() {
            records.push(("path".into(), &name));
        }
        if link.len() > SHORT || !link.is_ascii() {
            records.push(("linkpath".into(), link));
        }
        for (key, value) in &meta.xattrs {
            let key =
                std::str::from_utf8(key).map_err(|_| io::Error::other("the name of an xattr is no text"))?;
            records.push((format!("SCHILY.xattr.{key}"), value));
        }
        if !records.is_empty() {
            let records = records.iter().map(|(key, value)| (key.as_str(), *value));
            self.builder.append_pax_extensions(records)?;
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode.into());
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_mtime(u64::try_from(meta.mtime).unwrap_or(0));
        header.set_size(0);
        if let Some((major, minor)) = device {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        let fields = header.as_gnu_mut().ok_or_else(|| io::Error::other("a GNU header"))?;
        copy(&mut fields.name, &name);
        copy(&mut fields.linkname, link);
        Ok(header)
    }
}

/// `/usr/bin` as `usr/bin/`.
fn name(path: &[u8], kind: tar::EntryType) -> Vec<u8> {
    let mut name = path.strip_prefix(b"/").unwrap_or(path).to_vec();
    if kind == tar::EntryType::Directory {
        if name.is_empty() {
            name.push(b'.');
        }
        name.push(b'/');
    }
    name
}

fn copy(field: &mut [u8], bytes: &[u8]) {
    let n = bytes.len().min(field.len());
    field[..n].copy_from_slice(&bytes[..n]);
}
