//! Which controller is mounted where.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A controller instances are limited by. All but the last must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    /// Memory in bytes.
    Memory,
    /// CPU time.
    Cpu,
    /// Processes and threads.
    Pids,
    /// Reading from disks.
    Io,
}

impl Controller {
    /// All of them.
    pub(crate) const ALL: [Controller; 4] =
        [Controller::Memory, Controller::Cpu, Controller::Pids, Controller::Io];
    /// Those without which there are no instances.
    const NEEDED: [Controller; 3] = [Controller::Memory, Controller::Cpu, Controller::Pids];

    /// As the kernel calls it in its v1 hierarchy.
    fn name_in_v1(self) -> &'static str {
        if self == Controller::Io { "blkio" } else { self.name() }
    }

    /// As the kernel calls it in the v2 tree.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
            Controller::Io => "io",
        }
    }

    fn among<'a>(names: impl Iterator<Item = &'a str>, name: fn(Self) -> &'static str) -> Vec<Self> {
        let names: Vec<&str> = names.collect();
        Self::ALL.into_iter().filter(|c| names.contains(&name(*c))).collect()
    }
}

/// Where control groups are managed on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The v2 tree.
    pub(crate) unified: PathBuf,
    /// The controllers it has.
    pub(crate) in_unified: Vec<Controller>,
    /// The v1 hierarchies with the controllers each has.
    pub(crate) v1: Vec<(PathBuf, Vec<Controller>)>,
}

impl Layout {
    /// That of this host.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(crate) fn of_this_host() -> Result<Self, String> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|e| format!("/proc/self/mountinfo cannot be read: {e}"))?;
        Self::read(&mountinfo, |tree| fs::read_to_string(tree.join("cgroup.controllers")).unwrap_or_default())
    }

    /// Reads the text of /proc/self/mountinfo. `controllers_of` reads `cgroup.controllers` of a v2 tree.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(crate) fn read(mountinfo: &str, controllers_of: impl Fn(&PathBuf) -> String) -> Result<Self, String> {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
        let unified = mounts.iter().find(|m| m.kind == "cgroup2").ok_or(NO_UNIFIED)?.point.clone();
        let in_unified = Controller::among(controllers_of(&unified).split_whitespace(), Controller::name);
        let mut layout = Self { unified, in_unified, v1: Vec::new() };
        for mount in mounts.iter().filter(|m| m.kind == "cgroup") {
            let new = Controller::among(mount.options.split(','), Controller::name_in_v1);
            let new: Vec<Controller> = new.into_iter().filter(|c| !layout.has(*c)).collect();
            if !new.is_empty() {
                layout.v1.push((mount.point.clone(), new));
            }
        }
        match Controller::NEEDED.into_iter().find(|c| !layout.has(*c)) {
            Some(missing) => Err(format!("{NO_CONTROLLER} `{}`", missing.name())),
            None => Ok(layout),
        }
    }

    /// Whether the controller is anywhere.
    pub(crate) fn has(&self, controller: Controller) -> bool {
        let v1 = self.v1.iter().flat_map(|(_, controllers)| controllers);
        self.in_unified.iter().chain(v1).any(|c| *c == controller)
    }
}

const NO_UNIFIED: &str =
    "no cgroup2 filesystem is mounted: mount one, at /sys/fs/cgroup or /sys/fs/cgroup/unified";
const NO_CONTROLLER: &str =
    "limits cannot be set: neither cgroup2 nor a mounted v1 hierarchy has the controller";

/// One line of the mount table.
struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
    fn parse(line: &'a str) -> Option<Self> {
        let (place, filesystem) = line.split_once(" - ")?;
        let point = place.split(' ').nth(4)?;
        let mut filesystem = filesystem.split(' ');
        let (kind, _source, options) = (filesystem.next()?, filesystem.next()?, filesystem.next()?);
        Some(Self { point: unescaped(point), kind, options })
    }
}

/// Blanks, tabs, newlines and backslashes are written as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[3..]);
            }
            None => bytes.extend(part.as_bytes()),
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::Controller::{Cpu, Io, Memory, Pids};
    use super::*;

    /// Every controller in a v1 hierarchy of its own.
    const SEPARATE: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    /// systemd's hybrid mode: cpu and cpuacct share one.
    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
31 24 0:27 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd
35 24 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct
37 24 0:33 / /sys/fs/cgroup/pids rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,pids
39 24 0:35 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:19 - cgroup cgroup rw,memory
";

    /// systemd's default since version 247.
    const PURE: &str = "\
25 30 0:23 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
29 25 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";

    fn read(mountinfo: &str, controllers: &str) -> Result<Layout, String> {
        Layout::read(mountinfo, |_| controllers.to_owned())
    }

    #[test]
    fn controllers_in_hierarchies_of_their_own() {
        let layout = read(SEPARATE, "hugetlb\n").unwrap();
        assert_eq!(layout.unified, PathBuf::from("/sys/fs/cgroup/unified"));
        assert_eq!(layout.in_unified, []);
        let at = |name: &str| PathBuf::from("/sys/fs/cgroup").join(name);
        let v1 = [("cpu", Cpu), ("blkio", Io), ("memory", Memory), ("pids", Pids)];
        assert_eq!(layout.v1, v1.map(|(name, controller)| (at(name), vec![controller])));
    }

    #[test]
    fn controllers_that_share_a_hierarchy_or_are_in_the_unified_one() {
        let layout = read(HYBRID, "").unwrap();
        assert!(!layout.has(Io), "it may lack");
        assert_eq!(layout.v1[0], (PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"), vec![Cpu]));
        let layout = read(PURE, "cpuset cpu io memory hugetlb pids rdma misc\n").unwrap();
        assert_eq!(layout.unified, PathBuf::from("/sys/fs/cgroup"));
        assert_eq!((layout.in_unified, layout.v1), (vec![Memory, Cpu, Pids, Io], vec![]));
    }

    #[test]
    fn each_controller_is_looked_for_by_itself() {
        let layout = read(SEPARATE, "memory pids").unwrap();
        assert_eq!(layout.in_unified, [Memory, Pids]);
        let at = |name: &str| PathBuf::from("/sys/fs/cgroup").join(name);
        assert_eq!(layout.v1, [(at("cpu"), vec![Cpu]), (at("blkio"), vec![Io])]);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(read("", "").unwrap_err(), NO_UNIFIED);
        assert!(read(PURE, "cpu memory").unwrap_err().ends_with("the controller `pids`"));
    }

    #[test]
    fn mount_points_are_unescaped() {
        let line = r"29 25 0:26 / /sys/a\040b\134c rw - cgroup2 cgroup2 rw";
        assert_eq!(read(line, "cpu memory pids").unwrap().unified, PathBuf::from(r"/sys/a b\c"));
    }
}
