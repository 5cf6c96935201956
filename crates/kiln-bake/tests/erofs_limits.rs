//! Trees an image cannot hold are errors that name the path, and the same tree gives the same bytes.

use kiln_bake::erofs::write;
use kiln_model::{Content, Meta, Node, ObjectDigest, Sha256, Tree, Xattrs};
use serde::Deserialize;
use serde::de::value::MapDeserializer;
use serde_json::json;

fn meta() -> Meta {
    Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() }
}

fn tree(nodes: &[(&str, Node)]) -> Tree {
    let mut tree = Tree::new();
    tree.insert("/", Node::Directory(meta())).unwrap();
    for (path, node) in nodes {
        tree.insert(*path, node.clone()).unwrap();
    }
    tree
}

fn refused(tree: &Tree) -> String {
    write(tree).unwrap_err().to_string()
}

fn file(meta: Meta) -> Node {
    Node::File(meta, Content::Inline(Vec::new()))
}

fn xattr(name: &[u8], value: Vec<u8>) -> Node {
    file(Meta { xattrs: [(name.to_vec(), value)].into(), ..meta() })
}

#[test]
fn trees_without_structure() {
    assert_eq!(refused(&Tree::new()), "/: the tree has no root");
    assert_eq!(refused(&tree(&[("/", file(meta()))])), "/: the root is not a directory");
    assert_eq!(refused(&tree(&[("/a/b", file(meta()))])), "/a/b: its parent directory is not in the tree");
    let below_a_file = tree(&[("/a", file(meta())), ("/a/b", file(meta()))]);
    assert_eq!(refused(&below_a_file), "/a/b: its parent is not a directory");
    let below_a_link = tree(&[("/a", Node::Hardlink(b"/".to_vec())), ("/a/b", file(meta()))]);
    assert_eq!(refused(&below_a_link), "/a/b: its parent directory is not in the tree");
}

#[test]
fn hard_links_to_what_is_no_file() {
    let to = |target: &str| Node::Hardlink(target.into());
    let nowhere = "/l: it is a hard link to a path that has no file of its own";
    assert_eq!(refused(&tree(&[("/l", to("/absent"))])), nowhere);
    assert_eq!(refused(&tree(&[("/l", to("/l"))])), nowhere);
    assert_eq!(refused(&tree(&[("/f", file(meta())), ("/k", to("/f")), ("/l", to("/k"))])), nowhere);
    assert_eq!(refused(&tree(&[("/l", to("/"))])), "/l: it is a hard link to a directory");
}

#[test]
fn values_outside_the_kernels_limits() {
    let long = |n: usize| vec![b'x'; n];
    let object = Content::Object { digest: ObjectDigest(Sha256::of(b"")), size: u64::MAX };
    let cases = [
        (file(Meta { mode: 0o10000, ..meta() }), "the mode has bits beyond 7777"),
        (Node::Symlink(meta(), vec![]), "the symbolic link has no target"),
        (Node::Symlink(meta(), long(4096)), "the target is longer than 4095 bytes"),
        (Node::Symlink(meta(), b"a\0b".to_vec()), "the target has a NUL byte"),
        (
            Node::File(meta(), Content::Inline(long(4097))),
            "a content of more than 4096 bytes must be an object",
        ),
        (Node::File(meta(), object), "the file is larger than 8 TiB"),
        (
            Node::CharDevice(meta(), 0, 0),
            "a character device 0:0 means `deleted` to overlayfs, so an image cannot hold one",
        ),
        (
            Node::BlockDevice(meta(), 4096, 0),
            "the device number does not fit: 12 bits for the major, 20 for the minor",
        ),
        (
            Node::CharDevice(meta(), 1, 1 << 20),
            "the device number does not fit: 12 bits for the major, 20 for the minor",
        ),
    ];
    for (node, problem) in cases {
        assert_eq!(refused(&tree(&[("/it", node)])), format!("/it: {problem}"));
    }
}

