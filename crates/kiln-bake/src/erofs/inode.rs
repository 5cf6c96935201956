//! The inodes of a tree: hard links resolved, directories filled, every limit checked.

use std::collections::{HashMap, HashSet};

use kiln_model::{Content, Meta, Node, ObjectDigest, Tree, TreeError};

use super::Contents;
use super::limits::{self, Problem};
use super::xattrs::Attributes;

/// What an inode is, beyond its attributes.
pub(super) enum Kind<'a> {
    Directory(Vec<Entry<'a>>),
    Inline(&'a [u8]),
    /// A content outside.
    Object {
        digest: ObjectDigest,
        size: u64,
    },
    /// A content in blocks of the file.
    Stored {
        digest: ObjectDigest,
        size: u64,
    },
    Symlink(&'a [u8]),
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
    Socket,
}

/// A name in a directory, and the index of its inode.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: usize,
}

pub(super) struct Inode<'a> {
    pub(super) meta: &'a Meta,
    pub(super) kind: Kind<'a>,
    pub(super) links: u32,
    pub(super) xattrs: Attributes,
}

impl Inode<'_> {
    /// The type bits of `st_mode`.
    pub(super) fn format(&self) -> u16 {
        match self.kind {
            Kind::Fifo => 0o010_000,
            Kind::CharDevice(_) => 0o020_000,
            Kind::Directory(_) => 0o040_000,
            Kind::BlockDevice(_) => 0o060_000,
            Kind::Inline(_) | Kind::Object { .. } | Kind::Stored { .. } => 0o100_000,
            Kind::Symlink(_) => 0o120_000,
            Kind::Socket => 0o140_000,
        }
    }

    /// The type in directory entries.
    pub(super) fn entry_type(&self) -> u8 {
        match self.kind {
            Kind::Inline(_) | Kind::Object { .. } | Kind::Stored { .. } => 1,
            Kind::Directory(_) => 2,
            Kind::CharDevice(_) => 3,
            Kind::BlockDevice(_) => 4,
            Kind::Fifo => 5,
            Kind::Socket => 6,
            Kind::Symlink(_) => 7,
        }
    }

    pub(super) fn content_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Inline(content) => content.len() as u64,
            Kind::Object { size, .. } | Kind::Stored { size, .. } => *size,
            _ => 0,
        }
    }
}

/// The inodes of `tree`, the root first, then in order of paths.
pub(super) fn of(tree: &Tree, contents: Contents) -> Result<Vec<Inode<'_>>, TreeError> {
    let links = tree.iter().filter_map(|(path, node)| match node {
        Node::Hardlink(target) => Some((path, target.as_slice())),
        _ => None,
    });
    let links: Vec<_> = links.collect();
    let mut inodes = Inodes {
        tree,
        all: Vec::with_capacity(tree.len()),
        directories: HashMap::new(),
        linked: links.iter().map(|(_, target)| *target).collect(),
        files: HashMap::new(),
        last: (b"", 0),
        contents,
    };
    inodes.add_root().map_err(|p| error(b"/", p))?;
    for (path, node) in tree.iter().filter(|(path, _)| *path != b"/") {
        inodes.add(path, node).map_err(|p| error(path, p))?;
    }
    for (path, target) in links {
        inodes.link(path, target).map_err(|p| error(path, p))?;
    }
    Ok(inodes.finish())
}

fn error(path: &[u8], problem: Problem) -> TreeError {
    TreeError { path: path.to_vec(), problem: problem.into() }
}

struct Inodes<'a> {
    tree: &'a Tree,
    all: Vec<Inode<'a>>,
    directories: HashMap<&'a [u8], usize>,
    /// The paths that hard links name, and which of them have an inode that is no directory.
    linked: HashSet<&'a [u8]>,
    files: HashMap<&'a [u8], usize>,
    /// The directory that was asked for last: most paths have the parent of the one before.
    last: (&'a [u8], usize),
    contents: Contents,
}

impl<'a> Inodes<'a> {
    fn add_root(&mut self) -> Result<(), Problem> {
        let root = self.tree.get(b"/").ok_or("the tree has no root")?;
        if !root.is_directory() {
            return Err("the root is not a directory");
        }
        self.push(b"/", root)?;
        self.enter(0, b"..", 0)
    }

