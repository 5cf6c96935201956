//! What maintainer scripts may have made by chance, and nobody knows them for (`machine_own`): a key, a password. Each bake
//! would make it otherwise, and all instances share what the image has. It stays, for a package may not work without, and
//! is told.
//!
//! Known by its mode alone: a file of the scripts' that not everybody may read. What they make by chance and let everybody
//! read is not found.

use std::collections::HashSet;

use kiln_model::{Content, Fate, LeftOut, Node, Tree};

use super::package::Package;

/// Never made by chance: who is who, with passwords that nobody has.
const KNOWN: [&[u8]; 2] = [b"/etc/shadow", b"/etc/gshadow"];
/// So many are named, and the rest counted.
const MOST_NAMED: usize = 8;
const WHAT: &str = "what the packages' scripts made and not everybody may read";
const INSTEAD: &str = "if it is a secret, or made by chance, all instances share it, who gets the image has it, and another \
    bake makes other bytes of it: take it away in `build`, and give it as a secret or make it at the start of each instance";

/// What in `tree`, where `packages` are installed, may be such; nothing if there is none.
pub(super) fn made(tree: &Tree, packages: &[Package<'_>]) -> Option<LeftOut> {
    let hidden = tree.iter().filter(|(path, node)| is_hidden(node) && !KNOWN.contains(path));
    let mut found: Vec<(&[u8], &Node)> = hidden.collect();
    if found.is_empty() {
        return None;
    }
    let contents = brought(packages);
    found.retain(|(path, node)| {
        let is_a_copy = matches!(node, Node::File(_, content) if contents.contains(content));
        !is_a_copy && !packages.iter().any(|package| package.data.get(path).is_some())
    });
    let shown = |(path, _): &(&[u8], &Node)| String::from_utf8_lossy(path).into_owned();
    let mut paths: Vec<String> = found.iter().take(MOST_NAMED).map(shown).collect();
    if found.len() > MOST_NAMED {
        paths.push(format!("{} more", found.len() - MOST_NAMED));
    }
    let told = LeftOut {
        what: WHAT.into(),
        paths,
        instead: INSTEAD.into(),
        command: String::new(),
        fate: Fate::Kept,
    };
    (!found.is_empty()).then_some(told)
}

/// Whether it holds something, and others may not read that.
fn is_hidden(node: &Node) -> bool {
    match node {
        Node::File(meta, Content::Inline(bytes)) => meta.mode & 0o004 == 0 && !bytes.is_empty(),
        Node::File(meta, Content::Object { size, .. }) => meta.mode & 0o004 == 0 && *size > 0,
        _ => false,
    }
}

/// All contents that packages bring, wherever.
fn brought<'a>(packages: &[Package<'a>]) -> HashSet<&'a Content> {
    let nodes = packages.iter().flat_map(|package| package.data.iter());
    nodes
        .filter_map(|(_, node)| if let Node::File(_, content) = node { Some(content) } else { None })
        .collect()
}
