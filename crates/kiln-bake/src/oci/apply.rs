//! Layers, one over the other, as a union file system shows them.
//!
//! First what a layer takes away, which concerns the layers below alone; then what it puts there, what is below links of
//! its own after those; hard links last, because what they name may be in the same layer or below. Paths lead through the links of what is there, and
//! never out: `..` at the root is the root. Not through a link that the layer itself replaces: what it takes away below
//! that would be taken away elsewhere, from where the link led.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{Node, Tree, TreeError};

use super::layer::Layer;
use crate::tree_edit::{TreeEdit, resolve};

/// Directories that a layer goes through without listing them.
const IMPLIED: i64 = 0;

/// Lays `layer` over what is there.
pub(crate) fn apply(edit: &mut TreeEdit, layer: &Layer) -> Result<(), TreeError> {
    take_away(edit, layer)?;
    let is_link = |node: &Node| matches!(node, Node::Hardlink(_));
    let (links, others): (Vec<_>, Vec<_>) = in_order(&layer.tree).into_iter().partition(|(_, n)| is_link(n));
    others.into_iter().try_for_each(|(path, node)| {
        let place = edit.resolve_parents(path)?;
        edit.ensure_parent(&place, IMPLIED)?;
        edit.put(&place, node.clone())
    })?;
    links.into_iter().try_for_each(|(path, node)| link(edit, path, node))
}

/// What a layer has, a link of its own before what is below that and what that leads to: a directory that would be made
/// where another of its links has yet to be would go with all in it when that comes.
fn in_order(tree: &Tree) -> Vec<(&[u8], &Node)> {
    let is_symlink = |path: &[u8]| matches!(tree.get(path), Some(Node::Symlink(..)));
    let links_above = |path: &[u8]| {
        let ends = (1..path.len()).filter(|at| path[*at] == b'/');
        ends.filter(|end| is_symlink(&path[..*end])).count()
    };
    let mut all: Vec<_> = tree.iter().collect();
    if all.iter().any(|(_, node)| matches!(node, Node::Symlink(..))) {
        all.sort_by_cached_key(|(path, _)| links_above(path));
    }
    all
}

fn take_away(edit: &mut TreeEdit, layer: &Layer) -> Result<(), TreeError> {
    // Directories before what is in them: a link that is gone leads nowhere.
    let gone: BTreeSet<&[u8]> = layer.gone.iter().map(Vec::as_slice).collect();
    for path in gone {
        let place = edit.resolve_parents(path)?;
        if place != b"/" && !is_replaced(edit, layer, parent(path)) {
            edit.remove(&place);
        }
    }
    for dir in &layer.opaque {
        if !is_replaced(edit, layer, dir) {
            let place = resolve(edit.tree(), dir, true)?;
            edit.clear(&place);
        }
    }
    Ok(())
}

fn parent(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|c| *c == b'/').unwrap_or(0)]
}

/// Whether the layer has something of its own, and no link again, where the layers below have no directory at `dir` or
/// above it: then there is nothing of theirs in it.
fn is_replaced(edit: &TreeEdit, layer: &Layer, dir: &[u8]) -> bool {
    let ends = (1..dir.len()).filter(|i| dir[*i] == b'/').chain([dir.len()]);
    ends.map(|end| &dir[..end]).any(|path| {
        let own = layer.tree.get(path).is_some_and(|node| !matches!(node, Node::Symlink(..)));
        let below = || edit.tree().get(&edit.resolve_parents(path).ok()?);
        own && below().is_some_and(|below| !below.is_directory())
    })
}

fn link(edit: &mut TreeEdit, path: &[u8], node: &Node) -> Result<(), TreeError> {
    let Node::Hardlink(target) = node else { return Ok(()) };
    let place = edit.resolve_parents(path)?;
    let first = edit.resolve_parents(target)?;
    let first = match edit.tree().get(&first) {
        Some(Node::Hardlink(first)) => first.clone(),
        Some(node) if !node.is_directory() => first,
        _ => return Err(to_nothing(path, target)),
    };
    if place == first {
        return Ok(());
    }
    edit.ensure_parent(&place, IMPLIED)?;
    edit.put(&place, Node::Hardlink(first.clone()))?;
    // What made room for it may have had the file below it.
    if edit.tree().get(&first).is_some() { Ok(()) } else { Err(to_nothing(path, target)) }
}

fn to_nothing(path: &[u8], target: &[u8]) -> TreeError {
    let problem = format!("it is another name of {}, which is no file", String::from_utf8_lossy(target));
    TreeError { path: path.to_vec(), problem }
}

