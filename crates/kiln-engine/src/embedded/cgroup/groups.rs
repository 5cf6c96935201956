//! The control groups of one host root.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_model::{InstanceId, Limits};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, open, openat, unlinkat};
use rustix::io::Errno;

use super::setting::{self, Setting};
use super::{Allowance, Controller, Layout};

/// The directories in which an instance has a group each, held open: they are reached from any mount namespace.
pub(crate) struct Groups {
    unified: Hierarchy,
    v1: Vec<Hierarchy>,
}

/// Whose memory was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanting {
    /// The instance's: it reached its limit.
    ItsOwn,
    /// That of the host, or of a group around ours.
    TheHosts,
}

/// Our directory in one hierarchy.
struct Hierarchy {
    path: PathBuf,
    /// The root of the hierarchy, and the directory.
    root: OwnedFd,
    dir: OwnedFd,
    controllers: Vec<Controller>,
    is_v2: bool,
}

/// Why reading from disks cannot be limited on a host.
pub(crate) const NO_IO: &str = "reading from disks cannot be limited: neither cgroup2 has the controller `io` nor is a \
                                v1 hierarchy with `blkio` mounted";

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Groups {
    /// Makes or finds the directories `name`.
    ///
    /// # Errors
    /// What was attempted, on what, and the system's answer.
    pub(crate) fn open(layout: &Layout, name: &str) -> Result<Self, (String, io::Error)> {
        let unified = Hierarchy::open(&layout.unified, name, &layout.in_unified, true)?;
        let v1 = layout.v1.iter().map(|(root, controllers)| Hierarchy::open(root, name, controllers, false));
        Ok(Self { unified, v1: v1.collect::<Result<_, _>>()? })
    }

    /// Removes the directories `name` that are there and empty, without opening any of them.
    pub(crate) fn remove_empty(layout: &Layout, name: &str) {
        let roots = layout.v1.iter().map(|(root, _)| root).chain([&layout.unified]);
        // One that is not empty stays.
        roots.for_each(|root| drop(fs::remove_dir(root.join(name))));
    }

    /// Whether there is a controller for it.
    pub(crate) fn can_limit_reading(&self) -> bool {
        self.all().any(|h| h.controllers.contains(&Controller::Io))
    }

    /// Makes the v2 group of an instance, with the limits that are set there.
    pub(crate) fn create_leaf(&self, id: &InstanceId, allowed: Allowance<'_>) -> io::Result<()> {
        self.unified.create(id.as_str(), allowed)
    }

    /// Makes the other groups of an instance, with its other limits.
    pub(crate) fn create_others(&self, id: &InstanceId, allowed: Allowance<'_>) -> io::Result<()> {
        self.v1.iter().filter(|h| h.is_for(allowed)).try_for_each(|h| h.create(id.as_str(), allowed))
    }

    /// What is to be set in each of those that every instance has.
    pub(crate) fn settings_of_others(&self, limits: &Limits) -> Vec<Vec<Setting>> {
        let allowed = Allowance { limits, io: None };
        self.v1.iter().filter(|h| !h.is_for_reading()).map(|h| h.settings(allowed)).collect()
    }

    /// Our directories in the v1 hierarchies in which every instance has a group: a process joins those by itself.
    pub(crate) fn others(&self) -> Vec<BorrowedFd<'_>> {
        self.v1.iter().filter(|h| !h.is_for_reading()).map(|h| h.dir.as_fd()).collect()
    }

    /// Puts a process into the v1 group for reading from disks, which only those have that are limited in it.
    pub(crate) fn join_for_reading(&self, id: &InstanceId, pid: u32) -> io::Result<()> {
        let pid = pid.to_string();
        let for_reading = self.v1.iter().filter(|h| h.is_for_reading());
        for_reading.into_iter().try_for_each(|h| h.write(&format!("{id}/cgroup.procs"), &pid))
    }

    /// The v2 group of an instance, to be born into.
    pub(crate) fn leaf(&self, id: &InstanceId) -> io::Result<OwnedFd> {
        Ok(openat(&self.unified.dir, id.as_str(), PATH_ONLY, Mode::empty())?)
    }

    /// Puts a process into the v1 groups of an instance.
    pub(crate) fn join(&self, id: &InstanceId, pid: u32) -> io::Result<()> {
        let pid = pid.to_string();
        let join = |h: &Hierarchy| match h.write(&format!("{id}/cgroup.procs"), &pid) {
            // One without such a limit has no group there.
            Err(e) if e.kind() == io::ErrorKind::NotFound && h.is_for_reading() => Ok(()),
            joined => joined,
        };
        self.v1.iter().try_for_each(join)
    }

    /// Kills everything in the groups of the given name, whoever's child it is.
    pub(crate) fn kill(&self, name: &str) -> io::Result<()> {
        self.unified.write(&format!("{name}/cgroup.kill"), "1")
    }

    /// Whose memory it was that was wanting, if the kernel killed in the groups of an instance.
    pub(crate) fn want_of_memory(&self, id: &InstanceId) -> Option<Wanting> {
        let memory = self.all().find(|h| h.controllers.contains(&Controller::Memory))?;
        let read = |file: &str| memory.read(&format!("{id}/{file}"));
        let events = read(setting::memory_events(memory.is_v2)).ok()?;
        if setting::oom_kills(&events) == 0 {
            return None;
        }
        let reached = match memory.is_v2 {
            true => setting::reached_in_v2(&events),
            false => {
                let [most, limit] =
                    setting::MOST_AND_LIMIT_IN_V1.map(|file| read(file).ok()?.trim().parse::<u64>().ok());
                setting::reached_in_v1(most?, limit?)
            }
        };
        Some(if reached { Wanting::ItsOwn } else { Wanting::TheHosts })
    }

    /// How many processes and threads an instance may have, if the kernel has refused it one more.
    pub(crate) fn want_of_processes(&self, id: &InstanceId) -> Option<u64> {
        let pids = self.all().find(|h| h.controllers.contains(&Controller::Pids))?;
        let events = pids.read(&format!("{id}/{}", setting::PIDS_EVENTS)).ok()?;
        let most = || pids.read(&format!("{id}/{}", setting::PIDS_MAX)).ok()?.trim().parse().ok();
        if setting::has_refused(&events) { most() } else { None }
    }

    /// Removes the groups of the given name, those that are there.
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] as long as the kernel has not let go of the last process.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.all().try_for_each(|h| match unlinkat(&h.dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        })
    }

    /// The names of all groups there are, in any hierarchy, sorted.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for hierarchy in self.all() {
            for entry in fs::read_dir(&hierarchy.path)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    names.extend(entry.file_name().into_string());
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Removes our directories themselves, which are empty.
    pub(crate) fn dissolve(&self) -> io::Result<()> {
        let name = |h: &Hierarchy| h.path.file_name().unwrap_or_default().to_owned();
        self.all().try_for_each(|h| match unlinkat(&h.root, name(h), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        })
    }

    fn all(&self) -> impl Iterator<Item = &Hierarchy> {
        self.v1.iter().chain([&self.unified])
    }
}

