//! The tree as dpkg would have left it between unpacking and configuring: every new package's files in place, its
//! configuration files beside their names as `.dpkg-new`.

use std::collections::{HashMap, HashSet};

use kiln_model::{Node, Tree, TreeError};
use kiln_store::{Batch, Store, StoreError};

use super::diversions::Diversions;
use super::package::Package;
use crate::content;
use crate::skeleton;
use crate::tree_edit::{TreeEdit, root_meta};

/// Directories that are links into `/usr`, as on every Debian system of today.
const MERGED: [&str; 3] = ["bin", "sbin", "lib"];
/// The same for other word sizes, on amd64.
const MERGED_AMD64: [&str; 3] = ["lib32", "lib64", "libx32"];

/// Packages that do not fit together in one tree.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Two ship the same file, and neither says that it replaces the other's.
    #[error("packages `{first}` and `{second}` both hold {path}, and neither replaces the other")]
    Clash {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// The file.
        path: String,
    },
    /// A path that cannot be.
    #[error("the packages do not make a tree")]
    Tree(#[from] TreeError),
    /// A file of dpkg's database could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A tree that packages are being put into.
pub(crate) struct Assembly<'a> {
    edit: TreeEdit,
    /// Those that are in the tree already, then the new ones.
    packages: Vec<Package<'a>>,
    /// How many of them are in the tree already.
    old: usize,
    /// Which package put a file where it is.
    owners: HashMap<Vec<u8>, usize>,
    /// Directories that were there before: as they are.
    settled: HashSet<Vec<u8>>,
    /// All directories, while somebody else has the tree.
    known: HashSet<Vec<u8>>,
    diversions: Diversions,
    epoch: i64,
}

