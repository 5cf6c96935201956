//! What the kernel shows of an image is the tree it was written from.

mod erofs_support;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use erofs_support::Bench;
use erofs_support::any_tree::{grow, seeds};
use kiln_model::{Content, Meta, Node, Tree, Xattrs};
use proptest::prelude::*;

fn meta(mode: u16) -> Meta {
    Meta { mode, uid: 0, gid: 0, mtime: 1_700_000_000, xattrs: Xattrs::new() }
}

fn with_xattrs(meta: Meta, xattrs: &[(&str, &[u8])]) -> Meta {
    let xattrs = xattrs.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.to_vec())).collect();
    Meta { xattrs, ..meta }
}

fn empty() -> Tree {
    let mut tree = Tree::new();
    tree.insert("/", Node::Directory(meta(0o755))).unwrap();
    tree
}

fn inline(bytes: &[u8]) -> Content {
    Content::Inline(bytes.to_vec())
}

#[test]
fn an_empty_root() {
    let written = Bench::new().assert_shown_as_it_is(&empty());
    assert_eq!((written.bytes.len(), written.entries, written.content_bytes), (4096, 1, 0));
}

#[test]
fn every_kind_of_node() {
    let bench = Bench::new();
    let mut tree = empty();
    let object = bench.object(&[7; 100_000]);
    let nodes = [
        ("/dir", Node::Directory(meta(0o1777))),
        ("/dir/object", Node::File(meta(0o4755), object)),
        ("/dir/small", Node::File(meta(0o600), inline(b"few bytes"))),
        ("/empty", Node::File(meta(0), inline(b""))),
        ("/empty-object", Node::File(meta(0o644), bench.object(b""))),
        ("/link", Node::Symlink(meta(0o777), b"dir/object".to_vec())),
        ("/null", Node::CharDevice(meta(0o666), 1, 3)),
        ("/big-number", Node::CharDevice(meta(0o666), 4095, 0xf_ffff)),
        ("/disk", Node::BlockDevice(meta(0o660), 254, 300)),
        ("/pipe", Node::Fifo(meta(0o644))),
        ("/socket", Node::Socket(meta(0o755))),
    ];
    for (path, node) in nodes {
        tree.insert(path, node).unwrap();
    }
    let written = bench.assert_shown_as_it_is(&tree);
    assert_eq!((written.entries, written.content_bytes, written.objects.len()), (12, 100_009, 2));
}

#[test]
fn hard_links_share_an_inode_wherever_their_names_sort() {
    let mut tree = empty();
    tree.insert("/dir", Node::Directory(meta(0o755))).unwrap();
    tree.insert("/dir/file", Node::File(meta(0o644), inline(b"shared"))).unwrap();
    tree.insert("/pipe", Node::Fifo(meta(0o600))).unwrap();
    for (path, target) in [("/a", "/dir/file"), ("/z", "/dir/file"), ("/dir/pipe", "/pipe")] {
        tree.insert(path, Node::Hardlink(target.into())).unwrap();
    }
    let written = Bench::new().assert_shown_as_it_is(&tree);
    assert_eq!((written.entries, written.content_bytes), (7, 6));
}

