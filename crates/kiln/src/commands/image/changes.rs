//! What differs between two trees.

use kiln_model::{Node, Tree};

/// A path that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change<'a> {
    Added(&'a [u8], &'a Node),
    Removed(&'a [u8], &'a Node),
    Changed(&'a [u8], &'a Node, &'a Node),
}

/// All differences, in order of paths. Times of directories are none: they change with whatever is in them.
pub(super) fn between<'a>(a: &'a Tree, b: &'a Tree) -> Vec<Change<'a>> {
    let mut changes: Vec<(&[u8], Change<'_>)> = Vec::new();
    for (path, old) in a.iter() {
        match b.get(path) {
            None => changes.push((path, Change::Removed(path, old))),
            Some(new) if !same(old, new) => changes.push((path, Change::Changed(path, old, new))),
            Some(_) => {}
        }
    }
    let added = b.iter().filter(|(path, _)| a.get(path).is_none());
    changes.extend(added.map(|(path, node)| (path, Change::Added(path, node))));
    changes.sort_by_key(|(path, _)| *path);
    changes.into_iter().map(|(_, change)| change).collect()
}

fn same(old: &Node, new: &Node) -> bool {
    match (old, new) {
        (Node::Directory(a), Node::Directory(b)) => {
            (a.mode, a.uid, a.gid, &a.xattrs) == (b.mode, b.uid, b.gid, &b.xattrs)
        }
        _ => old == new,
    }
}

/// In what they differ, in words.
pub(super) fn in_what(old: &Node, new: &Node) -> Vec<&'static str> {
    let mut what = Vec::new();
    if std::mem::discriminant(old) != std::mem::discriminant(new) {
        what.push("kind");
    }
    match (old, new) {
        (Node::File(_, a), Node::File(_, b)) if a != b => what.push("content"),
        (Node::Symlink(_, a), Node::Symlink(_, b)) | (Node::Hardlink(a), Node::Hardlink(b)) if a != b => {
            what.push("target")
        }
        (Node::CharDevice(_, a, b), Node::CharDevice(_, c, d))
        | (Node::BlockDevice(_, a, b), Node::BlockDevice(_, c, d))
            if (a, b) != (c, d) =>
        {
            what.push("device");
        }
        _ => {}
    }
    if let (Some(a), Some(b)) = (old.meta(), new.meta()) {
        let differs = [
            ("mode", a.mode != b.mode),
            ("owner", (a.uid, a.gid) != (b.uid, b.gid)),
            ("xattrs", a.xattrs != b.xattrs),
            ("time", a.mtime != b.mtime),
        ];
        what.extend(differs.into_iter().filter(|(_, differs)| *differs).map(|(word, _)| word));
    }
    what
}

#[cfg(test)]
mod tests {
    use kiln_model::{Content, Meta, Xattrs};

    use super::*;

    fn meta(mode: u16, mtime: i64) -> Meta {
        Meta { mode, uid: 0, gid: 0, mtime, xattrs: Xattrs::new() }
    }

    fn file(text: &str, mode: u16) -> Node {
        Node::File(meta(mode, 0), Content::Inline(text.into()))
    }

    #[test]
    fn each_difference_is_told_once() {
        let tree = |nodes: &[(&str, Node)]| {
            let mut tree = Tree::new();
            nodes.iter().for_each(|(path, node)| drop(tree.insert(*path, node.clone()).unwrap()));
            tree
        };
        let a = tree(&[
            ("/", Node::Directory(meta(0o755, 1))),
            ("/a", file("x", 0o644)),
            ("/b", file("x", 0o644)),
        ]);
        let b = tree(&[
            ("/", Node::Directory(meta(0o755, 2))),
            ("/a", file("y", 0o600)),
            ("/c", file("x", 0o644)),
        ]);
        let changes = between(&a, &b);
        assert!(
            matches!(changes[0], Change::Changed(b"/a", old, new) if in_what(old, new) == ["content", "mode"])
        );
        assert!(matches!(changes[1..], [Change::Removed(b"/b", _), Change::Added(b"/c", _)]));
        assert_eq!(between(&a, &a), []);
    }
}
