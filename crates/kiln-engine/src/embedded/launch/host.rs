//! What every launch on this host needs and none changes: learned once, when the keeper starts.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, open, openat};
use rustix::process::{Resource, getrlimit};

use super::super::seccomp;
use super::template;
use super::times::TimesFile;

/// A path below /proc that is covered.
pub(super) struct Mask {
    pub(super) path: CString,
    /// What covers it; of the same kind, because the kernel mounts files on files only.
    pub(super) cover: &'static CStr,
}

/// Facts and descriptors of this host.
pub(crate) struct Host {
    /// /proc, whatever becomes of the mount namespace.
    pub(crate) proc: OwnedFd,
    /// The host's own mount namespace, in which paths of images are looked up.
    pub(super) mounts: OwnedFd,
    /// The host's own network namespace.
    pub(crate) network: OwnedFd,
    /// The host's own process namespace.
    pub(super) processes: OwnedFd,
    pub(super) filter: Vec<libc::sock_filter>,
    /// Of those that asked to call `chroot`.
    pub(super) filter_with_chroot: Vec<libc::sock_filter>,
    pub(super) masks: Vec<Mask>,
    pub(super) last_capability: u32,
    pub(super) has_memfd_noexec: bool,
    pub(crate) most_files: u64,
    /// Where it is written how long launches take.
    pub(crate) times: Option<TimesFile>,
}

/// What tells about the host or other instances, or reaches into the kernel. /proc/sys and the rest are read-only
/// with the whole of /proc, and what only the host's root may read is nobody's inside.
const MASKED: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

/// Covers masked directories: an empty one that cannot be looked into.
pub(super) const EMPTY_DIR: &CStr = c"/dev/.masked";

/// The paths below /proc that are covered in every instance on this host, and what of /dev covers each.
pub fn covered_paths() -> impl Iterator<Item = (String, &'static str)> {
    let masks = MASKED.iter().filter_map(|name| Mask::of(name));
    masks.filter_map(|mask| Some((mask.path.into_string().ok()?, mask.cover.to_str().ok()?)))
}

impl Host {
    /// Learns what there is to know.
    pub(crate) fn learn() -> io::Result<Self> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            proc: open("/proc", directory, Mode::empty())?,
            mounts: File::open("/proc/self/ns/mnt")?.into(),
            network: File::open("/proc/self/ns/net")?.into(),
            processes: File::open("/proc/self/ns/pid")?.into(),
            filter: seccomp::filter(),
            filter_with_chroot: seccomp::filter_with_chroot(),
            masks: MASKED.iter().filter_map(|name| Mask::of(name)).collect(),
            last_capability: read_number("/proc/sys/kernel/cap_last_cap")?,
            has_memfd_noexec: fs::exists("/proc/sys/vm/memfd_noexec")?,
            most_files: getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20),
            times: None,
        })
    }

    /// The directory of processes.
    pub(crate) fn proc(&self) -> &OwnedFd {
        &self.proc
    }

    /// Makes the host's mount namespace the one of the calling process, which must have one thread only.
    pub(super) fn return_to_mounts(&self) -> io::Result<()> {
        template::enter(&self.mounts)
    }

    /// Opens a file about a process.
    pub(crate) fn open_proc(&self, pid: u32, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(openat(&self.proc, format!("{pid}/{file}"), flags | OFlags::CLOEXEC, Mode::empty())?)
    }
}

impl Mask {
    /// The mask of a path, if this host has it.
    fn of(name: &str) -> Option<Self> {
        let path = format!("/proc/{name}");
        let found = rustix::fs::statat(CWD, &path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_dir = rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir();
        Some(Self { path: CString::new(path).ok()?, cover: if is_dir { EMPTY_DIR } else { c"/dev/null" } })
    }
}

fn read_number(path: &str) -> io::Result<u32> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}
