//! What was written over an image, laid over its tree: the upper directory of an overlay, read as overlayfs keeps it.
//!
//! A character device 0:0 says that a path is gone; a directory with the xattr `trusted.overlay.opaque` hides what
//! the image has below it. Contents are read through the mount, because a file whose attributes alone changed has
//! none in the upper directory. Of a file with several names only those are there that it was changed by; which others are
//! its own as well, the mount knows (`index=on`).

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use kiln_model::{Meta, Node, Tree, Xattrs};
use kiln_store::Batch;
use rustix::fs::{lgetxattr, llistxattr, major, minor};

use super::deb::Sink;
use super::index::fields;
use super::package::Package;
use crate::erofs;
use crate::sandbox::{HOST_IDS, Workplace};
use crate::tree_edit::TreeEdit;

/// The xattrs that are overlayfs's own bookkeeping.
const BOOKKEEPING: &[u8] = b"trusted.overlay.";
const OPAQUE: &str = "trusted.overlay.opaque";
const CAPABILITY: &[u8] = b"security.capability";

/// A path that could not be read back.
#[derive(Debug, thiserror::Error)]
#[error("could not {attempted} {}", path.display())]
pub struct CaptureError {
    attempted: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn on<'a, E: Into<io::Error>>(attempted: &'static str, path: &'a Path) -> impl Fn(E) -> CaptureError + 'a {
    move |e| CaptureError { attempted, path: path.into(), source: e.into() }
}

/// `tree`, the image's own, with everything that was written at `place`. New contents go to `batch`.
pub(crate) fn captured(place: &Workplace, tree: Tree, batch: &Batch) -> Result<Tree, CaptureError> {
    let edit = TreeEdit::new(tree);
    let shared = edit.shared_names();
    let mut capture = Capture { place, batch, edit, names: HashMap::new() };
    capture.directory(&place.upper, Path::new("/"))?;
    capture.other_names(&shared)?;
    Ok(capture.edit.into_tree())
}

/// Whether dpkg says that every package is installed; else the first that is not, and what it is.
pub(crate) fn check_installed(place: &Workplace, packages: &[Package<'_>]) -> Result<(), (String, String)> {
    let text = fs::read_to_string(place.root.join("var/lib/dpkg/status")).unwrap_or_default();
    let mut states: HashMap<&str, &str> = HashMap::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| fields(stanza).find(|(n, _)| *n == name).map(|(_, v)| v);
        if let (Some(name), Some(state)) = (field("Package"), field("Status")) {
            states.insert(name, state);
        }
    }
    for package in packages {
        match states.get(package.name()) {
            Some(&"install ok installed") => {}
            state => return Err((package.name().into(), state.unwrap_or(&"unknown to dpkg").to_string())),
        }
    }
    Ok(())
}

struct Capture<'a> {
    place: &'a Workplace,
    batch: &'a Batch,
    edit: TreeEdit,
    /// Where a file with several names was met first, by its inode in the mount.
    names: HashMap<(u64, u64), Vec<u8>>,
}

