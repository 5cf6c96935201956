//! Images are read back as the trees they were written from; what is no image of ours is an error, never a wrong tree.

mod erofs_support;

use erofs_support::any_tree::{grow, seeds};
use erofs_support::canonical;
use kiln_bake::erofs::{read, write};
use kiln_model::{Content, Meta, Node, Tree, Xattrs};
use kiln_store::Verity;
use proptest::prelude::*;

fn object(bytes: &[u8]) -> Content {
    Content::Object { digest: Verity::of(bytes), size: bytes.len() as u64 }
}

fn meta(mode: u16) -> Meta {
    Meta { mode, uid: 0, gid: 0, mtime: 1_700_000_000, xattrs: Xattrs::new() }
}

/// Some of everything, in few bytes.
fn sample() -> Tree {
    let mut tree = Tree::new();
    let xattrs: Xattrs =
        [(b"user.a".to_vec(), b"b".to_vec()), (b"trusted.overlay.opaque".to_vec(), b"y".to_vec())].into();
    for (path, node) in [
        ("/", Node::Directory(meta(0o755))),
        ("/a", Node::Hardlink(b"/dir/file".to_vec())),
        ("/dir", Node::Directory(Meta { xattrs: xattrs.clone(), ..meta(0o700) })),
        ("/dir/deep", Node::Directory(meta(0o755))),
        ("/dir/deep/null", Node::CharDevice(meta(0o666), 1, 3)),
        ("/dir/file", Node::File(Meta { uid: 70_000, mtime: 1, xattrs, ..meta(0o4755) }, object(&[7; 9000]))),
        ("/link", Node::Symlink(meta(0o777), b"dir/file".to_vec())),
        ("/pipe", Node::Fifo(meta(0o600))),
        ("/small", Node::File(meta(0o644), Content::Inline(b"few bytes".to_vec()))),
    ] {
        tree.insert(path, node).unwrap();
    }
    tree
}

#[test]
fn a_sample_is_read_back() {
    let written = write(&sample()).unwrap();
    assert_eq!(read(&written.bytes).unwrap(), canonical(&sample()));
    assert_eq!(written.format.features.iter().collect::<Vec<_>>(), ["inline", "overlay-xattrs"]);
}

#[test]
fn what_is_cut_off_is_noticed_wherever_it_is() {
    let bytes = write(&sample()).unwrap().bytes;
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
    assert!(read(&[&bytes[..], &[0; 4096]].concat()).is_err(), "a block too many");
}

/// A directory that holds itself would have no end.
#[test]
fn a_directory_in_itself_is_refused() {
    let mut tree = Tree::new();
    tree.insert("/", Node::Directory(meta(0o755))).unwrap();
    tree.insert("/dir", Node::Directory(meta(0o755))).unwrap();
    let mut bytes = write(&tree).unwrap().bytes;
    let root: [u8; 8] = 36u64.to_le_bytes();
    let inodes = 1152..bytes.len();
    // The third entry of the root, after `.` and `..`.
    let entries = inodes.clone().find(|at| bytes[*at..].starts_with(&root)).unwrap();
    bytes[entries + 24..entries + 32].copy_from_slice(&root);
    assert!(read(&bytes).unwrap_err().to_string().contains("a directory in it is elsewhere as well"));
}

/// It would be a path into another directory, or into none.
#[test]
fn a_name_with_a_slash_in_it_is_refused() {
    let mut bytes = write(&sample()).unwrap().bytes;
    let names = b"adirlink";
    let at =
        bytes.windows(names.len()).position(|w| w == names).expect("the names of the root, side by side");
    bytes[at + 2] = b'/';
    assert!(read(&bytes).unwrap_err().to_string().contains("its entries are damaged"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_read_back(seeds in seeds()) {
        let tree = grow(&object, seeds);
        prop_assert_eq!(read(&write(&tree).unwrap().bytes).unwrap(), canonical(&tree));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4000, ..ProptestConfig::default() })]

    /// Whatever is still read is a tree that can be written and read again.
    #[test]
    fn damage_is_an_error_or_another_tree(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut bytes = write(&sample()).unwrap().bytes;
        let used = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
        for (at, value) in changes {
            // Nearly all of the file is zeroes between its heads: half of the changes go where the inodes are.
            let at = at.index(2 * used);
            bytes[if at < used { at } else { 1024 + (at - used) % (used - 1024) }] = value;
        }
        if let Ok(tree) = read(&bytes) {
            prop_assert_eq!(read(&write(&tree).unwrap().bytes).unwrap(), tree);
        }
    }
}

/// A million files and back again, where there is time for it; else a tenth of that.
#[test]
fn up_to_a_million_files() {
    let directories = if std::env::var_os("KILN_LONG").is_some() { 1000 } else { 100 };
    let mut tree = Tree::new();
    tree.insert("/", Node::Directory(meta(0o755))).unwrap();
    for d in 0..directories {
        tree.insert(format!("/{d:03}"), Node::Directory(meta(0o755))).unwrap();
        for f in 0..1000 {
            let content = Content::Inline(format!("{d}-{f}").into_bytes());
            tree.insert(format!("/{d:03}/file-{f}"), Node::File(meta(0o644), content)).unwrap();
        }
    }
    let written = write(&tree).unwrap();
    assert_eq!(written.entries, 1001 * directories + 1);
    assert!(read(&written.bytes).unwrap() == tree);
}
