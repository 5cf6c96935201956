//! Changing a tree as a filesystem would change: what is laid over it replaces what was there, paths lead through
//! symbolic links, and a file with several names lives on under the others.

use std::collections::BTreeMap;

use kiln_model::{Meta, Node, Tree, TreeError, Xattrs};

/// A path that leads through more symbolic links leads nowhere, as in the kernel: such links lead to each other.
const MOST_LINKS: usize = 40;

/// A tree being changed.
pub(crate) struct TreeEdit {
    tree: Tree,
    /// The further names of files that have any; looked for in all of the tree when they are first asked for.
    names: Option<Names>,
}

type Names = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

impl TreeEdit {
    pub(crate) fn new(tree: Tree) -> Self {
        Self { tree, names: None }
    }

    /// Called before further names come or go.
    fn names(&mut self) -> &mut Names {
        self.names.get_or_insert_with(|| further_names(&self.tree))
    }

    pub(crate) fn into_tree(self) -> Tree {
        self.tree
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// All names of all files that have several.
    pub(crate) fn shared_names(&self) -> Vec<Vec<u8>> {
        further_names(&self.tree)
            .into_iter()
            .flat_map(|(first, others)| [first].into_iter().chain(others))
            .collect()
    }

    /// What is at `path`, to change its attributes.
    pub(crate) fn node_mut(&mut self, path: &[u8]) -> Option<&mut Node> {
        self.tree.get_mut(path)
    }

    /// Puts `node` at `path`. What was there is gone, with all below it unless both are directories.
    pub(crate) fn put(&mut self, path: &[u8], node: Node) -> Result<(), TreeError> {
        let stays = node.is_directory() && self.tree.get(path).is_some_and(Node::is_directory);
        if !stays && self.tree.get(path).is_some() {
            self.remove(path);
        }
        if let Node::Hardlink(first) = &node {
            self.names().entry(first.clone()).or_default().push(path.to_vec());
        }
        self.tree.insert(path, node).map(drop)
    }

    /// Takes away `path` and all below it.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        let doomed: Vec<Vec<u8>> = match self.tree.get(path) {
            None => return,
            Some(Node::Directory(_)) => self.below(path),
            Some(_) => Vec::new(),
        };
        for path in doomed.iter().rev().map(Vec::as_slice).chain([path]) {
            self.remove_one(path);
        }
    }

    /// Takes away all below `path`, and leaves it.
    pub(crate) fn clear(&mut self, path: &[u8]) {
        for path in self.below(path).iter().rev() {
            self.remove_one(path);
        }
    }

    /// The paths below a directory, in order.
    pub(crate) fn below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        self.tree.below(path).map(|(p, _)| p.to_vec()).collect()
    }

    fn remove_one(&mut self, path: &[u8]) {
        self.names();
        let node = self.tree.remove(path);
        match node {
            Some(Node::Hardlink(first)) => {
                if let Some(names) = self.names().get_mut(&first) {
                    names.retain(|n| n != path);
                }
            }
            Some(other) if !other.is_directory() => self.hand_on(path, other),
            _ => {}
        }
    }

    /// Lets the file that was at `path` live on under its next name; links, pipes and devices have several as well.
    fn hand_on(&mut self, path: &[u8], file: Node) {
        let Some(mut names) = self.names().remove(path).filter(|n| !n.is_empty()) else { return };
        let first = names.remove(0);
        for other in &names {
            if let Some(node) = self.tree.get_mut(other) {
                *node = Node::Hardlink(first.clone());
            }
        }
        if let Some(node) = self.tree.get_mut(&first) {
            *node = file;
        }
        self.names().insert(first, names);
    }

    /// `path` with its parents' symbolic links followed: where a write to it would end up. The last component is
    /// left as it is.
    pub(crate) fn resolve_parents(&self, path: &[u8]) -> Result<Vec<u8>, TreeError> {
        resolve(&self.tree, path, false)
    }

    /// The directory that `path` is in, as [`Self::ensure_directory`].
    pub(crate) fn ensure_parent(&mut self, path: &[u8], mtime: i64) -> Result<(), TreeError> {
        let end = path.iter().rposition(|c| *c == b'/').unwrap_or(0);
        self.ensure_directory(&path[..end], mtime)
    }

    /// The directory at `path`, made with all its parents (mode 0755, root) where they are missing.
    pub(crate) fn ensure_directory(&mut self, path: &[u8], mtime: i64) -> Result<(), TreeError> {
        let path = resolve(&self.tree, path, true)?;
        for end in (0..path.len()).filter(|i| *i > 0 && path[*i] == b'/').chain([path.len()]) {
            let part = &path[..end];
            match self.tree.get(part) {
                Some(Node::Directory(_)) => {}
                None => self.put(part, directory(0o755, mtime))?,
                Some(_) => {
                    return Err(TreeError {
                        path: part.into(),
                        problem: "is in the way of a directory".into(),
                    });
                }
            }
        }
        Ok(())
    }
}

