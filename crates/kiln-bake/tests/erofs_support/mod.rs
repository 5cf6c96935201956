//! An image on disk, and the comparison of what the kernel shows of it with the tree it was made from.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod any_tree;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_bake::erofs::{Written, read, write};
use kiln_model::{Content, ImageDigest, ImageHandle, Meta, Node, Tree, Xattrs};
use kiln_mount::composefs;
use kiln_store::{Store, Verity};

/// A store in a directory of its own.
pub(crate) struct Bench {
    dir: PathBuf,
    pub(crate) store: Store,
}

impl Bench {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("erofs-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let store = Store::open(&dir.join("state")).unwrap();
        Self { dir, store }
    }

    /// A file's content as an object of the store.
    pub(crate) fn object(&self, bytes: &[u8]) -> Content {
        let (digest, size) = self.store.objects().put_bytes(bytes).unwrap();
        Content::Object { digest, size }
    }

    /// Writes the image of `tree`, has it checked, mounts it, and compares.
    pub(crate) fn assert_shown_as_it_is(&self, tree: &Tree) -> Written {
        let (written, shown) = self.shown(tree);
        shown.assert_is(tree);
        written
    }

    /// The last `length` bytes of a file of `tree`, read through its image.
    pub(crate) fn shown_end(&self, tree: &Tree, path: &str, length: i64) -> Vec<u8> {
        let (_, shown) = self.shown(tree);
        let mut file = fs::File::open(shown.at(path.as_bytes())).unwrap();
        file.seek(SeekFrom::End(-length)).unwrap();
        let mut end = Vec::new();
        file.read_to_end(&mut end).unwrap();
        end
    }

    fn shown(&self, tree: &Tree) -> (Written, Shown<'_>) {
        let written = write(tree).unwrap();
        assert_eq!(read(&written.bytes).unwrap(), canonical(tree), "read back");
        let metadata = self.dir.join("image.erofs");
        fs::write(&metadata, &written.bytes).unwrap();
        assert_clean(&metadata);
        let digest = ImageDigest(Verity::of(&written.bytes).0);
        let image = ImageHandle { digest, metadata, objects: self.store.objects_dir().to_owned() };
        let mount = composefs(&image, None).expect("these tests need root");
        (written, Shown { mount, store: &self.store })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The same tree with the first name of each file as the one the others link to.
pub(crate) fn canonical(tree: &Tree) -> Tree {
    let mut first: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    for (path, node) in tree.iter() {
        first.entry(named(path, node)).or_insert(path);
    }
    let mut canonical = Tree::new();
    for (path, node) in tree.iter() {
        let named = named(path, node);
        let node = if first[named] == path {
            tree.get(named).unwrap().clone()
        } else {
            Node::Hardlink(first[named].to_vec())
        };
        canonical.insert(path, node).unwrap();
    }
    canonical
}

/// The path of the file that is at `path`.
fn named<'t>(path: &'t [u8], node: &'t Node) -> &'t [u8] {
    match node {
        Node::Hardlink(target) => target,
        _ => path,
    }
}

/// `fsck.erofs` has nothing to say; its time is limited because some versions do not end on bad images.
fn assert_clean(image: &Path) {
    let out = Command::new("timeout").arg("60").arg("fsck.erofs").arg(image).output().unwrap();
    assert_ne!(out.status.code(), Some(127), "these tests need fsck.erofs (package erofs-utils)");
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "fsck.erofs {}: {said}", out.status);
}

struct Shown<'a> {
    mount: OwnedFd,
    store: &'a Store,
}