/// The same tree, in which of the names of a file the first in byte order has it, as in an image that is read back:
/// so an image that went out and came in again is the same image.
pub(crate) fn with_first_names(mut tree: Tree) -> Result<Tree, TreeError> {
    let mut names: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for (path, node) in tree.iter() {
        if let Node::Hardlink(first) = node {
            names.entry(first.clone()).or_default().push(path.to_vec());
        }
    }
    for (first, others) in names {
        // In the order of paths, as they were met.
        let Some(least) = others.first().filter(|least| **least < first).cloned() else { continue };
        if let Some(file) = tree.remove(&first) {
            for other in others.into_iter().filter(|other| *other != least).chain([first]) {
                tree.insert(other, Node::Hardlink(least.clone()))?;
            }
            tree.insert(least, file)?;
        }
    }
    Ok(tree)
}

/// A tree of nothing but its root.
pub(crate) fn empty() -> Result<TreeEdit, TreeError> {
    let mut edit = TreeEdit::new(Tree::new());
    edit.put(b"/", crate::tree_edit::directory(0o755, IMPLIED))?;
    Ok(edit)
}

#[cfg(test)]
mod tests {
    use kiln_model::Content;

    use super::*;
    use crate::tree_edit::{directory, root_meta};

    fn tree(nodes: &[(&str, Node)]) -> Tree {
        let mut edit = empty().unwrap();
        nodes.iter().for_each(|(path, node)| edit.put(path.as_bytes(), node.clone()).unwrap());
        edit.into_tree()
    }

    fn paths(below: &[(&str, Node)], gone: &[&str], opaque: &[&str], own: &[(&str, Node)]) -> Vec<String> {
        let bytes = |paths: &[&str]| paths.iter().map(|p| p.as_bytes().to_vec()).collect();
        let layer = Layer { gone: bytes(gone), opaque: bytes(opaque), tree: tree(own) };
        let mut edit = TreeEdit::new(tree(below));
        apply(&mut edit, &layer).unwrap();
        edit.tree().iter().skip(1).map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
    }

    #[test]
    fn nothing_of_a_layer_is_lost_below_its_own_links() {
        let file = || Node::File(root_meta(0o644, 0), Content::Inline(Vec::new()));
        let link = |to: &str| Node::Symlink(root_meta(0o777, 0), to.into());
        let through = [("/a", link("b")), ("/a/x", file()), ("/b", link("c")), ("/c", directory(0o755, 0))];
        assert_eq!(paths(&[], &[], &[], &through), ["/a", "/b", "/c", "/c/x"]);
        let a_loop = [("/l1", link("l2")), ("/l2", link("l1")), ("/l1/x", file())];
        let lies = Layer { tree: tree(&a_loop), ..Layer::default() };
        let refused = apply(&mut empty().unwrap(), &lies).unwrap_err();
        assert!(refused.to_string().starts_with("/l1/x: it leads through more than 40"), "{refused}");
        let mut below = TreeEdit::new(tree(&a_loop[..2]));
        for lies in [
            Layer { gone: vec![b"/l1/x".to_vec()], ..Layer::default() },
            Layer { opaque: vec![b"/l1".to_vec()], ..Layer::default() },
        ] {
            assert!(apply(&mut below, &lies).is_err(), "{lies:?}");
        }
    }

    #[test]
    fn what_a_replaced_link_led_to_is_not_taken_away() {
        let file = || Node::File(root_meta(0o644, 0), Content::Inline(Vec::new()));
        let dir = || directory(0o755, 0);
        let link = |to: &str| Node::Symlink(root_meta(0o777, 0), to.into());
        let below = [
            ("/d", dir()),
            ("/d/cur", link("real")),
            ("/d/real", dir()),
            ("/d/real/in", dir()),
            ("/d/real/in/keep", file()),
        ];
        let all = ["/d", "/d/cur", "/d/real", "/d/real/in", "/d/real/in/keep"];
        let own = [("/d", dir()), ("/d/cur", dir())];
        assert_eq!(paths(&below, &[], &["/d/cur"], &own), all);
        assert_eq!(paths(&below, &["/d/cur/in"], &[], &own), all);
        assert_eq!(paths(&below, &["/d/cur/in/keep"], &["/d/cur/in"], &own), all);
        // The link itself may be taken away as well, and be said later than what is below it.
        let implied = [("/d", dir()), ("/d/cur", dir()), ("/d/cur/new", file())];
        let with_new = ["/d", "/d/cur", "/d/cur/new", "/d/real", "/d/real/in", "/d/real/in/keep"];
        assert_eq!(paths(&below, &["/d/cur/in", "/d/cur"], &["/d/cur"], &implied), with_new);
        // A link that stays is gone through, and a directory that stays is emptied.
        assert_eq!(paths(&below, &["/d/cur/in"], &[], &[("/d", dir())]), ["/d", "/d/cur", "/d/real"]);
        assert_eq!(paths(&below, &[], &["/d/cur"], &[("/d", dir())]), ["/d", "/d/cur", "/d/real"]);
        assert_eq!(paths(&below, &[], &["/d"], &own), ["/d", "/d/cur"]);
    }
}
