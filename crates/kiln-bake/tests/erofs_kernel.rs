//! What the kernel shows of an image is the tree it was written from.

mod erofs_support;

use std::collections::BTreeMap;

use erofs_support::Bench;
use kiln_model::{Content, Meta, Node, Tree, Xattrs};
use proptest::collection::vec;
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

#[derive(Debug, Clone)]
enum Seed {
    Directory,
    Inline(Vec<u8>),
    Object(u8, usize),
    Symlink(Vec<u8>),
    Hardlink(prop::sample::Index),
    Device(bool, u32, u32),
    Fifo,
}

fn seed() -> impl Strategy<Value = Seed> {
    prop_oneof![
        3 => Just(Seed::Directory),
        2 => vec(any::<u8>(), 0..200).prop_map(Seed::Inline),
        2 => (any::<u8>(), 0..20_000usize).prop_map(|(b, n)| Seed::Object(b, n)),
        2 => vec(1u8.., 1..4096).prop_map(Seed::Symlink),
        1 => any::<prop::sample::Index>().prop_map(Seed::Hardlink),
        1 => (any::<bool>(), 1..4096u32, 0..1u32 << 20).prop_map(|(c, a, b)| Seed::Device(c, a, b)),
        1 => Just(Seed::Fifo),
    ]
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let id = prop_oneof![Just(0u32), 0..70_000u32];
    let name = vec(1u8.., 1..40).prop_map(|n| [b"user.", &n[..]].concat());
    let xattrs = prop::collection::btree_map(name, vec(any::<u8>(), 0..300), 0..4);
    let mtime = prop_oneof![Just(1_700_000_000i64), 0..1i64 << 33];
    (0..=0o7777u16, id.clone(), id, mtime, xattrs).prop_map(|(mode, uid, gid, mtime, xattrs)| Meta {
        mode,
        uid,
        gid,
        mtime,
        xattrs,
    })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = (1u8..).prop_filter("no slash", |b| *b != b'/');
    let length = prop_oneof![4 => 1..12usize, 1 => 200..256usize];
    length.prop_flat_map(move |n| vec(byte.clone(), n)).prop_filter("a name", |n| n != b"." && n != b"..")
}

type Grown = Vec<(prop::sample::Index, Vec<u8>, Meta, Seed)>;

/// A tree in which each node hangs below one of the directories before it.
fn grow(bench: &Bench, seeds: Grown) -> Tree {
    let mut tree = empty();
    let (mut directories, mut files) = (vec![Vec::new()], Vec::new());
    for (parent, name, meta, seed) in seeds {
        let path = [&parent.get(&directories)[..], b"/", &name].concat();
        let Some(node) = node(bench, &files, meta, seed) else { continue };
        if path.len() > Tree::MAX_PATH || tree.get(&path).is_some() {
            continue;
        }
        match node {
            Node::Directory(_) => directories.push(path.clone()),
            Node::Hardlink(_) => {}
            _ => files.push(path.clone()),
        }
        tree.insert(path, node).unwrap();
    }
    tree
}

fn node(bench: &Bench, files: &[Vec<u8>], meta: Meta, seed: Seed) -> Option<Node> {
    // On anything but files and directories the kernel shows no user xattrs.
    let bare = Meta { xattrs: Xattrs::new(), ..meta.clone() };
    Some(match seed {
        Seed::Directory => Node::Directory(meta),
        Seed::Inline(bytes) => Node::File(meta, Content::Inline(bytes)),
        Seed::Object(byte, size) => Node::File(meta, bench.object(&vec![byte; size])),
        Seed::Symlink(target) => Node::Symlink(Meta { mode: 0o777, ..bare }, target),
        Seed::Hardlink(_) if files.is_empty() => return None,
        Seed::Hardlink(which) => Node::Hardlink(which.get(files).clone()),
        Seed::Device(true, major, minor) => Node::CharDevice(bare, major, minor),
        Seed::Device(false, major, minor) => Node::BlockDevice(bare, major, minor),
        Seed::Fifo => Node::Fifo(bare),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_tree(seeds in vec((any::<prop::sample::Index>(), name(), any_meta(), seed()), 0..60)) {
        let bench = Bench::new();
        bench.assert_shown_as_it_is(&grow(&bench, seeds));
    }
}