fn further_names(tree: &Tree) -> Names {
    let mut names = Names::new();
    for (path, node) in tree.iter() {
        if let Node::Hardlink(first) = node {
            names.entry(first.clone()).or_default().push(path.to_vec());
        }
    }
    names
}

/// A directory of root's.
pub(crate) fn directory(mode: u16, mtime: i64) -> Node {
    Node::Directory(root_meta(mode, mtime))
}

/// Attributes of what belongs to root.
pub(crate) fn root_meta(mode: u16, mtime: i64) -> Meta {
    Meta { mode, uid: 0, gid: 0, mtime, xattrs: Xattrs::new() }
}

/// `path` with symbolic links followed inside the tree, the last component's too if `last`. What does not exist is
/// taken as written; `..` never leads above the root. A path that leads through too many links is an error.
pub(crate) fn resolve(tree: &Tree, path: &[u8], last: bool) -> Result<Vec<u8>, TreeError> {
    let mut todo: Vec<Vec<u8>> = components(path);
    let mut done: Vec<u8> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            done.truncate(done.iter().rposition(|c| *c == b'/').unwrap_or(0));
            continue;
        }
        let mut here = done.clone();
        here.push(b'/');
        here.extend_from_slice(&name);
        let named = tree.get(&here).map(|node| match node {
            // A link may have several names as well.
            Node::Hardlink(first) => tree.get(first).unwrap_or(node),
            node => node,
        });
        match named {
            Some(Node::Symlink(_, target)) if last || !todo.is_empty() => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(nowhere(path));
                }
                if target.starts_with(b"/") {
                    done.clear();
                }
                todo.extend(components(target));
            }
            _ => done = here,
        }
    }
    Ok(if done.is_empty() { b"/".to_vec() } else { done })
}

fn nowhere(path: &[u8]) -> TreeError {
    let problem = format!(
        "it leads through more than {MOST_LINKS} symbolic links, or through links that lead to each other"
    );
    TreeError { path: path.to_vec(), problem }
}

/// What is at `path`, wherever links lead; of a file with several names, the file itself.
pub(crate) fn node_at<'t>(tree: &'t Tree, path: &[u8]) -> Option<&'t Node> {
    match tree.get(&resolve(tree, path, true).ok()?) {
        Some(Node::Hardlink(first)) => tree.get(first),
        node => node,
    }
}

