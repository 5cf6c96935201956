//! What every image has, whatever it is made of: the places that an instance mounts over, and the files that name a
//! machine, with contents that name none.

use kiln_model::{Content, Node, Tree, TreeError};

use crate::tree_edit::{TreeEdit, directory, root_meta};

/// Directories and their modes.
const DIRECTORIES: [(&str, u16); 8] = [
    ("/", 0o755),
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/proc", 0o555),
    ("/run", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/var", 0o755),
];

/// The files that name a machine. An instance has a network of its own with nothing in it but itself and what its
/// release declares, so no name server is named.
const FILES: [(&str, &str); 3] = [
    ("/etc/hostname", "localhost\n"),
    ("/etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    ("/etc/resolv.conf", "# no name server: see /etc/hosts\n"),
];

/// A tree with nothing but this.
pub(crate) fn new(epoch: i64) -> Result<TreeEdit, TreeError> {
    let mut edit = TreeEdit::new(Tree::new());
    complete(&mut edit, epoch)?;
    Ok(edit)
}

/// Adds what `edit` lacks of this. What is there stays, a link as well as a directory.
pub(crate) fn complete(edit: &mut TreeEdit, epoch: i64) -> Result<(), TreeError> {
    for (path, mode) in DIRECTORIES {
        if edit.tree().get(path.as_bytes()).is_none() {
            edit.put(path.as_bytes(), directory(mode, epoch))?;
        }
    }
    for (path, text) in FILES {
        if edit.tree().get(path.as_bytes()).is_none() {
            let file = Node::File(root_meta(0o644, epoch), Content::Inline(text.into()));
            edit.put(path.as_bytes(), file)?;
        }
    }
    Ok(())
}
