//! The C tools of composefs read our images as we wrote them. They come from Debian's unstable suite, which changes every
//! day, so that this is part of the long tests; the kernel, fsck.erofs and our own reader judge images every time.

mod common;

use common::{baked, file, locked, order, printed};
use kiln_bake::{Base, erofs};
use kiln_model::{Content, Meta, Node, Tree, Xattrs};
use kiln_store::{Store, Verity};

fn meta(mode: u16, uid: u32, mtime: i64) -> Meta {
    Meta { mode, uid, gid: 7, mtime, xattrs: Xattrs::new() }
}

/// Files of both forms, in directories of several blocks.
fn sample() -> Tree {
    let mut tree = Tree::new();
    tree.insert("/", Node::Directory(meta(0o755, 0, 1))).unwrap();
    tree.insert("/files", Node::Directory(meta(0o1777, 3, 2))).unwrap();
    for n in 0..300_u32 {
        let bytes = vec![n as u8; 100 + n as usize * 50];
        let content = Content::Object { digest: Verity::of(&bytes), size: bytes.len() as u64 };
        let node = Node::File(meta(0o644, n * 1000, i64::from(n % 3)), content);
        tree.insert(format!("/files/{n:03}{}", "-".repeat(n as usize % 200)), node).unwrap();
    }
    tree.insert("/another-name", Node::Hardlink(b"/files/000".to_vec())).unwrap();
    tree.insert("/link", Node::Symlink(meta(0o777, 0, 1), b"files/000".to_vec())).unwrap();
    tree
}

#[test]
fn the_tools_of_composefs_read_what_we_write() {
    if std::env::var_os("KILN_LONG").is_none() {
        return;
    }
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let tree = sample();
    let written = erofs::write(&tree).unwrap();
    std::fs::write(project.path().join("sample.erofs"), &written.bytes).unwrap();
    let mut order = order(project.path(), &["composefs"]);
    order.from = Base::Debian { suite: "sid".into() };
    order.files = vec![file("sample.erofs", "/sample.erofs")];
    let image = store.handle(&baked(&order, &locked(&order, &store), &store).record.digest).unwrap();
    let info = |what: &str| printed(&image, &["/usr/bin/composefs-info", what, "/sample.erofs"]);

    assert_eq!(info("measure-file").trim(), Verity::of(&written.bytes).hex());
    let mut objects: Vec<String> = info("objects").lines().map(|l| l.replace('/', "")).collect();
    objects.sort();
    assert_eq!(objects, written.objects.iter().map(|o| o.hex()).collect::<Vec<_>>());
    let dump = info("dump");
    assert_eq!(dump.lines().count(), tree.len());
    for (path, node) in tree.iter() {
        let Node::File(meta, Content::Object { digest, size }) = node else { continue };
        let path = std::str::from_utf8(path).unwrap();
        let links = if path == "/files/000" { 2 } else { 1 };
        let attributes =
            format!("{size} 100{:03o} {links} {} {} 0 {}.0", meta.mode, meta.uid, meta.gid, meta.mtime);
        let line = dump
            .lines()
            .find(|l| l.split(' ').next() == Some(path))
            .unwrap_or_else(|| panic!("{path}: {dump}"));
        // The first of several names may be the one that is linked to.
        if links == 1 {
            assert!(line.starts_with(&format!("{path} {attributes} ")), "{line}, not {attributes}");
            assert!(line.ends_with(&digest.hex()), "{line}");
        }
    }
}
