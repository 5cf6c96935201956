//! A layer: a tar archive of what one step of an image's making changed.
//!
//! | in the archive | means |
//! |---|---|
//! | `dir/.wh.name` | `dir/name` of the layers below is gone |
//! | `dir/.wh..wh..opq` | all that the layers below have in `dir` is gone |
//! | `.wh..wh.…` otherwise | bookkeeping of an old union file system: passed over |
//! | everything else | is put over what is there |
//!
//! The bytes come from outside: nothing in them may leave the tree, name what is not there, or grow without bound.
//! Paths are only looked at as text here; `apply` follows the links of the layers below, inside the tree.

use std::io::{self, Read};

use kiln_model::{Content, Meta, Node, Tree, TreeError};

use crate::debian::deb::Sink;
use crate::packed::{self, BadEntry, Entries, Entry, MOST_ENTRIES, normal};
use crate::tree_edit::TreeEdit;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const BOOKKEEPING: &[u8] = b".wh..wh.";
/// Nothing that is packed is older than the epoch or as late as this: the year 2514.
const LATEST: u64 = 1 << 34;

/// Whether `path` in a layer says that something is gone, or is in a directory that does: there it cannot be itself.
pub(crate) fn says_gone(path: &[u8]) -> bool {
    path.split(|c| *c == b'/').any(|name| name.starts_with(WHITEOUT))
}

