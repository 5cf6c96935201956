//! Whether this host can mount images.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::mount::MountAttrFlags;

use crate::file_system::FileSystem;
use crate::layer::{self, INERT};
use crate::{IdRange, MountError, UserNamespace};

/// What a host lacks to mount images, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// The right to mount.
    #[error("mounting needs root (CAP_SYS_ADMIN in the host's own user namespace): run this as root")]
    Privilege(#[source] MountError),
    /// A filesystem type.
    #[error("the kernel has no {name}: load the module `{name}`, or run a kernel built with {option}")]
    FileSystem {
        /// The type, also its module's name.
        name: &'static str,
        /// The kernel's build option.
        option: &'static str,
        /// What the kernel answered.
        source: MountError,
    },
    /// EROFS mounts of files.
    #[error(
        "the kernel mounts EROFS from block devices only: it needs Linux 6.12 or newer with \
             CONFIG_EROFS_FS_BACKED_BY_FILE"
    )]
    FileBackedErofs(#[source] MountError),
    /// User namespaces.
    #[error(
        "user namespaces cannot be made: they need CONFIG_USER_NS, and `sysctl user.max_user_namespaces` \
             above 0"
    )]
    UserNamespaces(#[source] MountError),
    /// Mounts seen through an id map.
    #[error("mounts cannot be idmapped: that needs Linux 6.3 or newer")]
    IdMappedMounts(#[source] MountError),
    /// Overlays of detached layers, the last of them data-only.
    #[error("overlayfs does not take detached data-only layers: that needs Linux 6.16 or newer")]
    DetachedLayers(#[source] MountError),
}

/// Tries everything a mount of an image needs on empty filesystems, and says what is missing.
///
/// Trying is better than comparing versions: distributions backport, build options differ, and policies forbid.
///
/// # Errors
/// The first thing that is missing.
pub fn support() -> Result<(), Missing> {
    let erofs = file_system("erofs", "CONFIG_EROFS_FS")?;
    let overlay = file_system("overlay", "CONFIG_OVERLAY_FS")?;
    file_backed(&erofs)?;
    // A range without privilege on the host, though nothing is ever run in it.
    let users = UserNamespace::new(&[IdRange { inside: 0, outside: 65534, count: 1 }])
        .map_err(Missing::UserNamespaces)?;
    stack_detached(&overlay, &users)
}

fn file_system(name: &'static str, option: &'static str) -> Result<FileSystem, Missing> {
    FileSystem::open(name).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM) => Missing::Privilege(source),
        _ => Missing::FileSystem { name, option, source },
    })
}

/// A regular file that surely is no EROFS image is refused either way, but for different reasons.
fn file_backed(erofs: &FileSystem) -> Result<(), Missing> {
    let no_image = File::open("/proc/self/exe")
        .map_err(|e| Missing::FileBackedErofs(MountError::new("open the running program", e)))?;
    let source = format!("/proc/self/fd/{}", no_image.as_raw_fd());
    match erofs.set("source", &source).and_then(|()| erofs.create()) {
        Err(e) if e.raw_os_error() == Some(libc::ENOTBLK) => Err(Missing::FileBackedErofs(e)),
        _ => Ok(()),
    }
}

fn stack_detached(overlay: &FileSystem, users: &UserNamespace) -> Result<(), Missing> {
    let layers = [empty_layer()?, empty_layer()?];
    for each in &layers {
        layer::idmap(each, users).map_err(Missing::IdMappedMounts)?;
    }
    let stack = || {
        layer::stack(overlay, &layers[0], &layers[1])?;
        overlay.flag("ro")?;
        overlay.create()
    };
    stack().map_err(Missing::DetachedLayers)
}

fn empty_layer() -> Result<OwnedFd, Missing> {
    file_system("tmpfs", "CONFIG_TMPFS")?
        .mount(MountAttrFlags::MOUNT_ATTR_RDONLY | INERT)
        .map_err(|source| Missing::FileSystem { name: "tmpfs", option: "CONFIG_TMPFS", source })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_host_that_runs_these_tests_has_it_all() {
        super::support().expect("these tests need root and Linux 6.16");
    }
}