impl Hierarchy {
    fn open(
        root: &Path,
        name: &str,
        controllers: &[Controller],
        is_v2: bool,
    ) -> Result<Self, (String, io::Error)> {
        let path = root.join(name);
        let on = |what: &str, path: &Path| format!("{what} {}", path.display());
        if is_v2 {
            delegate(root, controllers)
                .map_err(|e| (on("hand down controllers of the control group", root), e))?;
        }
        match mkdirat(CWD, &path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err((on("make the control group", &path), e.into())),
        }
        if is_v2 {
            delegate(&path, controllers)
                .map_err(|e| (on("hand down controllers of the control group", &path), e))?;
        }
        let held = |path: &Path| {
            open(path, PATH_ONLY, Mode::empty()).map_err(|e| (on("open the control group", path), e.into()))
        };
        let (root, dir) = (held(root)?, held(&path)?);
        Ok(Self { path, root, dir, controllers: controllers.to_vec(), is_v2 })
    }

    /// Whether it has the controller of reading from disks, and no other.
    fn is_for_reading(&self) -> bool {
        self.controllers == [Controller::Io]
    }

    /// Whether instances that are allowed so much have a group here.
    fn is_for(&self, allowed: Allowance<'_>) -> bool {
        allowed.io.is_some() || !self.is_for_reading()
    }

    fn create(&self, name: &str, allowed: Allowance<'_>) -> io::Result<()> {
        mkdirat(&self.dir, name, Mode::from_raw_mode(0o755))?;
        self.settings(allowed).iter().try_for_each(|s| self.apply(name, s))
    }

    fn settings(&self, allowed: Allowance<'_>) -> Vec<Setting> {
        let of = if self.is_v2 { setting::in_v2 } else { setting::in_v1 };
        self.controllers.iter().flat_map(|c| of(*c, allowed)).collect()
    }

    fn apply(&self, name: &str, setting: &Setting) -> io::Result<()> {
        match self.write(&format!("{name}/{}", setting.file), &setting.value) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && setting.is_optional => Ok(()),
            other => other,
        }
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let file = openat(&self.dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, text.as_bytes())?;
        Ok(())
    }

    /// These files are a few lines long.
    fn read(&self, file: &str) -> io::Result<String> {
        let file = openat(&self.dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = [0; 1024];
        let length = rustix::io::read(&file, &mut text)?;
        Ok(String::from_utf8_lossy(&text[..length]).into_owned())
    }
}

