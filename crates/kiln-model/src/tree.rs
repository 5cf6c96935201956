//! The tree of an image: what is where, with every attribute, before it is written as an EROFS file.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::ObjectDigest;

/// Extended attributes by full name (`security.capability`, `user.…`).
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The attributes every inode has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since the epoch.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// The content of a regular file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Content {
    /// Bytes kept in the metadata file itself: for small files, as composefs does up to 64 bytes.
    Inline(Vec<u8>),
    /// An object of the store.
    Object {
        /// Its fs-verity digest, also its name.
        digest: ObjectDigest,
        /// Its length in bytes.
        size: u64,
    },
}

impl Content {
    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Object { size, .. } => *size,
        }
    }
}

/// One path of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// A directory; its children are the paths below it.
    Directory(Meta),
    /// A regular file.
    File(Meta, Content),
    /// A symbolic link and its target.
    Symlink(Meta, Vec<u8>),
    /// A further name of the file at this path (absolute inside the tree, never itself a hard link).
    Hardlink(Vec<u8>),
    /// A character device with its major and minor number.
    CharDevice(Meta, u32, u32),
    /// A block device with its major and minor number.
    BlockDevice(Meta, u32, u32),
    /// A named pipe.
    Fifo(Meta),
    /// A socket.
    Socket(Meta),
}

impl Node {
    /// How many bytes its content has; only files have any, under the first of their names.
    pub fn size(&self) -> u64 {
        match self {
            Node::File(_, content) => content.size(),
            _ => 0,
        }
    }

    /// Its attributes; a hard link has those of the file it names.
    pub fn meta(&self) -> Option<&Meta> {
        match self {
            Node::Directory(m)
            | Node::File(m, _)
            | Node::Symlink(m, _)
            | Node::CharDevice(m, ..)
            | Node::BlockDevice(m, ..)
            | Node::Fifo(m)
            | Node::Socket(m) => Some(m),
            Node::Hardlink(_) => None,
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self, Node::Directory(_))
    }
}

/// A tree that would not make an image, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", String::from_utf8_lossy(path))]
pub struct TreeError {
    /// The path at fault.
    pub path: Vec<u8>,
    /// What is wrong with it.
    pub problem: String,
}

/// A whole root filesystem. Keys are absolute paths without a trailing slash, `/` for the root; bytes, not text.
///
/// Sorted by bytes, a parent comes before its children; [`Tree::insert`] keeps every path well formed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
}

impl Tree {
    /// The longest name of one path component, in bytes (NAME_MAX).
    pub const MAX_NAME: usize = 255;
    /// The longest path, in bytes (PATH_MAX without its terminating NUL).
    pub const MAX_PATH: usize = 4095;

    /// A tree without any path, not even the root.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `node` at `path`, replacing what is there.
    ///
    /// # Errors
    /// If the path is not absolute and normal (no `.`, `..`, empty component, NUL), or is too long.
    pub fn insert(&mut self, path: impl Into<Vec<u8>>, node: Node) -> Result<Option<Node>, TreeError> {
        let path = path.into();
        if let Some(problem) = path_problem(&path) {
            return Err(TreeError { path, problem: problem.into() });
        }
        Ok(self.nodes.insert(path, node))
    }

    /// The tree of these nodes; of two at one path the later one. Quickest if they are sorted.
    ///
    /// # Errors
    /// As [`Tree::insert`].
    pub fn of(nodes: Vec<(Vec<u8>, Node)>) -> Result<Self, TreeError> {
        let bad = nodes.iter().find_map(|(path, _)| Some((path, path_problem(path)?)));
        match bad {
            Some((path, problem)) => Err(TreeError { path: path.clone(), problem: problem.into() }),
            None => Ok(Self { nodes: nodes.into_iter().collect() }),
        }
    }

    /// Takes away what is at `path`, and nothing below it.
    pub fn remove(&mut self, path: &[u8]) -> Option<Node> {
        self.nodes.remove(path)
    }

    /// Takes away `path` and everything below it.
    pub fn remove_all(&mut self, path: &[u8]) {
        let mut below = path.to_vec();
        below.push(b'/');
        self.nodes.retain(|p, _| p != path && !p.starts_with(&below));
    }

    /// What is at `path`, links not followed.
    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// What is at `path`, to change it.
    pub fn get_mut(&mut self, path: &[u8]) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// All paths in byte order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(p, n)| (p.as_slice(), n))
    }

    /// What is below the directory `path`, in byte order, without the directory itself.
    pub fn below(&self, path: &[u8]) -> impl Iterator<Item = (&[u8], &Node)> {
        let start = [path.strip_suffix(b"/").unwrap_or(path), b"/"].concat();
        let range = (Bound::Excluded(start.clone()), Bound::Unbounded);
        let below = self.nodes.range::<Vec<u8>, _>(range).take_while(move |(p, _)| p.starts_with(&start));
        below.map(|(p, n)| (p.as_slice(), n))
    }

    /// All paths in byte order, to change what is at them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&[u8], &mut Node)> {
        self.nodes.iter_mut().map(|(p, n)| (p.as_slice(), n))
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

fn path_problem(path: &[u8]) -> Option<&'static str> {
    if path == b"/" {
        return None;
    }
    if path.len() > Tree::MAX_PATH {
        return Some("the path is longer than 4095 bytes");
    }
    let Some(relative) = path.strip_prefix(b"/") else { return Some("the path is not absolute") };
    for name in relative.split(|c| *c == b'/') {
        match name {
            b"" => return Some("the path has an empty component"),
            b"." | b".." => return Some("the path has a `.` or `..` component"),
            _ if name.len() > Tree::MAX_NAME => return Some("a name is longer than 255 bytes"),
            _ if name.contains(&0) => return Some("the path has a NUL byte"),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> Node {
        Node::Directory(Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() })
    }

    #[test]
    fn paths_are_checked() {
        let mut tree = Tree::new();
        for good in [&b"/"[..], b"/a", b"/a/\xff"] {
            assert!(tree.insert(good, dir()).is_ok());
        }
        for bad in [&b""[..], b"a", b"/a/", b"//a", b"/a/../b", b"/.", b"/a\0b", &[b'/'; 2]] {
            assert!(tree.insert(bad, dir()).is_err(), "{bad:?}");
        }
        assert!(tree.insert([b"/".as_slice(), &[b'x'; 256]].concat(), dir()).is_err());
        assert!(tree.insert([b"/".as_slice(), &[b'x'; 255]].concat(), dir()).is_ok());
        let of = |path: &[u8]| Tree::of(vec![(b"/".to_vec(), dir()), (path.to_vec(), dir())]);
        assert_eq!(of(b"/a").unwrap().len(), 2);
        assert_eq!(of(b"/a/../b").unwrap_err().path, b"/a/../b");
    }

    #[test]
    fn removing_a_directory_leaves_its_namesakes() {
        let mut tree = Tree::new();
        for p in ["/", "/a", "/a/b", "/a-b", "/ab"] {
            tree.insert(p, dir()).unwrap();
        }
        tree.remove_all(b"/a");
        let left: Vec<_> = tree.iter().map(|(p, _)| p.to_vec()).collect();
        assert_eq!(left, [&b"/"[..], b"/a-b", b"/ab"]);
    }
}
