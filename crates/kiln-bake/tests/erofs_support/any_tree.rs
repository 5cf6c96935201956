//! Trees of every shape.

use kiln_model::{Content, Meta, Node, Tree, Xattrs};
use proptest::collection::vec;
use proptest::prelude::*;

/// What a tree can grow from.
pub(crate) fn seeds() -> impl Strategy<Value = Grown> {
    vec((any::<prop::sample::Index>(), name(), any_meta(), seed()), 0..60)
}

#[derive(Debug, Clone)]
pub(crate) enum Seed {
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

pub(crate) type Grown = Vec<(prop::sample::Index, Vec<u8>, Meta, Seed)>;

/// A tree in which each node hangs below one of the directories before it.
pub(crate) fn grow(object: &dyn Fn(&[u8]) -> Content, seeds: Grown) -> Tree {
    let mut tree = Tree::new();
    tree.insert("/", Node::Directory(Meta { mode: 0o755, uid: 0, gid: 0, mtime: 7, xattrs: Xattrs::new() }))
        .unwrap();
    let (mut directories, mut files) = (vec![Vec::new()], Vec::new());
    for (parent, name, meta, seed) in seeds {
        let path = [&parent.get(&directories)[..], b"/", &name].concat();
        let Some(node) = node(object, &files, meta, seed) else { continue };
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

fn node(object: &dyn Fn(&[u8]) -> Content, files: &[Vec<u8>], meta: Meta, seed: Seed) -> Option<Node> {
    // On anything but files and directories the kernel shows no user xattrs.
    let bare = Meta { xattrs: Xattrs::new(), ..meta.clone() };
    Some(match seed {
        Seed::Directory => Node::Directory(meta),
        Seed::Inline(bytes) => Node::File(meta, Content::Inline(bytes)),
        Seed::Object(byte, size) => Node::File(meta, object(&vec![byte; size])),
        Seed::Symlink(target) => Node::Symlink(Meta { mode: 0o777, ..bare }, target),
        Seed::Hardlink(_) if files.is_empty() => return None,
        Seed::Hardlink(which) => Node::Hardlink(which.get(files).clone()),
        Seed::Device(true, major, minor) => Node::CharDevice(bare, major, minor),
        Seed::Device(false, major, minor) => Node::BlockDevice(bare, major, minor),
        Seed::Fifo => Node::Fifo(bare),
    })
}
