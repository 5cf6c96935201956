//! A running process as the kernel shows it: its root, its mounts, its rights.

mod launched;
mod limits;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use kiln_bake::inspect::Ids;
use kiln_model::{ReleaseService, RunSettings, hosts_file, inside};
use rustix::fs::{Mode, OFlags, fstat, open};

use launched::Launched;
use limits::Groups;

/// What `/proc` says of a process. All of it is read at once; a process that ends meanwhile is an error.
#[derive(Debug)]
pub(crate) struct Running {
    proc: PathBuf,
    ids: Ids,
    status: String,
    mounts: String,
    launched: Launched,
    groups: Groups,
}

/// A line of `mountinfo`: where, and how it may be used.
struct Mount<'a> {
    at: &'a str,
    options: &'a str,
}

impl Running {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let text = |name: &str| fs::read_to_string(proc.join(name));
        let ids = Ids { users: id_map(&text("uid_map")?), groups: id_map(&text("gid_map")?) };
        let (status, mounts) = (text("status")?, text("mountinfo")?);
        let launched = Launched::of(&proc)?;
        let groups = Groups::of(&text("cgroup")?, &fs::read_to_string("/proc/self/mountinfo")?);
        Ok(Self { ids, status, mounts, launched, groups, proc })
    }

    pub(crate) fn is_there(&self) -> bool {
        self.proc.join("root").read_link().is_ok()
    }

    pub(crate) fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Its root directory.
    pub(crate) fn root(&self) -> io::Result<File> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root: OwnedFd = open(self.proc.join("root"), flags, Mode::empty())?;
        Ok(File::from(root))
    }

    /// The file system its root is on.
    pub(crate) fn root_device(&self, root: &File) -> io::Result<u64> {
        Ok(fstat(root)?.st_dev)
    }

    /// What is not as `service` says of its arguments, its environment, its limits, and whom it knows by name.
    pub(crate) fn is_not_as_ordered(&self, service: &ReleaseService) -> Vec<String> {
        let given: BTreeSet<&str> = service.secrets.values().filter_map(|s| s.env.as_deref()).collect();
        let mut differs = self.launched.differs(&service.run.argv, &service.env, &given);
        differs.extend(self.groups.differs(service.limits));
        differs.extend(self.other_names(service));
        differs
    }

    /// The image's own file does where nothing is needed.
    fn other_names(&self, service: &ReleaseService) -> Option<String> {
        let expected = hosts_file(&inside(&service.needs, service.port));
        let found = fs::read_to_string(self.proc.join("root/etc/hosts")).ok();
        let differs = !service.needs.is_empty() && found != Some(expected);
        differs.then(|| "/etc/hosts does not say what its release needs".to_owned())
    }

    /// What is not as every instance has it, or not as `run` says. Mounts are allowed at and below `allowed`.
    pub(crate) fn differs(&self, run: &RunSettings, allowed: &[&str]) -> Vec<String> {
        let mut differs = self.mounted(allowed);
        for (what, field, inside, map) in
            [("user", "Uid", run.uid, &self.ids.users), ("group", "Gid", run.gid, &self.ids.groups)]
        {
            let expected = Ids::outside(map, inside);
            let found = self.field(field).and_then(|ids| ids.split_ascii_whitespace().next()?.parse().ok());
            if found != expected {
                differs.push(format!("its main process does not run as {what} {inside} of its release"));
            }
        }
        for (field, expected, means) in [
            ("CapEff", "0000000000000000", "its main process has capabilities"),
            ("CapBnd", "0000000000000000", "its main process could be given capabilities"),
            ("NoNewPrivs", "1", "its main process may gain privileges"),
            ("Seccomp", "2", "its system calls are not filtered"),
        ] {
            if self.field(field) != Some(expected) {
                differs.push(means.to_owned());
            }
        }
        differs
    }

    fn field(&self, name: &str) -> Option<&str> {
        let value = |line: &'_ str| line.strip_prefix(name)?.strip_prefix(':').map(str::len);
        let (line, length) = self.status.lines().find_map(|line| Some((line, value(line)?)))?;
        Some(line[line.len() - length..].trim())
    }

    fn mounted(&self, allowed: &[&str]) -> Vec<String> {
        let below = |path: &str, dir: &str| path == dir || path.starts_with(&format!("{dir}/"));
        let mut differs = Vec::new();
        let mut roots = 0;
        for mount in self.mounts.lines().filter_map(Mount::of) {
            if mount.at == "/" {
                roots += 1;
                if !mount.options.split(',').any(|option| option == "ro") {
                    differs.push("its root can be written".to_owned());
                }
            } else if !allowed.iter().any(|dir| below(mount.at, dir)) {
                differs.push(format!("{} is covered by a mount that its release does not declare", mount.at));
            }
        }
        if roots != 1 {
            differs.push(format!("{roots} mounts are at its root, not one"));
        }
        differs
    }
}

impl<'a> Mount<'a> {
    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime …`
    fn of(line: &'a str) -> Option<Self> {
        let mut fields = line.split(' ').skip(4);
        Some(Self { at: fields.next()?, options: fields.next()? })
    }
}

/// `0 100000 65536`, each line: where it begins inside, outside, and how many.
fn id_map(text: &str) -> Vec<(u32, u32, u32)> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|n| n.parse().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    };
    text.lines().filter_map(line).collect()
}
