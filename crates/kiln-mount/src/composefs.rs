//! The mount of an image.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_model::ImageHandle;
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::MountAttrFlags;

use crate::error::on;
use crate::file_system::FileSystem;
use crate::layer::{self, INERT};
use crate::{MountError, UserNamespace};

/// Where an image is, whether it has a digest that anybody knows it by or is one that nobody else will see.
#[derive(Debug, Clone, Copy)]
pub struct ImageFiles<'a> {
    /// The metadata file (EROFS).
    pub metadata: &'a Path,
    /// The directory of content objects.
    pub objects: &'a Path,
}

impl<'a> From<&'a ImageHandle> for ImageFiles<'a> {
    fn from(image: &'a ImageHandle) -> Self {
        Self { metadata: &image.metadata, objects: &image.objects }
    }
}

/// Mounts `image` read-only, nosuid and nodev, detached: `move_mount` gives it a place, dropping it unmounts it.
///
/// With `idmap`, user n of the image is the user of the host that the namespace maps n to; ids without a mapping
/// show as the overflow id.
///
/// The metadata file is taken as it is: whoever resolved the handle has compared it with the image's digest.
///
/// # Errors
/// If the kernel refuses any step ([`crate::support`] tells in advance whether it can do them at all), or a path of
/// the handle cannot be opened.
pub fn composefs<'a>(
    image: impl Into<ImageFiles<'a>>,
    idmap: Option<&UserNamespace>,
) -> Result<OwnedFd, MountError> {
    let layers = Layers::of(image.into(), idmap)?;
    let overlay = layers.overlay()?;
    overlay.flag("ro")?;
    overlay.mount(MountAttrFlags::MOUNT_ATTR_RDONLY | INERT)
}

/// Mounts only the metadata of `image`, detached: names, modes, owners, small contents, and the xattrs that say which
/// object holds each large one. For looking at an image without its contents.
///
/// # Errors
/// As [`composefs`].
pub fn metadata<'a>(image: impl Into<ImageFiles<'a>>) -> Result<OwnedFd, MountError> {
    layer::erofs(image.into().metadata)
}

/// Mounts `image` with a writable layer: what changes is found in `upper_dir` afterwards, the image stays as it is.
///
/// Both directories are empty and siblings, for a bake to read and throw away: the mount is `volatile`, so neither
/// survives a crash of the host, and `upper_dir` cannot be mounted again. `upper_dir` itself stands for the root
/// directory: its owner and mode are the ones seen there.
///
/// What is in `upper_dir` is whole: a file whose attributes changed is copied with its content, and renaming a
/// directory of the image answers EXDEV, upon which tools copy it. What is gone is there as overlayfs writes it: a
/// character device 0:0 for a path, the xattr `trusted.overlay.opaque` = `y` on a directory that hides the image's.
/// Owners in `upper_dir` are those of the host ([`UserNamespace::inside`] leads back), because overlayfs, which
/// creates files there as the host's root, cannot do so through a map that lacks that user.
///
/// # Errors
/// As [`composefs`]; also if the directories are not siblings.
pub fn composefs_with_upper<'a>(
    image: impl Into<ImageFiles<'a>>,
    idmap: Option<&UserNamespace>,
    upper_dir: &Path,
    work_dir: &Path,
) -> Result<OwnedFd, MountError> {
    let layers = Layers::of(image.into(), idmap)?;
    let overlay = layers.overlay()?;
    let parent = shared_parent(upper_dir, work_dir)?;
    // Overlayfs wants both inside one mount: two clones would be two.
    let place = layer::clone_of(parent)?;
    overlay.set_fd("upperdir", open_inside(&place, upper_dir)?)?;
    overlay.set_fd("workdir", open_inside(&place, work_dir)?)?;
    // A file stays one file whichever of its names it is changed by.
    overlay.set("index", "on")?;
    overlay.flag("volatile")?;
    overlay.mount(INERT)
}

/// The two layers of an image. They are alive until the overlay over them has been created: a detached mount ends
/// with its descriptor.
struct Layers {
    metadata: OwnedFd,
    objects: OwnedFd,
}

impl Layers {
    fn of(image: ImageFiles<'_>, idmap: Option<&UserNamespace>) -> Result<Self, MountError> {
        let layers =
            Self { metadata: layer::erofs(image.metadata)?, objects: layer::clone_of(image.objects)? };
        if let Some(users) = idmap {
            layer::idmap(&layers.metadata, users)?;
            layer::idmap(&layers.objects, users)?;
        }
        Ok(layers)
    }

    fn overlay(&self) -> Result<FileSystem, MountError> {
        let overlay = FileSystem::open("overlay")?;
        layer::stack(&overlay, &self.metadata, &self.objects)?;
        Ok(overlay)
    }
}

fn shared_parent<'a>(upper_dir: &'a Path, work_dir: &Path) -> Result<&'a Path, MountError> {
    match (upper_dir.parent(), work_dir.parent()) {
        (Some(a), Some(b)) if a == b => Ok(a),
        _ => Err(on("use as upper and work directory, which must be siblings,", upper_dir)(
            io::ErrorKind::InvalidInput.into(),
        )),
    }
}

fn open_inside(place: &OwnedFd, dir: &Path) -> Result<OwnedFd, MountError> {
    let name = dir.file_name().unwrap_or_default();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(place, name, flags, Mode::empty()).map_err(|e| on("open the directory", dir)(e.into()))
}
