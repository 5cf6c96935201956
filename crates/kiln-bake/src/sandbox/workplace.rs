//! The private mounts in which a tree with a writable layer is put together. They exist in a mount namespace that
//! only one thread of this process has: nothing of them can be seen from outside, and with the thread they are gone.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use kiln_mount::{IdRange, ImageFiles, MountError, UserNamespace, composefs_with_upper};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, makedev, mknodat, openat2};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, mount, mount_bind, mount_change, move_mount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::Network;

/// The ids of the host that stand for those of the tree: far from any that people or systems are given.
pub(crate) const HOST_IDS: IdRange = IdRange { inside: 0, outside: 1_879_048_192, count: 65_536 };

/// A directory that every host has and that a bake never looks into: mounted over, for this thread alone.
const PLACE: &str = "/sys";

const NAME_SERVERS: &str = "/etc/resolv.conf";
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 4] =
    [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];

/// What kept a workplace from being made.
#[derive(Debug, thiserror::Error)]
pub enum WorkplaceError {
    /// The image could not be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A system call failed.
    #[error("could not {attempted}")]
    System {
        /// What was attempted.
        attempted: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

fn system<E: Into<io::Error>>(attempted: &'static str) -> impl Fn(E) -> WorkplaceError {
    move |e| WorkplaceError::System { attempted, source: e.into() }
}

/// Runs `work` on a thread with mounts of its own.
pub(crate) fn in_private_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, WorkplaceError> {
    let body = || -> Result<T, WorkplaceError> {
        // SAFETY: this thread gets its own mount namespace and working directory; no other thread is affected, and
        // no descriptor table is unshared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(system("make a mount namespace"))?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(system("keep mounts to one thread"))?;
        Ok(work())
    };
    thread::scope(|scope| match scope.spawn(body).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// An image mounted with a writable layer, as far as a host can prepare it: all but `/proc`.
pub(crate) struct Workplace {
    /// Where it is mounted.
    pub(crate) root: PathBuf,
    /// What was written, as overlayfs keeps it.
    pub(crate) upper: PathBuf,
    /// Its users.
    pub(crate) users: UserNamespace,
}

impl Workplace {
    /// Only for a thread of [`in_private_mounts`].
    pub(crate) fn new(image: ImageFiles<'_>, network: Network) -> Result<Self, WorkplaceError> {
        let users = UserNamespace::new(&[HOST_IDS])?;
        mount("kiln", PLACE, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755")
            .map_err(system("mount a tmpfs to work in"))?;
        let dir = |name: &str| -> Result<PathBuf, WorkplaceError> {
            let path = Path::new(PLACE).join(name);
            fs::create_dir(&path).map_err(system("make a directory to work in"))?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))
                .map_err(system("set the mode of a directory to work in"))?;
            Ok(path)
        };
        let (root, upper, work) = (dir("root")?, dir("upper")?, dir("work")?);
        let image = composefs_with_upper(image, Some(&users), &upper, &work)?;
        move_mount(&image, "", CWD, &root, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(system("give the image's mount a place"))?;
        // The kernel shows the root of an overlay with the upper directory's own owner, past the id map, until it is
        // set once.
        chown(&root, Some(HOST_IDS.outside), Some(HOST_IDS.outside))
            .map_err(system("give the tree to its root user"))?;
        devices(&root.join("dev"))?;
        if network == Network::Host {
            name_servers(&root)?;
        }
        Ok(Self { root, upper, users })
    }
}

/// The host's name servers, mounted over the image's own file wherever its links lead: nothing of them is written.
fn name_servers(root: &Path) -> Result<(), WorkplaceError> {
    let failed = system("give the tree the host's name servers (/etc/resolv.conf of both)");
    let open = |flags| rustix::fs::open(root, flags | OFlags::CLOEXEC, Mode::empty());
    let tree = open(OFlags::PATH | OFlags::DIRECTORY).map_err(&failed)?;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let place = openat2(&tree, NAME_SERVERS, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), within);
    let place = place.map_err(&failed)?;
    mount_bind(NAME_SERVERS, format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(&failed)
}

/// A `/dev` with what programs cannot do without.
fn devices(dev: &Path) -> Result<(), WorkplaceError> {
    let failed = system("make /dev");
    let owner = HOST_IDS.outside;
    mount("kiln", dev, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=0755")
        .map_err(system("mount /dev"))?;
    chown(dev, Some(owner), Some(owner)).map_err(&failed)?;
    for (name, major, minor) in DEVICES {
        let path = dev.join(name);
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))
            .map_err(system("make a device"))?;
        // The umask of this process does not count.
        fs::set_permissions(&path, Permissions::from_mode(0o666)).map_err(&failed)?;
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name)).map_err(&failed)?;
    }
    let shm = dev.join("shm");
    fs::create_dir(&shm).map_err(&failed)?;
    fs::set_permissions(&shm, Permissions::from_mode(0o1777)).map_err(&failed)
}
