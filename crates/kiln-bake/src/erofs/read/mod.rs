//! A metadata file back to the tree it was written from.
//!
//! The file may come from anywhere. Only what [`super::write`] writes is read, everything else is an error that says
//! where; nothing is read twice, nothing loops, and what it comes to in memory is bounded by the file's length.

mod bytes;
mod directory;
mod inode;
mod superblock;
mod xattrs;

use std::collections::{BTreeMap, HashMap, HashSet};

use kiln_model::{Node, Tree, TreeError};

use bytes::Bytes;
use directory::Entry;
use inode::Inode;

/// Paths take at most this much memory for each byte of the file, and a little more: in a directory that is as deep
/// as can be, an entry of a byte is a path of 4095.
const PATH_BYTES: usize = 128;
const FEW_PATH_BYTES: usize = 1 << 20;

/// A file that is not an image as Kiln writes them, and where that shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadImage {
    /// Some bytes are wrong.
    #[error("at byte {offset}: {problem}")]
    Bytes {
        /// Where.
        offset: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// A path is one that no tree has.
    #[error("it holds an impossible path")]
    Path(#[from] TreeError),
}

impl BadImage {
    fn at(offset: usize, problem: &'static str) -> Self {
        Self::Bytes { offset, problem }
    }
}

/// The tree that the metadata file `image` holds. Of the names of a file with several, the first in byte order has the
/// file, the others are hard links to it.
///
/// # Errors
/// If it is anything but an image as this version writes them.
pub fn read(image: &[u8]) -> Result<Tree, BadImage> {
    let mut reader = Reader::new(image)?;
    let mut paths = BTreeMap::new();
    reader.walk(&mut paths)?;
    reader.tree(paths)
}

struct Reader<'a> {
    bytes: Bytes<'a>,
    time: i64,
    root: u64,
    inodes: u64,
    /// How many bytes of paths there may still be.
    path_bytes: usize,
    /// Inodes that were met, with how many names they should have and how many they have.
    met: HashMap<u64, Met>,
}

struct Met {
    node: Node,
    links: u32,
    names: u32,
}

/// A directory whose entries are still to be read.
struct Open {
    path: Vec<u8>,
    nid: u64,
    parent: u64,
}

impl<'a> Reader<'a> {
    fn new(image: &'a [u8]) -> Result<Self, BadImage> {
        let bytes = Bytes::new(image);
        let head = superblock::read(&bytes)?;
        let path_bytes = image.len().saturating_mul(PATH_BYTES).saturating_add(FEW_PATH_BYTES);
        Ok(Self {
            bytes,
            time: head.time,
            root: head.root,
            inodes: head.inodes,
            path_bytes,
            met: HashMap::new(),
        })
    }

    /// Finds every path and the inode there.
    fn walk(&mut self, paths: &mut BTreeMap<Vec<u8>, u64>) -> Result<(), BadImage> {
        paths.insert(b"/".to_vec(), self.root);
        let mut seen = HashSet::from([self.root]);
        let mut todo = vec![Open { path: Vec::new(), nid: self.root, parent: self.root }];
        while let Some(open) = todo.pop() {
            let inode = inode::read(&mut self.bytes, open.nid, self.time)?;
            if inode.kind != Inode::DIRECTORY {
                return Err(inode.bad("it is entered, and no directory"));
            }
            let mut subdirectories = 0;
            for entry in self.entries(&inode, &open)? {
                let path = [&open.path[..], b"/", &entry.name].concat();
                self.count_path(&inode, &path)?;
                if entry.kind == 2 {
                    if !seen.insert(entry.nid) {
                        return Err(inode.bad("a directory in it is elsewhere as well"));
                    }
                    subdirectories += 1;
                    todo.push(Open { path: path.clone(), nid: entry.nid, parent: open.nid });
                }
                self.meet(&entry)?;
                paths.insert(path, entry.nid);
            }
            self.close(inode, open.nid, subdirectories)?;
        }
        Ok(())
    }

    /// Its entries but `.` and `..`, which must lead where they should.
    fn entries(&mut self, directory: &Inode, open: &Open) -> Result<Vec<Entry>, BadImage> {
        let data = directory.data(&mut self.bytes)?;
        let mut entries = directory::read(&data).ok_or_else(|| directory.bad("its entries are damaged"))?;
        for (name, expected) in [(&b"."[..], open.nid), (b"..", open.parent)] {
            let place = entries.iter().position(|e| e.name == name && e.nid == expected && e.kind == 2);
            entries.remove(place.ok_or_else(|| directory.bad("it does not know itself or its parent"))?);
        }
        Ok(entries)
    }

    fn count_path(&mut self, directory: &Inode, path: &[u8]) -> Result<(), BadImage> {
        let left = self.path_bytes.checked_sub(path.len()).filter(|_| path.len() <= Tree::MAX_PATH);
        self.path_bytes = left.ok_or_else(|| directory.bad("paths in it are too long"))?;
        Ok(())
    }

    /// Notes a name of an inode, which is read with the first. Directories are read when they are entered.
    fn meet(&mut self, entry: &Entry) -> Result<(), BadImage> {
        if entry.kind == 2 {
            return Ok(());
        }
        if let Some(met) = self.met.get_mut(&entry.nid) {
            met.names += 1;
            return Ok(());
        }
        let inode = inode::read(&mut self.bytes, entry.nid, self.time)?;
        if inode.entry_type() != entry.kind {
            return Err(inode.bad("it is of another kind than its entry"));
        }
        let links = inode.links;
        let node = inode.node(&mut self.bytes)?;
        self.met.insert(entry.nid, Met { node, links, names: 1 });
        Ok(())
    }

    /// Notes a directory whose entries have been read: its names are its own, `.`, and `..` in each one below it.
    fn close(&mut self, inode: Inode, nid: u64, subdirectories: u32) -> Result<(), BadImage> {
        let links = inode.links;
        let node = inode.node(&mut self.bytes)?;
        self.met.insert(nid, Met { node, links, names: 2 + subdirectories });
        Ok(())
    }

    fn tree(mut self, paths: BTreeMap<Vec<u8>, u64>) -> Result<Tree, BadImage> {
        if self.met.len() as u64 != self.inodes {
            return Err(BadImage::at(0, "it has other inodes than it says"));
        }
        let mut tree = Tree::new();
        let mut first: HashMap<u64, Vec<u8>> = HashMap::new();
        for (path, nid) in paths {
            let node = match self.met.remove(&nid) {
                Some(met) if met.links != met.names => {
                    return Err(BadImage::at(0, "an inode has other names than it says"));
                }
                Some(met) => {
                    if !met.node.is_directory() && met.names > 1 {
                        first.insert(nid, path.clone());
                    }
                    met.node
                }
                None => Node::Hardlink(first.get(&nid).cloned().ok_or(BadImage::at(0, "an inode was lost"))?),
            };
            tree.insert(path, node)?;
        }
        Ok(tree)
    }
}