#[test]
fn xattrs_outside_the_kernels_limits() {
    let long = |prefix: &str, n: usize| [prefix.as_bytes(), &vec![b'x'; n - prefix.len()]].concat();
    let names = "the names of its xattrs are too long: 255 bytes each, 64 KiB in all";
    let cases = [
        (xattr(b"plain", vec![]), "an xattr is not in user., trusted., security. or one of the POSIX ACLs"),
        (
            xattr(b"system.other", vec![]),
            "an xattr is not in user., trusted., security. or one of the POSIX ACLs",
        ),
        (xattr(b"user.", vec![]), "an xattr has a namespace and no name"),
        (xattr(b"user.a\0b", vec![]), "the name of an xattr has a NUL byte"),
        (xattr(&long("user.", 256), vec![]), names),
        (xattr(&long("trusted.overlay.", 248), vec![]), names),
        (xattr(b"user.v", vec![0; 65_536]), "the value of an xattr is longer than 65535 bytes"),
    ];
    for (node, problem) in cases {
        assert_eq!(refused(&tree(&[("/it", node)])), format!("/it: {problem}"));
    }
    assert!(write(&tree(&[("/it", xattr(&long("user.", 255), vec![0; 65_535]))])).is_ok());
    let many = |count: usize, name: usize, value: usize| {
        let one = |n| ([format!("user.{n:05}").as_bytes(), &vec![b'x'; name - 10]].concat(), vec![0; value]);
        tree(&[("/it", file(Meta { xattrs: (0..count).map(one).collect(), ..meta() }))])
    };
    assert_eq!(refused(&many(5, 10, 60_000)), "/it: its xattrs are more than 256 KiB");
    assert_eq!(refused(&many(300, 250, 0)), format!("/it: {names}"));
}

/// [`Tree::insert`] refuses bad paths; a tree that was read from somewhere has not been inserted into.
#[test]
fn paths_that_never_were_inserted() {
    for (path, problem) in [
        ("/..", "the path has a `.` or `..` component"),
        ("/.", "the path has a `.` or `..` component"),
        ("/a/", "the path has an empty component"),
        ("", "the path is not absolute"),
        ("a", "the path is not absolute"),
        ("/a\0b", "the path has a NUL byte"),
        (&format!("/{}", "n".repeat(256)), "a name is longer than 255 bytes"),
        (&"/a".repeat(3000), "the path is longer than 4095 bytes"),
    ] {
        let root = ("/", Node::Directory(meta()));
        let forged = forged(vec![root, ("/a", Node::Directory(meta())), (path, file(meta()))]);
        assert_eq!(refused(&forged), format!("{path}: {problem}"));
    }
}

/// A tree of any paths at all, by way of a format that checks none.
fn forged(nodes: Vec<(&str, Node)>) -> Tree {
    let pair = |(path, node): (&str, Node)| (json!(path.as_bytes()), serde_json::to_value(node).unwrap());
    let nodes = MapDeserializer::<_, serde_json::Error>::new(nodes.into_iter().map(pair));
    Tree::deserialize(MapDeserializer::new(std::iter::once(("nodes", nodes)))).unwrap()
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let nodes = [
        ("/a", Node::Directory(Meta { mtime: 5, ..meta() })),
        ("/a/f", file(Meta { mtime: 5, ..meta() })),
        ("/b", file(meta())),
        ("/c", Node::Hardlink(b"/b".to_vec())),
    ];
    let there = tree(&nodes);
    let mut back = tree(&[]);
    for (path, node) in nodes.iter().rev() {
        back.insert(*path, node.clone()).unwrap();
    }
    let written = write(&there).unwrap();
    assert_eq!(written, write(&back).unwrap());
    assert_eq!(&written.bytes[..12], b"\x9a\x62\x78\xd0\x01\0\0\0\0\0\0\0", "the header of composefs");
}
