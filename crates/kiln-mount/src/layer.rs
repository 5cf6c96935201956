//! One detached layer below an overlay.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use crate::error::on;
use crate::file_system::FileSystem;
use crate::{MountError, UserNamespace};

/// The flags of every mount made here. Set-user-id bits and device nodes of an image mean nothing: what runs inside
/// has `no_new_privs`, and its /dev is made by the engine.
pub(crate) const INERT: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// The EROFS inside the file `path`, mounted without a block device.
pub(crate) fn erofs(path: &Path) -> Result<OwnedFd, MountError> {
    let file = File::open(path).map_err(on("open the image's metadata", path))?;
    let erofs = FileSystem::open("erofs")?;
    // By descriptor, because a value given to fsconfig ends at 255 bytes and paths do not.
    erofs.set("source", &format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    erofs.mount(MountAttrFlags::MOUNT_ATTR_RDONLY | INERT).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOTBLK) => MountError::new(
            format!(
                "mount {}: it is on a file system that images cannot be mounted from, such as a tmpfs; keep the \
                 state directory on a disk",
                path.display()
            ),
            io::Error::from_raw_os_error(libc::ENOTBLK),
        ),
        _ => e,
    })
}

/// The directory `path` as a mount of its own.
pub(crate) fn clone_of(path: &Path) -> Result<OwnedFd, MountError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(rustix::fs::CWD, path, flags).map_err(|e| on("clone the mount of", path)(e.into()))
}

/// Lets the owners of a detached layer be seen through the map of `users`.
pub(crate) fn idmap(layer: impl AsFd, users: &UserNamespace) -> Result<(), MountError> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_fd().as_raw_fd() as u64,
    };
    // SAFETY: the descriptors outlive the call, the path is a NUL-terminated constant, and the kernel only reads
    // `attributes`, whose exact size it is given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            layer.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if answer == 0 {
        return Ok(());
    }
    Err(MountError::new("map the owners of a layer to an image's id range", io::Error::last_os_error()))
}

/// Makes `overlay` one of `metadata` over the contents in `objects`.
///
/// `metacopy` stays off: since Linux 6.16 the files of `metadata` find their contents without it, and with it a
/// writable overlay would capture files without their contents.
pub(crate) fn stack(overlay: &FileSystem, metadata: &OwnedFd, objects: &OwnedFd) -> Result<(), MountError> {
    overlay.set_fd("lowerdir+", metadata)?;
    overlay.set_fd("datadir+", objects)?;
    overlay.set("metacopy", "off")?;
    overlay.set("redirect_dir", "follow")
}