/// Lets the groups below `dir` have controllers of the v2 tree.
fn delegate(dir: &Path, controllers: &[Controller]) -> io::Result<()> {
    let file = dir.join("cgroup.subtree_control");
    let has = fs::read_to_string(&file)?;
    let missing = controllers.iter().filter(|c| !has.split_whitespace().any(|name| name == c.name()));
    let missing: Vec<String> = missing.map(|c| format!("+{}", c.name())).collect();
    if missing.is_empty() { Ok(()) } else { fs::write(&file, missing.join(" ")) }
}

#[cfg(test)]
mod tests {
    use kiln_model::ByteSize;

    use super::*;

    fn this_hosts() -> Layout {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let controllers = |tree: &PathBuf| fs::read_to_string(tree.join("cgroup.controllers")).unwrap();
        Layout::read(&mountinfo, controllers).expect("these tests need control groups")
    }

    #[test]
    fn groups_are_made_with_limits_and_leave_nothing() {
        let name = format!("kiln-test-{}", std::process::id());
        let groups = Groups::open(&this_hosts(), &name).expect("these tests need root");
        let id: InstanceId = "app-web-1-1".parse().unwrap();
        let limits = Limits { memory: ByteSize(32 << 20), cpu_millis: 250, pids: 7, io: None };
        let allowed = Allowance { limits: &limits, io: None };
        groups.create_leaf(&id, allowed).unwrap();
        groups.create_others(&id, allowed).unwrap();
        let pids = groups.all().find(|h| h.controllers.contains(&Controller::Pids)).unwrap();
        assert_eq!(pids.read("app-web-1-1/pids.max").unwrap().trim(), "7");
        assert_eq!(groups.want_of_memory(&id), None);
        groups.kill(id.as_str()).unwrap();
        assert_eq!(groups.names().unwrap(), ["app-web-1-1"]);
        groups.remove(id.as_str()).unwrap();
        groups.remove(id.as_str()).expect("removing is safe to repeat");
        let paths: Vec<PathBuf> = groups.all().map(|h| h.path.clone()).collect();
        groups.dissolve().unwrap();
        assert!(paths.iter().all(|p| !p.exists()));
    }

    /// What needs no controller is done in a v2 tree that is alone, and the limits of those that are there are set.
    #[test]
    fn a_tree_without_any_v1_beside_it_is_enough() {
        // A thread with a mount namespace of its own.
        std::thread::spawn(in_a_tree_alone).join().unwrap();
    }

    fn in_a_tree_alone() {
        use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
        const TREE: &str = "/sys/fs/cgroup";
        // SAFETY: it changes what this thread sees, which nobody else relies on.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
            .expect("these tests need root");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        unmount(TREE, UnmountFlags::DETACH).unwrap();
        mount("none", TREE, "cgroup2", MountFlags::empty(), None).unwrap();
        let mountinfo = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let there = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
        let has = |c: &Controller| there.split_whitespace().any(|name| name == c.name());
        let layout = Layout::read(&mountinfo, |_| there.clone()).unwrap_or_else(|why| {
            eprintln!("NOT TESTED here: limits in a v2 tree. {why}");
            let missing = Controller::ALL.into_iter().find(|c| !has(c)).expect("that is the only reason");
            assert!(why.contains(missing.name()), "{why}");
            let in_unified = Controller::ALL.into_iter().filter(has).collect();
            Layout { unified: TREE.into(), in_unified, v1: Vec::new() }
        });
        assert!(layout.v1.is_empty() && layout.unified.as_os_str() == TREE);
        let name = format!("kiln-alone-{}", std::process::id());
        let groups = Groups::open(&layout, &name).unwrap();
        let id: InstanceId = "app-web-1-1".parse().unwrap();
        let limits = Limits { memory: ByteSize(32 << 20), cpu_millis: 250, pids: 7, io: None };
        let allowed = Allowance { limits: &limits, io: None };
        groups.create_leaf(&id, allowed).unwrap();
        groups.create_others(&id, allowed).unwrap();
        assert!(groups.others().is_empty());
        for (controller, file, value) in [
            (Controller::Memory, "memory.max", "33554432"),
            (Controller::Cpu, "cpu.max", "25000 100000"),
            (Controller::Pids, "pids.max", "7"),
        ] {
            if has(&controller) {
                assert_eq!(groups.unified.read(&format!("{id}/{file}")).unwrap().trim(), value);
            }
        }
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        groups.unified.write(&format!("{id}/cgroup.procs"), &child.id().to_string()).unwrap();
        groups.join(&id, child.id()).unwrap();
        groups.leaf(&id).unwrap();
        assert_eq!(groups.remove(id.as_str()).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(groups.want_of_memory(&id), None);
        groups.kill(id.as_str()).unwrap();
        assert!(!child.wait().unwrap().success());
        while groups.remove(id.as_str()).is_err_and(|e| e.kind() == io::ErrorKind::ResourceBusy) {}
        assert_eq!(groups.names().unwrap(), [""; 0]);
        groups.dissolve().unwrap();
        assert!(!std::path::Path::new(TREE).join(name).exists());
    }
}
