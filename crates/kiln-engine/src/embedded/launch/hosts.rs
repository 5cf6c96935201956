//! Lists of names: the /etc/hosts of instances that need something.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln_model::{Inside, hosts_file};
use rustix::fs::{AtFlags, Mode, OFlags, chmodat, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use super::device_dir::read_only;
use super::error::LaunchError;

/// The file inside such a mount.
pub(super) const NAME: &std::ffi::CStr = c"hosts";
/// Different ones that are kept: instances of a service have the same.
const MOST: usize = 64;

/// Detached mounts with one file each, by its text.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, OwnedFd>);

impl Hosts {
    /// The mount for an instance with these needs; none if it has none, and its image's own file will do.
    pub(super) fn of(&mut self, needs: &[Inside]) -> Result<Option<BorrowedFd<'_>>, LaunchError> {
        if needs.is_empty() {
            return Ok(None);
        }
        let text = hosts_file(needs);
        if !self.0.contains_key(&text) {
            if self.0.len() >= MOST {
                // Instances have mounts of their own of what they use.
                self.0.clear();
            }
            let mount = make(&text).map_err(|e| LaunchError::new("make its list of names", e))?;
            self.0.insert(text.clone(), mount);
        }
        Ok(self.0.get(&text).map(AsFd::as_fd))
    }
}

fn make(text: &str) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", "64k"), ("nr_inodes", "4"), ("mode", "0755")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = openat(&mount, NAME, flags, Mode::from_raw_mode(0o600))?;
    rustix::io::write(&file, text.as_bytes())?;
    drop(file);
    chmodat(&mount, NAME, Mode::from_raw_mode(0o444), AtFlags::empty())?;
    read_only(&mount)?;
    Ok(mount)
}
