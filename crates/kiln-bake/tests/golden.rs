//! The bytes of images do not change by accident.
//!
//! If one of these digests changes, every image of every user gets a new digest: that is a new version of the format
//! (`ImageFormat::VERSION`, `docs/design/image-format.md`) or of the recipe (`RECIPE` in `bake.rs`), and a line in the
//! changelog.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use common::{baked, file, locked, order, write};
use kiln_bake::Base;
use kiln_bake::erofs;
use kiln_model::{ByteSize, Content, ImageDigest, ImageFormat, Meta, Node, Tree, Volatile, Xattrs};
use kiln_store::{Store, Verity};

fn digest(tree: &Tree) -> String {
    ImageDigest(Verity::of(&erofs::write(tree).unwrap().bytes).0).to_string()
}

fn meta(mode: u16, mtime: i64) -> Meta {
    Meta { mode, uid: 0, gid: 0, mtime, xattrs: Xattrs::new() }
}

/// Every kind of node, both forms of inodes, tails and blocks, directories of several blocks.
fn everything() -> Tree {
    let mut tree = Tree::new();
    let object = |bytes: &[u8]| Content::Object { digest: Verity::of(bytes), size: bytes.len() as u64 };
    let xattrs: Xattrs = [
        (b"security.capability".to_vec(), vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
        (b"user.name".to_vec(), vec![0xff; 300]),
    ]
    .into();
    for (path, node) in [
        (&b"/"[..], Node::Directory(meta(0o755, 7))),
        (b"/first-name", Node::Hardlink(b"/object".to_vec())),
        (b"/not \xff utf-8", Node::Fifo(meta(0o600, 7))),
        (b"/object", Node::File(Meta { uid: 70_000, xattrs, ..meta(0o4755, 7) }, object(&[1; 5000]))),
        (b"/old", Node::File(meta(0o644, -1), Content::Inline(vec![b'x'; 3000]))),
        (b"/null", Node::CharDevice(meta(0o666, 7), 1, 3)),
        (b"/disk", Node::BlockDevice(meta(0o660, 7), 254, 300)),
        (b"/socket", Node::Socket(meta(0o755, 7))),
        (b"/link", Node::Symlink(meta(0o777, 7), b"object".to_vec())),
        (b"/names", Node::Directory(meta(0o1777, 8))),
    ] {
        tree.insert(path, node).unwrap();
    }
    for n in 0..100 {
        let name = format!("/names/{n:03}{}", "n".repeat(252));
        tree.insert(name, Node::File(meta(0o644, 7), Content::Inline(Vec::new()))).unwrap();
    }
    tree
}

#[test]
fn golden_trees() {
    assert_eq!(ImageFormat::VERSION, 1);
    let mut empty = Tree::new();
    empty.insert("/", Node::Directory(meta(0o755, 0))).unwrap();
    assert_eq!(digest(&empty), "sha256:5ef12262442f1fdb759df7c665ae52b513fe3b2ac1995755a568d04eddd0e82d");
    assert_eq!(
        digest(&everything()),
        "sha256:8511821a27b64203a132be7754ae57cc3602d79098c098fc8c9dc49f7f632a59"
    );
}

#[test]
fn a_golden_image_from_scratch() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    write(project.path(), "site/index.html", "<h1>hello</h1>\n");
    write(project.path(), "site/long.html", &"a long page ".repeat(1000));
    write(project.path(), "server", "#!/nothing\n");
    fs::set_permissions(project.path().join("server"), Permissions::from_mode(0o755)).unwrap();
    let mut order = order(project.path(), &[]);
    order.from = Base::Scratch;
    order.files = vec![file("site/", "/srv/www"), file("server", "/usr/bin/")];
    order.files[0].owner = Some("33:33".into());
    order.run = vec!["/usr/bin/server".into(), "--port".into(), "8080".into()];
    order.user = Some("33".into());
    order.env = [("GREETING".to_owned(), "hello".to_owned())].into();
    order.volatile = vec![Volatile::new("/var/cache/server", ByteSize(1 << 20))];
    let record = baked(&order, &locked(&order, &store), &store).record;
    assert_eq!(
        record.digest.to_string(),
        "sha256:6970e5a6fb9523806024aec648faa0b4a62fdf38863afd10c428ee6cbc35c3f6"
    );
}