    fn add(&mut self, path: &'a [u8], node: &'a Node) -> Result<(), Problem> {
        let (parent, name) = limits::split(path)?;
        let parent = self.directory(parent)?;
        if matches!(node, Node::Hardlink(_)) {
            // Its file may come later in the order of paths.
            return Ok(());
        }
        let inode = self.push(path, node)?;
        self.enter(parent, name, inode)?;
        if node.is_directory() {
            self.enter(inode, b"..", parent)?;
            self.all[parent].links += 1;
        }
        Ok(())
    }

    fn link(&mut self, path: &'a [u8], target: &[u8]) -> Result<(), Problem> {
        let (parent, name) = limits::split(path)?;
        let parent = self.directory(parent)?;
        if self.directories.contains_key(target) {
            return Err("it is a hard link to a directory");
        }
        let file = self.files.get(target);
        let inode = *file.ok_or("it is a hard link to a path that has no file of its own")?;
        self.all[inode].links += 1;
        self.enter(parent, name, inode)
    }

    fn push(&mut self, path: &'a [u8], node: &'a Node) -> Result<usize, Problem> {
        let index = self.all.len();
        let inode = inode(node, index, self.contents)?;
        self.all.push(inode);
        if node.is_directory() {
            self.directories.insert(path, index);
        } else if self.linked.contains(path) {
            self.files.insert(path, index);
        }
        Ok(index)
    }

    fn directory(&mut self, path: &'a [u8]) -> Result<usize, Problem> {
        if self.last.0 != path {
            let index = self.directories.get(path).ok_or_else(|| match self.tree.get(path) {
                None | Some(Node::Hardlink(_)) => "its parent directory is not in the tree",
                Some(_) => "its parent is not a directory",
            })?;
            self.last = (path, *index);
        }
        Ok(self.last.1)
    }

    fn enter(&mut self, directory: usize, name: &'a [u8], inode: usize) -> Result<(), Problem> {
        match &mut self.all[directory].kind {
            Kind::Directory(entries) => entries.push(Entry { name, inode }),
            _ => return Err("its parent is not a directory"),
        }
        Ok(())
    }

    /// Sorts the directories: the kernel looks names up by halving.
    fn finish(mut self) -> Vec<Inode<'a>> {
        for inode in &mut self.all {
            if let Kind::Directory(entries) = &mut inode.kind {
                entries.sort_unstable_by_key(|e| e.name);
            }
        }
        self.all
    }
}

fn inode(node: &Node, index: usize, contents: Contents) -> Result<Inode<'_>, Problem> {
    let meta = node.meta().ok_or("a hard link has no inode of its own")?;
    limits::mode(meta)?;
    let kind = match kind(node, index)? {
        Kind::Object { digest, size } if contents == Contents::Inside => Kind::Stored { digest, size },
        kind => kind,
    };
    let object = match &kind {
        Kind::Object { digest, .. } => Some(*digest),
        _ => None,
    };
    let xattrs = Attributes::of(&meta.xattrs, object, contents)?;
    let links = if node.is_directory() { 2 } else { 1 };
    Ok(Inode { meta, kind, links, xattrs })
}

fn kind(node: &Node, index: usize) -> Result<Kind<'_>, Problem> {
    Ok(match node {
        Node::Directory(_) => Kind::Directory(vec![Entry { name: b".", inode: index }]),
        Node::File(_, Content::Inline(content)) => limits::inline(content).map(|()| Kind::Inline(content))?,
        Node::File(_, Content::Object { digest, size }) => {
            limits::size(*size).map(|()| Kind::Object { digest: *digest, size: *size })?
        }
        Node::Symlink(_, target) => limits::target(target).map(|()| Kind::Symlink(target))?,
        Node::CharDevice(_, major, minor) => Kind::CharDevice(limits::char_device(*major, *minor)?),
        Node::BlockDevice(_, major, minor) => Kind::BlockDevice(limits::device(*major, *minor)?),
        Node::Fifo(_) => Kind::Fifo,
        Node::Socket(_) => Kind::Socket,
        Node::Hardlink(_) => return Err("a hard link has no inode of its own"),
    })
}