impl Capture<'_> {
    fn directory(&mut self, upper: &Path, inside: &Path) -> Result<(), CaptureError> {
        for name in sorted_names(upper)? {
            let (upper, inside) = (upper.join(&name), inside.join(&name));
            let meta = fs::symlink_metadata(&upper).map_err(on("look at", &upper))?;
            self.entry(&upper, &inside, &meta)?;
            if meta.is_dir() {
                self.directory(&upper, &inside)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, upper: &Path, inside: &Path, meta: &Metadata) -> Result<(), CaptureError> {
        let path = inside.as_os_str().as_bytes();
        if meta.file_type().is_char_device() && meta.rdev() == 0 {
            self.edit.remove(path);
            return Ok(());
        }
        if meta.is_dir() && is_opaque(upper) {
            self.edit.clear(path);
        }
        let node = self.node(upper, inside, meta)?;
        self.put(path, node)
    }

    fn put(&mut self, path: &[u8], node: Node) -> Result<(), CaptureError> {
        self.edit.put(path, node).map_err(|e| CaptureError {
            attempted: "keep",
            path: OsStr::from_bytes(path).into(),
            source: io::Error::other(e),
        })
    }

    fn node(&mut self, upper: &Path, inside: &Path, stat: &Metadata) -> Result<Node, CaptureError> {
        let meta = Meta {
            mode: (stat.mode() & 0o7777) as u16,
            uid: of_tree(stat.uid()),
            gid: of_tree(stat.gid()),
            mtime: stat.mtime(),
            xattrs: xattrs(upper).map_err(on("read the extended attributes of", upper))?,
        };
        let kind = stat.file_type();
        let (high, low) = (major(stat.rdev()), minor(stat.rdev()));
        Ok(if kind.is_dir() {
            Node::Directory(meta)
        } else if kind.is_symlink() {
            let target = fs::read_link(upper).map_err(on("read the link", upper))?;
            Node::Symlink(meta, target.as_os_str().as_bytes().to_vec())
        } else if kind.is_fifo() {
            Node::Fifo(meta)
        } else if kind.is_socket() {
            Node::Socket(meta)
        } else if kind.is_char_device() {
            Node::CharDevice(meta, high, low)
        } else if kind.is_block_device() {
            Node::BlockDevice(meta, high, low)
        } else {
            return self.file(inside, stat, meta);
        })
    }

    /// Lets the names in `shared` that nobody touched, but whose file was changed by another name, be names of that.
    fn other_names(&mut self, shared: &[Vec<u8>]) -> Result<(), CaptureError> {
        if self.names.is_empty() {
            return Ok(());
        }
        for name in shared {
            let is_untouched = self.edit.tree().get(name).is_some()
                && fs::symlink_metadata(below(&self.place.upper, name)).is_err();
            if !is_untouched {
                continue;
            }
            let merged = below(&self.place.root, name);
            let seen = fs::symlink_metadata(&merged).map_err(on("look at", &merged))?;
            if let Some(first) = self.names.get(&(seen.dev(), seen.ino())) {
                self.put(name, Node::Hardlink(first.clone()))?;
            }
        }
        Ok(())
    }

    fn file(&mut self, inside: &Path, stat: &Metadata, meta: Meta) -> Result<Node, CaptureError> {
        let path = inside.as_os_str().as_bytes();
        let merged = below(&self.place.root, path);
        let mut file = File::open(&merged).map_err(on("open", &merged))?;
        if stat.nlink() > 1 {
            let seen = file.metadata().map_err(on("look at", &merged))?;
            let first = self.names.entry((seen.dev(), seen.ino())).or_insert_with(|| path.to_vec());
            if first != path {
                return Ok(Node::Hardlink(first.clone()));
            }
        }
        // Asked before all of it is read.
        if !erofs::may_be_a_file_of(stat.len()) {
            let source = io::Error::other("it is larger than 8 TiB, and no file of an image can be");
            return Err(CaptureError { attempted: "keep", path: inside.into(), source });
        }
        let content = self.batch.keep(&mut file, stat.len()).map_err(on("keep the content of", &merged))?;
        Ok(Node::File(meta, content))
    }
}

/// `path` below `top`.
fn below(top: &Path, path: &[u8]) -> PathBuf {
    top.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}

/// The id inside the tree. Programs in the sandbox run with ids of the host, and whether a file system keeps those or
/// the ones inside depends on the kernel's id maps for the upper layer; the two ranges do not overlap.
fn of_tree(id: u32) -> u32 {
    match id.checked_sub(HOST_IDS.outside) {
        Some(inside) if inside < HOST_IDS.count => inside,
        _ => id,
    }
}

fn sorted_names(dir: &Path) -> Result<Vec<OsString>, CaptureError> {
    let entries = fs::read_dir(dir).map_err(on("list", dir))?;
    let mut names =
        entries.map(|e| e.map(|e| e.file_name())).collect::<Result<Vec<_>, _>>().map_err(on("list", dir))?;
    names.sort();
    Ok(names)
}

fn is_opaque(dir: &Path) -> bool {
    let mut value = [0; 1];
    matches!(lgetxattr(dir, OPAQUE, &mut value), Ok(1) if value == *b"y")
}

/// The xattrs of a path that are not overlayfs's own.
fn xattrs(path: &Path) -> io::Result<Xattrs> {
    let mut names = vec![0; 64 << 10];
    let length = match llistxattr(path, &mut names) {
        Ok(n) => n,
        Err(e) if io::Error::from(e).kind() == ErrorKind::Unsupported => 0,
        Err(e) => return Err(e.into()),
    };
    let mut all = Xattrs::new();
    for name in names[..length].split(|c| *c == 0).filter(|n| !n.is_empty()) {
        if name.starts_with(BOOKKEEPING) {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let n = lgetxattr(path, OsStr::from_bytes(name), &mut value)?;
        value.truncate(n);
        all.insert(name.to_vec(), if name == CAPABILITY { of_any_namespace(value) } else { value });
    }
    Ok(all)
}

/// File capabilities set inside a user namespace carry that namespace's root (version 3, 24 bytes). An image's mean
/// whatever root it is run with (version 2, 20 bytes).
fn of_any_namespace(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value[3] = 2;
        value.truncate(20);
    }
    value
}