#[test]
fn xattrs_of_every_namespace_and_those_that_look_like_ours() {
    let acl = [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255,
        255, 255,
    ];
    let long = [b'v'; 65535];
    let several: [(&str, &[u8]); 7] = [
        ("security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("system.posix_acl_access", &acl),
        ("trusted.overlay.metacopy", b"not ours"),
        ("trusted.overlay.overlay.redirect", b"/etc/shadow"),
        ("trusted.plain", b""),
        ("user.long", &long),
        ("user.text", b"\0\xff"),
    ];
    let bench = Bench::new();
    let mut tree = empty();
    let object = bench.object(b"content");
    tree.insert("/inline", Node::File(with_xattrs(meta(0o644), &several), inline(b"x"))).unwrap();
    tree.insert("/object", Node::File(with_xattrs(meta(0o644), &several), object)).unwrap();
    let opaque: [(&str, &[u8]); 2] = [("trusted.overlay.opaque", b"y"), ("user.a", b"b")];
    tree.insert("/opaque", Node::Directory(with_xattrs(meta(0o755), &opaque))).unwrap();
    tree.insert("/opaque/seen", Node::Fifo(meta(0o644))).unwrap();
    bench.assert_shown_as_it_is(&tree);
}

#[test]
fn hundreds_of_xattrs_over_many_blocks() {
    let many = (0..900).map(|n| (format!("user.name-{n:04}").into_bytes(), vec![b'x'; n % 250])).collect();
    let mut tree = empty();
    tree.insert("/many", Node::File(Meta { xattrs: many, ..meta(0o644) }, inline(b"x"))).unwrap();
    Bench::new().assert_shown_as_it_is(&tree);
}

#[test]
fn directories_and_targets_at_every_length_around_a_block() {
    let mut tree = empty();
    for length in [1, 2000, 2047, 2048, 2049, 4000, 4094, 4095] {
        tree.insert(format!("/target-{length}"), Node::Symlink(meta(0o777), vec![b't'; length])).unwrap();
    }
    for length in [2047, 2048, 2049, 4095, 4096] {
        let content = Content::Inline(vec![b'c'; length]);
        tree.insert(format!("/content-{length}"), Node::File(meta(0o644), content)).unwrap();
    }
    for names in [14, 15, 16, 30, 31, 45] {
        tree.insert(format!("/dir-{names}"), Node::Directory(meta(0o755))).unwrap();
        for n in 0..names {
            let name = format!("{n:03}{}", "n".repeat(252));
            tree.insert(format!("/dir-{names}/{name}"), Node::Fifo(meta(0o644))).unwrap();
        }
    }
    Bench::new().assert_shown_as_it_is(&tree);
}

#[test]
fn a_directory_of_thousands() {
    let mut tree = empty();
    for n in 0..5000 {
        tree.insert(format!("/file-{n}"), Node::Symlink(meta(0o777), b"t".to_vec())).unwrap();
    }
    Bench::new().assert_shown_as_it_is(&tree);
}

/// What is stored of it is as sparse as it is, and the kernel reads the end of it through the image.
#[test]
fn a_sparse_file_of_a_gigabyte() {
    let bench = Bench::new();
    let mut tree = empty();
    let size = 1 << 30;
    let mut zeroes_and_an_end = std::io::repeat(0).take(size - 5).chain(&b"ended"[..]);
    let (digest, found) = bench.store.objects().put_reader(&mut zeroes_and_an_end).unwrap();
    assert_eq!(found, size);
    let stored = std::fs::metadata(bench.store.objects().path(&digest)).unwrap();
    assert!(stored.blocks() * 512 < 1 << 20, "{} bytes on disk", stored.blocks() * 512);
    tree.insert("/sparse", Node::File(meta(0o644), Content::Object { digest, size })).unwrap();
    let end = bench.shown_end(&tree, "/sparse", 10);
    assert_eq!(end, b"\0\0\0\0\0ended");
}

/// Nobody has hashed eight terabytes for this: the object's name is made up, and only its end is looked at.
#[test]
fn the_largest_file_an_image_can_hold() {
    let bench = Bench::new();
    let mut tree = empty();
    let size = 1 << 43;
    let digest = kiln_model::ObjectDigest(kiln_model::Sha256::of(b"made up"));
    let path = bench.store.objects().path(&digest);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    tree.insert("/huge", Node::File(meta(0o644), Content::Object { digest, size })).unwrap();
    assert_eq!(bench.shown_end(&tree, "/huge", 4), [0; 4]);
}

#[test]
fn attributes_beyond_the_short_form() {
    let mut tree = empty();
    let metas = BTreeMap::from([
        ("/uid", Meta { uid: 65_536, ..meta(0o644) }),
        ("/gid", Meta { gid: u32::MAX - 1, ..meta(0o644) }),
        ("/old", Meta { mtime: -1, ..meta(0o644) }),
        ("/new", Meta { mtime: 1 << 33, ..meta(0o644) }),
        ("/edge", Meta { uid: 65_535, gid: 65_535, ..meta(0o644) }),
    ]);
    for (path, meta) in metas {
        tree.insert(path, Node::File(meta, inline(b"x"))).unwrap();
    }
    Bench::new().assert_shown_as_it_is(&tree);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_tree(seeds in seeds()) {
        let bench = Bench::new();
        bench.assert_shown_as_it_is(&grow(&|bytes| bench.object(bytes), seeds));
    }
}
