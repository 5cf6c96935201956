//! The program whose subcommands the processes beside control are.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What this process runs, whatever has become of its file.
const OWN: &str = "/proc/self/exe";

/// A program on the disk.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    /// Whether this process ran the same when this value was made.
    is_own: bool,
}

impl Program {
    pub(super) fn at(path: &Path) -> Self {
        let own = mark(Path::new(OWN));
        Self { path: path.to_owned(), is_own: own.is_some() && own == mark(path) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What starts it: the file that is there now, which may be a newer one. Where it was deleted or moved, the one that
    /// this process runs, if that is the same.
    pub(super) fn command(&self) -> Command {
        let is_gone = self.path.symlink_metadata().is_err();
        Command::new(if is_gone && self.is_own { Path::new(OWN) } else { &self.path })
    }
}

fn mark(path: &Path) -> Option<(u64, u64)> {
    let file = path.metadata().ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_started_as_it_runs_and_what_is_another_program_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        std::fs::hard_link(std::env::current_exe().unwrap(), &own)
            .or_else(|_| std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &own))
            .unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "another one").unwrap();
        let [own, other] = [own, other].map(|path| Program::at(&path));
        assert_eq!(own.command().get_program(), own.path());
        std::fs::remove_file(own.path()).unwrap();
        std::fs::remove_file(other.path()).unwrap();
        assert_eq!(own.command().get_program(), OWN);
        assert_eq!(other.command().get_program(), other.path());
    }
}
