//! The tree as dpkg would have left it between unpacking and configuring: every package's files in place, its
//! configuration files beside their names as `.dpkg-new`, and dpkg's database saying `unpacked` of each.

use std::collections::{BTreeMap, HashMap, HashSet};

use kiln_model::{Node, Tree, TreeError};
use kiln_store::{Batch, StoreError};

use super::package::Package;
use crate::content;
use crate::skeleton;
use crate::tree_edit::{TreeEdit, directory, root_meta};

/// Directories that are links into `/usr`, as on every Debian system of today.
const MERGED: [&str; 3] = ["bin", "sbin", "lib"];
/// The same for other word sizes, on amd64.
const MERGED_AMD64: [&str; 3] = ["lib32", "lib64", "libx32"];

const DPKG: &str = "/var/lib/dpkg";

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

/// The unpacked tree of `packages`, with times of files that are made here set to `epoch`.
pub(crate) fn assemble(
    packages: &[Package<'_>],
    architecture: &str,
    epoch: i64,
    batch: &Batch,
) -> Result<Tree, AssembleError> {
    let mut assembly = Assembly { edit: skeleton::new(epoch)?, owners: HashMap::new(), epoch, batch };
    assembly.merge_directories(architecture)?;
    for (i, package) in packages.iter().enumerate() {
        assembly.lay(i, packages)?;
        assembly.info(package)?;
    }
    assembly.database(packages)?;
    Ok(assembly.edit.into_tree())
}

struct Assembly<'a> {
    edit: TreeEdit,
    /// Which package put a file where it is.
    owners: HashMap<Vec<u8>, usize>,
    epoch: i64,
    batch: &'a Batch,
}