impl Shown<'_> {
    fn assert_is(&self, tree: &Tree) {
        let expected: Vec<_> = tree.iter().map(|(p, _)| p.to_vec()).collect();
        assert_eq!(self.paths(), expected);
        for (path, node) in tree.iter() {
            self.assert_path(tree, path, node);
        }
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        let mut at = format!("/proc/self/fd/{}", self.mount.as_raw_fd()).into_bytes();
        at.extend(path);
        PathBuf::from(std::ffi::OsString::from_vec(at))
    }

    fn paths(&self) -> Vec<Vec<u8>> {
        let mut found = vec![b"/".to_vec()];
        let mut todo = vec![Vec::new()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(self.at(&[&dir[..], b"/"].concat())).unwrap() {
                let entry = entry.unwrap();
                let path = [&dir[..], b"/", entry.file_name().as_bytes()].concat();
                if entry.file_type().unwrap().is_dir() {
                    todo.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        found
    }

    fn assert_path(&self, tree: &Tree, path: &[u8], node: &Node) {
        let original = match node {
            Node::Hardlink(target) => target.as_slice(),
            _ => path,
        };
        let node = tree.get(original).unwrap();
        let at = self.at(path);
        let shown = fs::symlink_metadata(&at).unwrap();
        let name = String::from_utf8_lossy(path);
        self.assert_meta(&name, node.meta().unwrap(), &shown, &at);
        assert_eq!(shown.nlink(), links(tree, original, node), "links of {name}");
        self.assert_kind(&name, node, &shown, &at);
    }

    fn assert_meta(&self, name: &str, meta: &Meta, shown: &fs::Metadata, at: &Path) {
        let expected = (u32::from(meta.mode), meta.uid, meta.gid, meta.mtime, 0);
        let found = (shown.mode() & 0o7777, shown.uid(), shown.gid(), shown.mtime(), shown.mtime_nsec());
        assert_eq!(found, expected, "attributes of {name}");
        assert_eq!(xattrs(at), meta.xattrs, "xattrs of {name}");
    }

    fn assert_kind(&self, name: &str, node: &Node, shown: &fs::Metadata, at: &Path) {
        let kind = shown.file_type();
        match node {
            Node::Directory(_) => assert!(kind.is_dir(), "{name}"),
            Node::File(_, content) => {
                assert!(kind.is_file(), "{name}");
                assert_eq!(fs::read(at).unwrap(), self.bytes(content), "content of {name}");
                assert_eq!(shown.len(), self.bytes(content).len() as u64, "size of {name}");
            }
            Node::Symlink(_, target) => {
                assert_eq!(fs::read_link(at).unwrap().as_os_str().as_bytes(), target, "target of {name}");
            }
            Node::CharDevice(_, major, minor) => {
                assert!(kind.is_char_device(), "{name}");
                assert_eq!(shown.rdev(), rustix::fs::makedev(*major, *minor), "device of {name}");
            }
            Node::BlockDevice(_, major, minor) => {
                assert!(kind.is_block_device(), "{name}");
                assert_eq!(shown.rdev(), rustix::fs::makedev(*major, *minor), "device of {name}");
            }
            Node::Fifo(_) => assert!(kind.is_fifo(), "{name}"),
            Node::Socket(_) => assert!(kind.is_socket(), "{name}"),
            Node::Hardlink(_) => unreachable!("resolved by the caller"),
        }
    }

    fn bytes(&self, content: &Content) -> Vec<u8> {
        match content {
            Content::Inline(bytes) => bytes.clone(),
            Content::Object { digest, .. } => fs::read(self.store.objects().path(digest)).unwrap(),
        }
    }
}

fn links(tree: &Tree, path: &[u8], node: &Node) -> u64 {
    let others = tree.iter().filter(|(p, n)| match n {
        Node::Hardlink(target) => target == path,
        Node::Directory(_) => node.is_directory() && *p != b"/" && parent(p) == path,
        _ => false,
    });
    others.count() as u64 + if node.is_directory() { 2 } else { 1 }
}

fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|c| *c == b'/') {
        Some(0) | None => b"/",
        Some(n) => &path[..n],
    }
}

fn xattrs(at: &Path) -> Xattrs {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(at, &mut names[..]).unwrap();
    let names = names[..length].split(|b| *b == 0).filter(|n| !n.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(at, name, &mut value[..]).unwrap();
        value.truncate(length);
        (name.to_vec(), value)
    };
    names.map(value).collect()
}
