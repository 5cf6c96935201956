//! The mount namespace that all instances of an image begin with a copy of.
//!
//! Its root already is the image, and there is nothing else in it but /dev: so a child copies two mounts, and never
//! pivots or detaches anything.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use kiln_model::ImageHandle;
use kiln_mount::{UserNamespace, composefs};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};
use rustix::process::{fchdir, pivot_root};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::error::LaunchError;
use super::ids::AppIds;
use super::{Host, device_dir};

/// A mount namespace whose root is an image, seen with the owners of one app.
#[derive(Debug)]
pub(crate) struct Template {
    namespace: OwnedFd,
    root: OwnedFd,
}

impl Template {
    /// Makes one. The calling process, which must have one thread only, is left inside of it.
    pub(super) fn new(host: &Host, image: &ImageHandle, ids: AppIds) -> Result<Self, LaunchError> {
        host.return_to_mounts().map_err(|e| LaunchError::new("return to the host's mount namespace", e))?;
        let users = UserNamespace::new(&[ids.range()]).map_err(LaunchError::mount)?;
        let image = composefs(image, Some(&users)).map_err(LaunchError::mount)?;
        let devices = device_dir::mount()?;
        leave_the_host().map_err(|e| LaunchError::new("make a mount namespace", e))?;
        attach(&image, CWD, "/proc").map_err(|e| LaunchError::new("attach its image", e))?;
        attach(&devices, &image, "dev")
            .map_err(|e| LaunchError::new("attach /dev, a directory its image must have", e))?;
        settle_in(&image).map_err(|e| LaunchError::new("make its image the root", e))?;
        let namespace = openat(&host.proc, "self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let namespace = namespace.map_err(|e| LaunchError::new("keep its mount namespace", e))?;
        Ok(Self { namespace, root: image })
    }

    /// Makes this the mount namespace of the calling process, which must have one thread only.
    pub(super) fn enter(&self) -> io::Result<()> {
        enter(&self.namespace)
    }

    /// The image's root directory.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }
}

/// A mount namespace of its own, from which nothing spreads. Any directory of the host's tree will do to attach to:
/// the tree is gone from here in a moment.
fn leave_the_host() -> io::Result<()> {
    // SAFETY: the process has one thread, so nobody else's view of mounts changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

fn attach(mount: &OwnedFd, dir: impl AsFd, path: &str) -> io::Result<()> {
    Ok(move_mount(mount, "", dir, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Makes an attached mount the root and lets go of everything else.
fn settle_in(root: &OwnedFd) -> io::Result<()> {
    fchdir(root)?;
    pivot_root(".", ".")?;
    Ok(unmount(".", UnmountFlags::DETACH)?)
}

/// Makes this the mount namespace of the calling process, which must have one thread only.
pub(super) fn enter(namespace: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?)
}