impl Assembly<'_> {
    fn merge_directories(&mut self, architecture: &str) -> Result<(), AssembleError> {
        let more: &[&str] = if architecture == "amd64" { &MERGED_AMD64 } else { &[] };
        for name in MERGED.iter().chain(more) {
            self.edit.ensure_directory(format!("/usr/{name}").as_bytes(), self.epoch)?;
            let link = Node::Symlink(root_meta(0o777, self.epoch), format!("usr/{name}").into());
            self.edit.put(format!("/{name}").as_bytes(), link)?;
        }
        Ok(())
    }

    /// Puts the files of one package where its paths lead through the links of those before it.
    fn lay(&mut self, index: usize, packages: &[Package<'_>]) -> Result<(), AssembleError> {
        let package = &packages[index];
        let conffiles: HashSet<&str> = package.conffiles().collect();
        let mut moved: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for (path, node) in package.data.iter() {
            let mut place = self.edit.resolve_parents(path);
            let is_file = matches!(node, Node::File(..) | Node::Hardlink(_));
            if is_file && std::str::from_utf8(path).is_ok_and(|p| conffiles.contains(p)) {
                place.extend_from_slice(b".dpkg-new");
            }
            moved.insert(path.to_vec(), place.clone());
            let node = match node {
                // The name it refers to may come later in order, but its place is known from its path alone.
                Node::Hardlink(first) => Node::Hardlink(match moved.get(first) {
                    Some(place) => place.clone(),
                    None => self.edit.resolve_parents(first),
                }),
                other => other.clone(),
            };
            if self.may_lay(&place, &node, index, packages)? {
                self.edit.ensure_parent(&place, self.epoch)?;
                self.edit.put(&place, node)?;
            }
        }
        Ok(())
    }

    /// Whether a package's `node` goes to `place`: as in dpkg a directory that is there already stays as it is, also
    /// where it is reached through a link, and a file only yields to a package that replaces its owner.
    fn may_lay(
        &mut self,
        place: &[u8],
        node: &Node,
        index: usize,
        packages: &[Package<'_>],
    ) -> Result<bool, AssembleError> {
        let there = self.edit.tree().get(place);
        match (there, node) {
            (None, _) => {}
            (Some(Node::Directory(_)), Node::Directory(_)) => {
                // The first one to ship a directory decides on its mode; those made here on the way do not.
                return Ok(self.owners.insert(place.into(), index).is_none());
            }
            (Some(Node::Symlink(..)), Node::Directory(_)) | (Some(Node::Directory(_)), Node::Symlink(..)) => {
                return Ok(false);
            }
            (Some(_), _) => {
                if let Some(owner) = self.owners.get(place).map(|o| &packages[*o]) {
                    let package = &packages[index];
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

    fn file(&mut self, path: &str, mode: u16, bytes: &[u8]) -> Result<(), AssembleError> {
        let content = content::of_bytes(self.batch, bytes)?;
        self.edit.ensure_parent(path.as_bytes(), self.epoch)?;
        Ok(self.edit.put(path.as_bytes(), Node::File(root_meta(mode, self.epoch), content))?)
    }

    /// What dpkg keeps of each package: its control files and the list of its paths.
    fn info(&mut self, package: &Package<'_>) -> Result<(), AssembleError> {
        let base = format!("{DPKG}/info/{}", package.qualified_name());
        for (name, mode, bytes) in package.control_files() {
            self.file(&format!("{base}.{name}"), mode, bytes)?;
        }
        let mut list = Vec::new();
        for (path, _) in package.data.iter() {
            list.extend_from_slice(if path == b"/" { b"/." } else { path });
            list.push(b'\n');
        }
        self.file(&format!("{base}.list"), 0o644, &list)
    }

    fn database(&mut self, packages: &[Package<'_>]) -> Result<(), AssembleError> {
        for dir in ["alternatives", "parts", "updates", "triggers", "info"] {
            self.edit.ensure_directory(format!("{DPKG}/{dir}").as_bytes(), self.epoch)?;
        }
        let status: String = packages.iter().map(status_stanza).collect();
        self.file(&format!("{DPKG}/status"), 0o644, status.as_bytes())?;
        self.file(&format!("{DPKG}/info/format"), 0o644, b"1\n")?;
        for empty in ["available", "diversions", "statoverride", "triggers/Unincorp"] {
            self.file(&format!("{DPKG}/{empty}"), 0o644, b"")?;
        }
        for (file, text) in triggers(packages) {
            self.file(&format!("{DPKG}/triggers/{file}"), 0o644, text.as_bytes())?;
        }
        self.edit.put(b"/var/lib/dpkg", directory(0o755, self.epoch))?;
        Ok(())
    }
}

/// A package's control file with what dpkg adds to it: that it is unpacked, and that its configuration files are
/// new.
fn status_stanza(package: &Package<'_>) -> String {
    let mut out = String::new();
    for line in package.text.lines().filter(|l| !l.trim().is_empty()) {
        out.push_str(line);
        out.push('\n');
        if line.starts_with("Package:") {
            out.push_str("Status: install ok unpacked\n");
        }
    }
    let mut conffiles = package.conffiles().peekable();
    if conffiles.peek().is_some() {
        out.push_str("Conffiles:\n");
    }
    for path in conffiles {
        out.push_str(&format!(" {path} newconffile\n"));
    }
    out.push('\n');
    out
}

/// Who wants to be told of what: one file for paths, and one for each other trigger.
fn triggers(packages: &[Package<'_>]) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::from([("File".into(), String::new())]);
    for package in packages {
        let text = package.control_file("triggers").map(String::from_utf8_lossy).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(directive), Some(trigger)) = (words.next(), words.next()) else { continue };
            let options = match directive {
                "interest" | "interest-await" => "",
                "interest-noawait" => "/noawait",
                _ => continue,
            };
            let who = format!("{}{options}\n", package.qualified_name());
            if trigger.starts_with('/') {
                files.entry("File".into()).or_default().push_str(&format!("{trigger} {who}"));
            } else if !trigger.contains('/') && trigger != "." && trigger != ".." {
                files.entry(trigger.into()).or_default().push_str(&who);
            }
        }
    }
    files
}
