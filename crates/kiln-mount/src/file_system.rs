//! A filesystem being configured.

use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::MountError;

/// How many messages of the kernel are passed on at most: it keeps 8 of them.
const MESSAGES: usize = 8;

/// A filesystem that has a type and some options but no superblock yet.
pub(crate) struct FileSystem {
    kind: &'static str,
    context: OwnedFd,
}

impl FileSystem {
    pub(crate) fn open(kind: &'static str) -> Result<Self, MountError> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|e| MountError::new(format!("open the filesystem type {kind}"), e))?;
        Ok(Self { kind, context })
    }

    pub(crate) fn flag(&self, key: &str) -> Result<(), MountError> {
        fsconfig_set_flag(&self.context, key).map_err(|e| self.refused(&format!("set {key}"), e))
    }

    pub(crate) fn set(&self, key: &str, value: &str) -> Result<(), MountError> {
        fsconfig_set_string(&self.context, key, value)
            .map_err(|e| self.refused(&format!("set {key}={value}"), e))
    }

    pub(crate) fn set_fd(&self, key: &str, fd: impl AsFd) -> Result<(), MountError> {
        fsconfig_set_fd(&self.context, key, fd).map_err(|e| self.refused(&format!("set {key}"), e))
    }

    pub(crate) fn create(&self) -> Result<(), MountError> {
        fsconfig_create(&self.context).map_err(|e| self.refused("create it", e))
    }

    /// Creates the filesystem and mounts it, detached.
    pub(crate) fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd, MountError> {
        self.create()?;
        fsmount(&self.context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|e| self.refused("mount it", e))
    }

    fn refused(&self, attempted: &str, e: rustix::io::Errno) -> MountError {
        MountError::new(format!("{attempted} for a mount of type {}", self.kind), e)
            .with_kernel_words(self.kernel_words())
    }

    /// What the filesystem left in the log of its context; each read takes one message, the last answers ENODATA.
    fn kernel_words(&self) -> Option<String> {
        let mut words = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = rustix::io::read(&self.context, &mut buffer) {
            words.push(String::from_utf8_lossy(&buffer[..n]).trim().to_owned());
            if words.len() == MESSAGES {
                break;
            }
        }
        (!words.is_empty()).then(|| words.join("; "))
    }
}
