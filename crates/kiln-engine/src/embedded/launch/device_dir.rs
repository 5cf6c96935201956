//! The /dev of instances: what every program may expect, and nothing that leads to hardware.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, chmodat, makedev, mkdirat, mknodat, symlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use super::error::LaunchError;

/// Character devices by major and minor number.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Directories with their modes: the mount point of /dev/shm, and the cover of masked directories.
const DIRECTORIES: [(&str, u32); 2] = [("shm", 0o755), (".masked", 0)];

/// Something in the /dev of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A character device, by its major and minor number; everybody may read and write it.
    Node(u32, u32),
    /// A link, and where it leads.
    Link(&'static str),
    /// A directory, with its mode.
    Directory(u32),
}

/// All that is in the /dev of an instance, by name.
pub fn devices() -> impl Iterator<Item = (&'static str, Device)> {
    let nodes = NODES.into_iter().map(|(name, major, minor)| (name, Device::Node(major, minor)));
    let links = LINKS.into_iter().map(|(name, target)| (name, Device::Link(target)));
    nodes.chain(links).chain(DIRECTORIES.into_iter().map(|(name, mode)| (name, Device::Directory(mode))))
}

/// Makes such a directory, detached and read-only; one serves all instances of an image.
pub(super) fn mount() -> Result<OwnedFd, LaunchError> {
    make().map_err(|e| LaunchError::new("make a /dev", e))
}

fn make() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", "64k"), ("nr_inodes", "64"), ("mode", "0755")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    // Not nodev: these are the only device nodes an instance has.
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let dev = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    fill(&dev)?;
    read_only(&dev)?;
    Ok(dev)
}

fn fill(dev: &OwnedFd) -> io::Result<()> {
    for (name, major, minor) in NODES {
        mknodat(dev, name, FileType::CharacterDevice, Mode::empty(), makedev(major, minor))?;
        // Explicitly, because whatever umask there is would bite.
        chmodat(dev, name, Mode::from_raw_mode(0o666), AtFlags::empty())?;
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name)?;
    }
    for (name, mode) in DIRECTORIES {
        mkdirat(dev, name, Mode::empty())?;
        chmodat(dev, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    Ok(())
}

/// Makes a detached mount read-only.
pub(super) fn read_only(mount: &OwnedFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a NUL-terminated constant, and the kernel only reads `attributes`, whose size it is given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