/// The components of a path, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|c| *c == b'/').filter(|p| !matches!(*p, b"" | b".")).map(<[u8]>::to_vec).rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_model::Content;

    fn file(text: &str) -> Node {
        Node::File(root_meta(0o644, 0), Content::Inline(text.into()))
    }

    fn link(target: &str) -> Node {
        Node::Symlink(root_meta(0o777, 0), target.into())
    }

    fn edit(nodes: &[(&str, Node)]) -> TreeEdit {
        let mut edit = TreeEdit::new(Tree::new());
        edit.put(b"/", directory(0o755, 0)).unwrap();
        for (path, node) in nodes {
            edit.put(path.as_bytes(), node.clone()).unwrap();
        }
        edit
    }

    #[test]
    fn a_file_lives_on_under_its_other_names() {
        let other = |p: &str| Node::Hardlink(p.into());
        let mut e = edit(&[("/a", file("x")), ("/b", other("/a")), ("/c", other("/a"))]);
        e.remove(b"/a");
        assert_eq!(e.tree().get(b"/b"), Some(&file("x")));
        assert_eq!(e.tree().get(b"/c"), Some(&other("/b")));
        e.put(b"/b", file("y")).unwrap();
        assert_eq!(e.tree().get(b"/c"), Some(&file("x")));
        let mut e = edit(&[("/a", link("x")), ("/b", other("/a"))]);
        e.put(b"/a", file("y")).unwrap();
        assert_eq!(e.tree().get(b"/b"), Some(&link("x")));
        let mut e = edit(&[("/d", directory(0o755, 0)), ("/d/a", file("x")), ("/d/b", other("/d/a"))]);
        e.remove(b"/d");
        assert_eq!(e.tree().len(), 1);
    }

    #[test]
    fn paths_lead_through_links() {
        let e = edit(&[
            ("/usr", directory(0o755, 0)),
            ("/usr/lib", directory(0o755, 0)),
            ("/lib", link("usr/lib")),
            ("/usr/lib/up", link("../../lib/x")),
            ("/loop", link("loop")),
        ]);
        assert_eq!(e.resolve_parents(b"/lib/a").unwrap(), b"/usr/lib/a");
        assert_eq!(e.resolve_parents(b"/lib").unwrap(), b"/lib");
        assert_eq!(resolve(e.tree(), b"/lib/up", true).unwrap(), b"/usr/lib/x");
        assert_eq!(resolve(e.tree(), b"/../../lib", true).unwrap(), b"/usr/lib");
        assert_eq!(resolve(e.tree(), b"/", true).unwrap(), b"/");
        assert_eq!(resolve(e.tree(), b"/loop", false).unwrap(), b"/loop");
        assert!(resolve(e.tree(), b"/loop/a", true).is_err() && e.resolve_parents(b"/loop/a").is_err());
        let mut named = edit(&[
            ("/a", link("usr")),
            ("/usr", directory(0o755, 0)),
            ("/z", Node::Hardlink(b"/a".to_vec())),
        ]);
        assert_eq!(resolve(named.tree(), b"/z/x", true).unwrap(), b"/usr/x");
        named.ensure_directory(b"/z/data", 7).unwrap();
        assert!(named.tree().get(b"/usr/data").is_some());
        assert!(node_at(e.tree(), b"/loop/a").is_none() && node_at(e.tree(), b"/lib").is_some());
    }

    #[test]
    fn a_path_leads_through_as_many_links_as_in_the_kernel() {
        let names: Vec<String> = (0..=41).map(|n| format!("/{n}")).collect();
        let mut e = edit(&[("/41", directory(0o755, 0))]);
        for pair in names.windows(2) {
            e.put(pair[0].as_bytes(), link(&pair[1])).unwrap();
        }
        assert_eq!(e.resolve_parents(b"/1/x").unwrap(), b"/41/x");
        assert!(e.resolve_parents(b"/0/x").unwrap_err().to_string().contains("more than 40"));
        assert!(e.ensure_directory(b"/0", 7).is_err());
    }

    #[test]
    fn directories_are_made_where_paths_lead() {
        let mut e = edit(&[("/usr", directory(0o755, 0)), ("/lib", link("usr/lib")), ("/f", file(""))]);
        e.ensure_directory(b"/lib/a/b", 7).unwrap();
        assert!(e.tree().get(b"/usr/lib/a/b").is_some_and(Node::is_directory));
        assert!(e.ensure_directory(b"/f/x", 7).is_err());
    }
}
