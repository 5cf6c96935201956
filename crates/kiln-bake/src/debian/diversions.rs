//! Files that a package asked dpkg to put aside for it (`dpkg-divert`), as dpkg's database has them: three lines each,
//! the path, where it goes instead, and the package whose own file stays (`:` for none).

use std::collections::HashMap;

use kiln_model::Tree;
use kiln_store::{Store, StoreError};

use crate::content;
use crate::tree_edit::resolve;

const FILE: &str = "/var/lib/dpkg/diversions";

/// What is diverted, by its place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Diversions(HashMap<Vec<u8>, (Vec<u8>, String)>);

impl Diversions {
    /// Those of the packages installed in `tree`.
    pub(crate) fn of(tree: &Tree, store: &Store) -> Result<Self, StoreError> {
        let bytes = content::read(tree, FILE, store)?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes), tree))
    }

    fn parse(text: &str, tree: &Tree) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let place =
            |path: &str| resolve(tree, path.as_bytes(), false).unwrap_or_else(|_| path.as_bytes().to_vec());
        let one = |c: &[&str]| (place(c[0]), (place(c[1]), c[2].to_owned()));
        Self(lines.chunks_exact(3).map(one).collect())
    }

    /// Where a file of `package` goes that would go to `place`.
    pub(crate) fn place(&self, place: Vec<u8>, package: &str) -> Vec<u8> {
        match self.0.get(&place) {
            Some((aside, owner)) if owner != package => aside.clone(),
            _ => place,
        }
    }

    /// The package for whose file others' are put aside at `place`; empty if there is none.
    pub(crate) fn diverter(&self, place: &[u8]) -> &str {
        self.0.get(place).map_or("", |(_, owner)| owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree_edit::{TreeEdit, directory, root_meta};
    use kiln_model::Node;

    #[test]
    fn others_give_way_and_the_owner_does_not() {
        let mut edit = TreeEdit::new(Tree::new());
        for dir in ["/", "/usr", "/usr/bin"] {
            edit.put(dir.as_bytes(), directory(0o755, 0)).unwrap();
        }
        edit.put(b"/bin", Node::Symlink(root_meta(0o777, 0), b"usr/bin".to_vec())).unwrap();
        let text = "/bin/zcat\n/bin/zcat.gzip\nzutils\n/torn";
        let diversions = Diversions::parse(text, edit.tree());
        let place = |package| diversions.place(b"/usr/bin/zcat".to_vec(), package);
        assert_eq!(place("gzip"), b"/usr/bin/zcat.gzip");
        assert_eq!(place("zutils"), b"/usr/bin/zcat");
        assert_eq!(diversions.diverter(b"/usr/bin/zcat"), "zutils");
        assert_eq!(diversions.place(b"/x".to_vec(), "gzip"), b"/x");
    }
}
