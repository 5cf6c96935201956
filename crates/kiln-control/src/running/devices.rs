//! The /dev of a running instance, held against what every instance is given: a node more may lead to the hardware.

use std::collections::BTreeSet;
use std::io;

use kiln_engine::embedded::{Device, devices};
use rustix::fs::{Dir, FileType, OFlags, Stat, fstat, major, makedev, minor, readlinkat};

use super::Running;

/// Of every node.
const MODE: u32 = 0o666;

impl Running {
    /// What of its /dev is not as it was launched with.
    pub(super) fn other_devices(&self) -> Vec<String> {
        let found = match self.in_dev() {
            Ok(found) => found,
            Err(why) => return vec![format!("its /dev cannot be looked through: {why}")],
        };
        let known: BTreeSet<String> = devices().map(|(name, _)| name.to_owned()).collect();
        let more = found.difference(&known);
        let mut differs: Vec<String> =
            more.map(|name| format!("/dev/{name} is nothing an instance is given")).collect();
        differs.extend(devices().filter_map(|(name, device)| self.is_other_device(name, device)));
        differs
    }

    fn in_dev(&self) -> io::Result<BTreeSet<String>> {
        let entries = Dir::new(self.file(b"/dev", OFlags::RDONLY | OFlags::DIRECTORY)?)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.filter(|name| !name.as_ref().is_ok_and(|name| name == "." || name == "..")).collect()
    }

    fn is_other_device(&self, name: &str, expected: Device) -> Option<String> {
        let file = self.file(format!("/dev/{name}").as_bytes(), OFlags::PATH | OFlags::NOFOLLOW);
        let Ok((found, file)) = file.and_then(|file| Ok((fstat(&file)?, file))) else {
            return Some(format!("/dev/{name} is missing"));
        };
        let kind = FileType::from_raw_mode(found.st_mode);
        match expected {
            Device::Node(major, minor) => {
                is_other_node(&found, makedev(major, minor)).map(|what| format!("/dev/{name} {what}"))
            }
            Device::Link(target) => {
                let leads =
                    readlinkat(&file, "", Vec::new()).is_ok_and(|to| to.as_bytes() == target.as_bytes());
                (!leads).then(|| format!("/dev/{name} does not lead to {target}"))
            }
            // What is mounted on it is looked at with the mounts.
            Device::Directory(_) => {
                (kind != FileType::Directory).then(|| format!("/dev/{name} is no directory"))
            }
        }
    }
}

fn is_other_node(found: &Stat, expected: u64) -> Option<String> {
    let (kind, mode) = (FileType::from_raw_mode(found.st_mode), found.st_mode & 0o7777);
    if kind != FileType::CharacterDevice || found.st_rdev != expected {
        let (is, was) = (found.st_rdev, expected);
        return Some(format!(
            "is not the character device {}:{}, but {}:{}",
            major(was),
            minor(was),
            major(is),
            minor(is)
        ));
    }
    (mode != MODE).then(|| format!("has mode {mode:04o} and not {MODE:04o}"))
}