impl<'a> Assembly<'a> {
    /// The empty tree for `new`, with times of files that are made here set to `epoch`.
    pub(crate) fn of_nothing(
        new: &[Package<'a>],
        architecture: &str,
        epoch: i64,
    ) -> Result<Self, AssembleError> {
        let mut assembly = Self {
            edit: skeleton::new(epoch)?,
            packages: new.to_vec(),
            old: 0,
            owners: HashMap::new(),
            settled: HashSet::new(),
            known: HashSet::new(),
            diversions: Diversions::default(),
            epoch,
        };
        assembly.merge_directories(architecture)?;
        Ok(assembly)
    }

    /// The tree `before`, in which `old` packages are installed, for `new` ones.
    pub(crate) fn over(
        before: Tree,
        old: &[Package<'a>],
        new: &[Package<'a>],
        epoch: i64,
        store: &Store,
    ) -> Result<Self, AssembleError> {
        let settled = directories(&before);
        let diversions = Diversions::of(&before, store)?;
        let mut assembly = Self {
            edit: TreeEdit::new(before),
            packages: [old, new].concat(),
            old: old.len(),
            owners: HashMap::new(),
            settled,
            known: HashSet::new(),
            diversions,
            epoch,
        };
        for (index, package) in old.iter().enumerate() {
            for (path, _) in package.data.iter().filter(|(_, node)| !node.is_directory()) {
                let place = assembly.place_of(path, index)?;
                assembly.owners.insert(place, index);
            }
        }
        Ok(assembly)
    }

    /// The tree, when all is in it.
    pub(crate) fn take_tree(&mut self) -> Tree {
        std::mem::replace(&mut self.edit, TreeEdit::new(Tree::new())).into_tree()
    }

    /// The tree as it is, for whoever changes it and gives it back with [`Assembly::resume`].
    pub(crate) fn lend_tree(&mut self) -> Tree {
        let tree = self.take_tree();
        self.known = directories(&tree);
        tree
    }

    /// Goes on with `tree`, in which files may have been diverted; directories that are new in it were there before the
    /// packages to come.
    pub(crate) fn resume(&mut self, tree: Tree, store: &Store) -> Result<(), AssembleError> {
        self.diversions = Diversions::of(&tree, store)?;
        let known = std::mem::take(&mut self.known);
        self.settled.extend(directories(&tree).into_iter().filter(|path| !known.contains(path)));
        self.edit = TreeEdit::new(tree);
        Ok(())
    }

    fn merge_directories(&mut self, architecture: &str) -> Result<(), AssembleError> {
        let more: &[&str] = if architecture == "amd64" { &MERGED_AMD64 } else { &[] };
        for name in MERGED.iter().chain(more) {
            self.edit.ensure_directory(format!("/usr/{name}").as_bytes(), self.epoch)?;
            let link = Node::Symlink(root_meta(0o777, self.epoch), format!("usr/{name}").into());
            self.edit.put(format!("/{name}").as_bytes(), link)?;
        }
        Ok(())
    }

    /// Where a path of a package goes: through the links of those before it, and aside if another package diverts it.
    fn place_of(&self, path: &[u8], index: usize) -> Result<Vec<u8>, TreeError> {
        let place = self.edit.resolve_parents(path)?;
        Ok(self.diversions.place(place, self.packages[index].name()))
    }

    /// Puts the files of a new package in their places.
    pub(crate) fn lay(&mut self, new: usize) -> Result<(), AssembleError> {
        let index = self.old + new;
        let package = self.packages[index].clone();
        let conffiles: HashSet<&str> = package.conffiles().collect();
        let mut moved: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for (path, node) in package.data.iter() {
            let mut place = self.place_of(path, index)?;
            let is_file = matches!(node, Node::File(..) | Node::Hardlink(_));
            if is_file && std::str::from_utf8(path).is_ok_and(|p| conffiles.contains(p)) {
                place.extend_from_slice(b".dpkg-new");
            }
            moved.insert(path.to_vec(), place.clone());
            let node = match node {
                // The name it refers to may come later in order, but its place is known from its path alone.
                Node::Hardlink(first) => Node::Hardlink(match moved.get(first) {
                    Some(place) => place.clone(),
                    None => self.place_of(first, index)?,
                }),
                other => other.clone(),
            };
            if self.may_lay(&place, &node, index)? {
                self.edit.ensure_parent(&place, self.epoch)?;
                self.edit.put(&place, node)?;
            }
        }
        Ok(())
    }

    /// Whether a package's `node` goes to `place`: as in dpkg a directory that is there already stays as it is, also
    /// where it is reached through a link, and a file only yields to a package that replaces its owner.
    fn may_lay(&mut self, place: &[u8], node: &Node, index: usize) -> Result<bool, AssembleError> {
        let there = self.edit.tree().get(place);
        match (there, node) {
            (None, _) => {}
            (Some(Node::Directory(_)), Node::Directory(_)) => {
                // The first one to ship a directory decides on its mode; those made here on the way do not.
                return Ok(self.owners.insert(place.into(), index).is_none() && !self.settled.contains(place));
            }
            (Some(Node::Symlink(..)), Node::Directory(_)) | (Some(Node::Directory(_)), Node::Symlink(..)) => {
                return Ok(false);
            }
            (Some(_), _) => {
                let package = &self.packages[index];
                if let Some(owner) = self.owners.get(place).map(|o| &self.packages[*o])
                    && owner.name() != self.diversions.diverter(place)
                    && package.name() != self.diversions.diverter(place)
                {
                    if owner.replaces(package) {
                        return Ok(false);
                    }
                    if !package.replaces(owner) {
                        return Err(AssembleError::Clash {
                            first: owner.name().into(),
                            second: package.name().into(),
                            path: String::from_utf8_lossy(place).into_owned(),
                        });
                    }
                }
            }
        }
        self.owners.insert(place.into(), index);
        Ok(true)
    }

    /// A file of root's that is made here.
    pub(crate) fn file(
        &mut self,
        path: &str,
        mode: u16,
        bytes: &[u8],
        batch: &Batch,
    ) -> Result<(), AssembleError> {
        let content = content::of_bytes(batch, bytes)?;
        self.edit.ensure_parent(path.as_bytes(), self.epoch)?;
        Ok(self.edit.put(path.as_bytes(), Node::File(root_meta(mode, self.epoch), content))?)
    }

    pub(crate) fn ensure_directory(&mut self, path: &str) -> Result<(), AssembleError> {
        Ok(self.edit.ensure_directory(path.as_bytes(), self.epoch)?)
    }

    pub(crate) fn tree(&self) -> &Tree {
        self.edit.tree()
    }

    /// The packages that were installed before, and the new ones.
    pub(crate) fn packages(&self) -> (&[Package<'a>], &[Package<'a>]) {
        self.packages.split_at(self.old)
    }
}

fn directories(tree: &Tree) -> HashSet<Vec<u8>> {
    tree.iter().filter(|(_, node)| node.is_directory()).map(|(path, _)| path.to_vec()).collect()
}
