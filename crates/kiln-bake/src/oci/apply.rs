//! Layers, one over the other, as a union file system shows them.
//!
//! First what a layer takes away, which concerns the layers below alone; then what it puts there; hard links last,
//! because what they name may be in the same layer or below. Paths lead through the links of what is there, and
//! never out: `..` at the root is the root.

use std::collections::BTreeMap;

use kiln_model::{Node, Tree, TreeError};

use super::layer::Layer;
use crate::tree_edit::{TreeEdit, resolve};

/// Directories that a layer goes through without listing them.
const IMPLIED: i64 = 0;

/// Lays `layer` over what is there.
pub(crate) fn apply(edit: &mut TreeEdit, layer: &Layer) -> Result<(), TreeError> {
    for path in &layer.gone {
        let place = edit.resolve_parents(path);
        if place != b"/" {
            edit.remove(&place);
        }
    }
    for dir in &layer.opaque {
        let place = resolve(edit.tree(), dir, true);
        edit.clear(&place);
    }
    let is_link = |node: &Node| matches!(node, Node::Hardlink(_));
    layer.tree.iter().filter(|(_, node)| !is_link(node)).try_for_each(|(path, node)| {
        let place = edit.resolve_parents(path);
        edit.ensure_parent(&place, IMPLIED)?;
        edit.put(&place, node.clone())
    })?;
    layer.tree.iter().filter(|(_, node)| is_link(node)).try_for_each(|(path, node)| link(edit, path, node))
}

fn link(edit: &mut TreeEdit, path: &[u8], node: &Node) -> Result<(), TreeError> {
    let Node::Hardlink(target) = node else { return Ok(()) };
    let place = edit.resolve_parents(path);
    let first = edit.resolve_parents(target);
    let first = match edit.tree().get(&first) {
        Some(Node::File(..)) => first,
        Some(Node::Hardlink(first)) => first.clone(),
        _ => return Err(to_nothing(path, target)),
    };
    if place == first {
        return Ok(());
    }
    edit.ensure_parent(&place, IMPLIED)?;
    edit.put(&place, Node::Hardlink(first.clone()))?;
    // What made room for it may have had the file below it.
    match edit.tree().get(&first) {
        Some(Node::File(..)) => Ok(()),
        _ => Err(to_nothing(path, target)),
    }
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
