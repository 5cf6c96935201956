//! Making two runs of the same configuration the same: what tells of the moment or the machine is dropped or set,
//! and nothing secret or of one machine alone stays in an image.

use kiln_model::{Content, LeftOut, Node, Tree, TreeError};
use kiln_store::{Batch, Store, StoreError};

use super::formats;
use crate::tree_edit::{TreeEdit, root_meta};
use crate::{BakeError, content, machine_own};

/// Taken away with all below: logs of the run, state of tools for their own use, backups of files just written.
const DROPPED: [&str; 23] = [
    "/etc/.pwd.lock",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/passwd-",
    "/etc/shadow-",
    "/etc/subgid-",
    "/etc/subuid-",
    "/usr/sbin/policy-rc.d",
    "/var/cache/apt/pkgcache.bin",
    "/var/cache/apt/srcpkgcache.bin",
    "/var/cache/debconf/config.dat-old",
    "/var/cache/debconf/passwords.dat",
    "/var/cache/debconf/passwords.dat-old",
    "/var/cache/debconf/templates.dat-old",
    "/var/cache/ldconfig/aux-cache",
    "/var/lib/dbus/machine-id",
    "/var/lib/dpkg/available-old",
    "/var/lib/dpkg/diversions-old",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/status-old",
    "/var/lib/dpkg/statoverride-old",
    "/var/lib/dpkg/triggers/Lock",
];
/// Emptied: an instance starts with its own.
const EMPTIED: [&str; 3] = ["/run", "/tmp", "/var/tmp"];
/// What Java trusts.
const JAVA_CERTIFICATES: &[u8] = b"/etc/ssl/certs/java/cacerts";
/// Files below it are taken away, directories stay for the programs that want to log into them.
const LOGS: &str = "/var/log/";

/// Normalises a configured tree; no time in it is after `epoch`. With what was taken out of it that belongs to one machine.
pub(crate) fn normalised(tree: Tree, epoch: i64, store: &Store) -> Result<(Tree, Vec<LeftOut>), BakeError> {
    let batch = store.objects().batch()?;
    let (mut tree, left_out) = without_the_run(tree, epoch)?;
    settle_formats(&mut tree, epoch, store, &batch)?;
    batch.commit()?;
    Ok((tree, left_out))
}

/// Files of formats that hold a time are written again without it.
fn settle_formats(tree: &mut Tree, epoch: i64, store: &Store, batch: &Batch) -> Result<(), StoreError> {
    let of_such_a_format =
        |path: &[u8]| path == JAVA_CERTIFICATES || (path.starts_with(b"/etc/") && path.ends_with(b".db"));
    for (_, node) in tree.iter_mut().filter(|(path, _)| of_such_a_format(path)) {
        let Node::File(_, content) = node else { continue };
        if let Some(settled) = formats::settled(&content::bytes_of(content, store)?, epoch) {
            *content = content::of_bytes(batch, &settled)?;
        }
    }
    Ok(())
}

fn without_the_run(tree: Tree, epoch: i64) -> Result<(Tree, Vec<LeftOut>), TreeError> {
    let mut edit = TreeEdit::new(tree);
    for path in DROPPED {
        edit.remove(path.as_bytes());
    }
    for path in EMPTIED {
        edit.clear(path.as_bytes());
    }
    drop_files(&mut edit, LOGS);
    let left_out = machine_own::taken_out(&mut edit);
    machine_id(&mut edit, epoch)?;
    let mut tree = edit.into_tree();
    clamp(&mut tree, epoch);
    Ok((tree, left_out))
}

fn drop_files(edit: &mut TreeEdit, below: &str) {
    let is_directory = |edit: &TreeEdit, path: &[u8]| edit.tree().get(path).is_some_and(Node::is_directory);
    for path in edit.below(below.trim_end_matches('/').as_bytes()) {
        if !is_directory(edit, &path) {
            edit.remove(&path);
        }
    }
}

/// Says to whoever boots it that this machine has no identity yet.
fn machine_id(edit: &mut TreeEdit, epoch: i64) -> Result<(), TreeError> {
    let text = Content::Inline(b"uninitialized\n".to_vec());
    edit.put(b"/etc/machine-id", Node::File(root_meta(0o444, epoch), text))
}

/// No time in `tree` is after `epoch` any more.
pub(crate) fn clamp(tree: &mut Tree, epoch: i64) {
    for (_, node) in tree.iter_mut() {
        match node {
            Node::Directory(m)
            | Node::File(m, _)
            | Node::Symlink(m, _)
            | Node::CharDevice(m, ..)
            | Node::BlockDevice(m, ..)
            | Node::Fifo(m)
            | Node::Socket(m) => m.mtime = m.mtime.min(epoch),
            Node::Hardlink(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree_edit::directory;

    #[test]
    fn what_is_of_one_run_is_gone() {
        let mut edit = TreeEdit::new(Tree::new());
        for dir in ["/", "/var", "/var/log", "/var/log/nginx", "/run", "/run/lock", "/etc"] {
            edit.put(dir.as_bytes(), directory(0o755, 100)).unwrap();
        }
        let file = Node::File(root_meta(0o644, 900), Content::Inline(b"x".to_vec()));
        for path in ["/var/log/dpkg.log", "/run/x", "/etc/passwd", "/etc/passwd-"] {
            edit.put(path.as_bytes(), file.clone()).unwrap();
        }
        let (tree, left_out) = without_the_run(edit.into_tree(), 500).unwrap();
        assert_eq!(left_out, []);
        let paths: Vec<_> = tree.iter().map(|(p, _)| String::from_utf8_lossy(p).into_owned()).collect();
        assert_eq!(
            paths,
            ["/", "/etc", "/etc/machine-id", "/etc/passwd", "/run", "/var", "/var/log", "/var/log/nginx"]
        );
        assert_eq!(tree.get(b"/etc/passwd").and_then(Node::meta).map(|m| m.mtime), Some(500));
        assert_eq!(tree.get(b"/etc").and_then(Node::meta).map(|m| m.mtime), Some(100));
    }
}