/// A layer that cannot be used, and where it goes wrong.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It cannot be read, or is damaged where a decompressor notices.
    #[error("could not read it")]
    Read(#[source] io::Error),
    /// It is not made as a layer is.
    #[error("{0}")]
    Shape(String),
    /// It holds a path that no image can have.
    #[error("it holds an impossible path")]
    Path(#[from] TreeError),
    /// The content of a file could not be kept.
    #[error("could not keep the content of {path}")]
    Keep {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

impl From<BadEntry> for LayerError {
    fn from(BadEntry(problem): BadEntry) -> Self {
        Self::Shape(problem)
    }
}

/// What one layer does to those below.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Paths that are gone.
    pub(crate) gone: Vec<Vec<u8>>,
    /// Directories whose contents are gone.
    pub(crate) opaque: Vec<Vec<u8>>,
    /// What it puts there. A hard link may name a file of a layer below.
    pub(crate) tree: Tree,
}

/// Reads an uncompressed layer; contents of files go to `sink`.
pub(crate) fn read(archive: impl Read, sink: &dyn Sink) -> Result<Layer, LayerError> {
    let mut archive = Entries::new(archive);
    let mut reading = Reading { gone: Vec::new(), opaque: Vec::new(), edit: TreeEdit::new(Tree::new()) };
    let mut count = 0;
    while let Some(mut entry) = archive.next().map_err(LayerError::Read)? {
        count += 1;
        if count > MOST_ENTRIES {
            return Err(LayerError::Shape(format!("it has more than {MOST_ENTRIES} entries")));
        }
        reading.entry(&mut entry, sink)?;
    }
    Ok(Layer { gone: reading.gone, opaque: reading.opaque, tree: reading.edit.into_tree() })
}

struct Reading {
    gone: Vec<Vec<u8>>,
    opaque: Vec<Vec<u8>>,
    edit: TreeEdit,
}

impl Reading {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, sink: &dyn Sink) -> Result<(), LayerError> {
        if entry.header().entry_type() == tar::EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = normal(&entry.path())?;
        let at = path.iter().rposition(|c| *c == b'/').unwrap_or(0);
        let (dir, name) = (&path[..at], &path[at + 1..]);
        if name == OPAQUE {
            self.opaque.push(if dir.is_empty() { b"/".to_vec() } else { dir.to_vec() });
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if !name.starts_with(BOOKKEEPING) {
                self.gone.push(whited_out(&path, dir, hidden)?);
            }
            return Ok(());
        }
        let node = match node(entry, &path, sink)? {
            Node::Hardlink(target) => Node::Hardlink(match self.edit.tree().get(&target) {
                Some(Node::Hardlink(first)) => first.clone(),
                _ => target,
            }),
            node => node,
        };
        if path == b"/" && !node.is_directory() {
            return Err(LayerError::Shape("its root is no directory".into()));
        }
        Ok(self.edit.put(&path, node)?)
    }
}

fn whited_out(path: &[u8], dir: &[u8], hidden: &[u8]) -> Result<Vec<u8>, LayerError> {
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(LayerError::Shape(format!("{} takes away nothing that can be", shown(path))));
    }
    Ok([dir, b"/", hidden].concat())
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn node<R: Read>(entry: &mut Entry<'_, R>, path: &[u8], sink: &dyn Sink) -> Result<Node, LayerError> {
    let meta = meta(entry, path)?;
    let file = |entry: &mut Entry<'_, R>, meta| Ok(Node::File(meta, content(entry, path, sink)?));
    packed::node(entry, path, meta, "layers", file, |target| Ok(Node::Hardlink(target)))
}

fn content<R: Read>(entry: &mut Entry<'_, R>, path: &[u8], sink: &dyn Sink) -> Result<Content, LayerError> {
    let size = entry.size();
    sink.keep(entry, size).map_err(|source| LayerError::Keep { path: shown(path), source })
}

fn meta<R: Read>(entry: &mut Entry<'_, R>, path: &[u8]) -> Result<Meta, LayerError> {
    let xattrs = packed::xattrs(entry, path)?;
    let header = entry.header();
    let id = |n: io::Result<u64>| match n.map_err(LayerError::Read).map(u32::try_from)? {
        Ok(id) => Ok(id),
        Err(_) => Err(LayerError::Shape(format!("{} has an owner beyond 32 bits", shown(path)))),
    };
    // A time before the epoch is a number of 64 bits with its highest set: the epoch stands for it.
    let mtime = header.mtime().map_err(LayerError::Read)?;
    let mtime = if mtime > i64::MAX as u64 { 0 } else { mtime.min(LATEST) as i64 };
    let mode = (header.mode().map_err(LayerError::Read)? & 0o7777) as u16;
    Ok(Meta { mode, uid: id(entry.uid())?, gid: id(entry.gid())?, mtime, xattrs })
}

/// Reads whatever `bytes` are as a layer, keeping nothing; for tests that throw anything at it.
#[doc(hidden)]
pub fn parse_any_layer(bytes: &[u8]) {
    struct Nowhere;
    impl Sink for Nowhere {
        fn keep(&self, content: &mut dyn Read, _: u64) -> io::Result<Content> {
            io::copy(content, &mut io::sink()).map(|_| Content::Inline(Vec::new()))
        }
    }
    if let Ok(layer) = read(bytes, &Nowhere) {
        let mut edit = TreeEdit::new(Tree::new());
        let _ = super::apply::apply(&mut edit, &layer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::deb::Inside;

    fn add(b: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, size: u64, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.as_mut_bytes()[0] = b'f';
        header.set_cksum();
        b.append(&header, content).unwrap();
    }

    fn with(records: &[(&str, &[u8])], kind: tar::EntryType, size: u64) -> Result<Layer, LayerError> {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        add(&mut builder, kind, size, b"content");
        read(builder.into_inner().unwrap().as_slice(), &Inside)
    }

    #[test]
    fn what_is_said_beside_a_header_may_end_lines_and_says_nothing_else() {
        let said: [(&str, &[u8]); 5] = [
            ("SCHILY.xattr.user.a", b"x\n10 size=9\n9 uid=5\n"),
            ("path", b"of\ntwo"),
            ("size", b"7"),
            ("uid", b"70000"),
            ("linkpath", b"to\ntwo"),
        ];
        let layer = with(&said, tar::EntryType::Regular, 0).unwrap();
        let Some(Node::File(meta, Content::Inline(content))) = layer.tree.get(b"/of\ntwo") else {
            panic!("{layer:?}")
        };
        assert_eq!((content.as_slice(), meta.uid), (&b"content"[..], 70000));
        assert_eq!(meta.xattrs[&b"user.a"[..]], b"x\n10 size=9\n9 uid=5\n");
        let layer = with(&said[4..], tar::EntryType::Symlink, 7).unwrap();
        assert!(matches!(layer.tree.get(b"/f"), Some(Node::Symlink(_, to)) if to == b"to\ntwo"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let said = |records: &[(&str, &[u8])]| match with(records, tar::EntryType::Regular, 7).unwrap_err() {
            LayerError::Read(source) => source.to_string(),
            other => other.to_string(),
        };
        assert!(said(&[("uid", b"none")]).contains("`uid` is none"));
        assert!(said(&[("GNU.sparse.major", b"1")]).contains("sparse"));
        assert!(said(&[("path", b"../up")]).contains("outside of any tree"));
        let long = vec![b'x'; 1 << 20];
        assert!(said(&[("comment", &long)]).contains("1048576 are allowed"));
    }
}
