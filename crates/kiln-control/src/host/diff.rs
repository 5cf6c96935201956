//! What differs between an instance and its image.
//!
//! An instance may write where its release says, and what is there is told. Nowhere else can anything differ, because
//! nothing can be written: that this is still so is looked at, too.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use kiln_model::{
    Answer, DiffAnswer, DiffEntry, DiffKind, ExitCode, Failure, InstanceId, ReleaseService, Volatile,
};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstatfs, fstatvfs, openat,
    openat2, statat,
};

use super::LocalHost;
use crate::core::InstanceReport;
use crate::sync::lock;

/// More than this is not told: nobody reads it, and an instance could have any number.
const MOST: usize = 10_000;
/// Deeper than this is not looked.
const DEEPEST: usize = 64;
/// The number of tmpfs.
const TMPFS: u64 = 0x0102_1994;

impl LocalHost {
    pub(crate) fn diff(&self, id: &InstanceId) -> Result<Answer, Failure> {
        let service = self.service_of(id).ok_or_else(|| self.no_such_instance(id))?;
        let root = self.engine.root(id).map_err(|e| match e {
            kiln_engine::EngineError::NoSuchInstance(_) => self.no_such_instance(id),
            other => Failure::from_error(ExitCode::Host, &other),
        })?;
        let mut found = Found::default();
        found.root(&root);
        for Volatile { path, .. } in &service.volatile {
            found.volatile(&root, path);
        }
        found.entries.sort_by(|a, b| a.path.cmp(&b.path));
        found.entries.dedup();
        let Found { entries, drift, is_cut } = found;
        let (instance, image) = (id.clone(), service.image);
        Ok(Answer::Diff(DiffAnswer { instance, image, volatile: entries, drift, is_cut }))
    }

    fn service_of(&self, id: &InstanceId) -> Option<ReleaseService> {
        self.home_of(id).map(|(_, service)| service)
    }

    /// The instance as the core has it, and what its release says of its service.
    pub(super) fn home_of(&self, id: &InstanceId) -> Option<(InstanceReport, ReleaseService)> {
        let core = lock(&self.driver.core);
        let report = core.instances().into_iter().find(|i| i.id == *id)?;
        let service = core.release(&report.release)?.services.get(&report.fleet.service).cloned()?;
        Some((report, service))
    }
}

#[derive(Debug, Default)]
struct Found {
    entries: Vec<DiffEntry>,
    drift: Vec<String>,
    is_cut: bool,
}

impl Found {
    fn root(&mut self, root: &OwnedFd) {
        match fstatvfs(root) {
            Ok(stat) if stat.f_flag.contains(StatVfsMountFlags::RDONLY) => {}
            Ok(_) => self.drift.push("the root file system can be written".into()),
            Err(e) => self.drift.push(format!("the root file system cannot be looked at: {e}")),
        }
    }

    fn volatile(&mut self, root: &OwnedFd, path: &str) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            Ok(dir) => dir,
            Err(e) => return self.drift.push(format!("its volatile path {path} cannot be looked into: {e}")),
        };
        if fstatfs(&dir).is_ok_and(|s| s.f_type as u64 != TMPFS) {
            return self.drift.push(format!("its volatile path {path} is no volatile file system"));
        }
        self.directory(&dir, path, 0);
    }

    /// By descriptors, and never through a link: an instance could make one while it is looked at.
    fn directory(&mut self, dir: &OwnedFd, path: &str, depth: usize) {
        let Ok(entries) = Dir::read_from(dir.as_fd()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if self.entries.len() >= MOST || depth >= DEEPEST {
                self.is_cut = true;
                return;
            }
            let shown = OsStr::from_bytes(name.to_bytes()).display();
            let below = format!("{}/{shown}", path.trim_end_matches('/'));
            let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => DiffKind::File,
                FileType::Directory => DiffKind::Directory,
                FileType::Symlink => DiffKind::Symlink,
                _ => DiffKind::Other,
            };
            let bytes = if kind == DiffKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
            self.entries.push(DiffEntry { path: below.clone(), kind, bytes });
            if kind == DiffKind::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(inner) = openat(dir, name, flags, Mode::empty()) {
                    self.directory(&inner, &below, depth + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn links_are_told_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "12345").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let mut found = Found::default();
        let root = fs::File::open(dir.path()).unwrap().into();
        found.directory(&root, "/tmp", 0);
        found.entries.sort_by(|a, b| a.path.cmp(&b.path));
        let told: Vec<_> = found.entries.iter().map(|e| (e.path.as_str(), e.kind, e.bytes)).collect();
        assert_eq!(
            told,
            [
                ("/tmp/link", DiffKind::Symlink, 0),
                ("/tmp/sub", DiffKind::Directory, 0),
                ("/tmp/sub/file", DiffKind::File, 5),
            ]
        );
        found.root(&root);
        assert_eq!(found.drift.len(), 1, "a directory of this host can be written");
    }
}
