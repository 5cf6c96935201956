//! Looking into a baked image without starting an instance of it.

mod differences;

pub use differences::{Ids, differences};

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use kiln_model::ImageHandle;
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};

/// What a path of an image is asked for.
#[derive(Debug, Clone, Copy)]
pub struct FileCheck<'a> {
    /// Absolute path; links are followed, and never lead out of the image.
    pub path: &'a str,
    /// Permission bits it must have.
    pub mode: Option<u32>,
    /// Name of the user that must own it.
    pub owner: Option<&'a str>,
    /// Text it must contain.
    pub contains: Option<&'a str>,
}

/// The most that is read of a file in search of a text.
const MAX_READ: u64 = 64 << 20;

/// Whether a path of an image is as it should be.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn check_file(image: &ImageHandle, asked: &FileCheck<'_>) -> Result<(), String> {
    let root =
        kiln_mount::composefs(image, None).map_err(|e| format!("the image could not be mounted: {e}"))?;
    let path = asked.path;
    let found =
        open(&root, path, OFlags::PATH).map_err(|e| format!("{path} is not in the image: {}", plain(e)))?;
    let stat = fstat(&found).map_err(|e| format!("{path} could not be looked at: {}", plain(e)))?;
    if let Some(mode) = asked.mode
        && stat.st_mode & 0o7777 != mode
    {
        return Err(format!("{path} has mode {:04o}, expected {mode:04o}", stat.st_mode & 0o7777));
    }
    if let Some(owner) = asked.owner {
        check_owner(&root, path, stat.st_uid, owner)?;
    }
    match asked.contains {
        Some(text) if !read(&root, path)?.contains(text) => Err(format!("{path} does not contain `{text}`")),
        _ => Ok(()),
    }
}

fn check_owner(root: &OwnedFd, path: &str, uid: u32, owner: &str) -> Result<(), String> {
    let wanted = match owner.parse::<u32>() {
        Ok(uid) => Some(uid),
        Err(_) => uid_of(&read(root, "/etc/passwd")?, owner),
    };
    match wanted {
        None => Err(format!("{path} cannot belong to {owner}: the image has no such user")),
        Some(wanted) if wanted != uid => {
            Err(format!("{path} belongs to uid {uid}, expected {owner} ({wanted})"))
        }
        Some(_) => Ok(()),
    }
}

fn uid_of(passwd: &str, name: &str) -> Option<u32> {
    let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    users.find(|fields| fields.first() == Some(&name))?.get(2)?.parse().ok()
}

fn read(root: &OwnedFd, path: &str) -> Result<String, String> {
    let failed = |what: String| format!("{path} could not be read: {what}");
    let file = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(|e| failed(plain(e)))?;
    let mut bytes = Vec::new();
    File::from(file).take(MAX_READ).read_to_end(&mut bytes).map_err(|e| failed(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens a path as if `root` were the root of everything.
fn open(root: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), within)
}

fn plain(error: rustix::io::Errno) -> String {
    std::io::Error::from(error).kind().to_string()
}
