//! A running process as the kernel shows it: its root, its mounts, its rights.

mod devices;
mod launched;
mod limits;
mod mounts;
mod secrets;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use kiln_bake::inspect::Ids;
use kiln_engine::embedded::{covered_paths, interpreter_of_script};
use kiln_model::{Capability, ReleaseService, hosts_file, inside};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open, openat2};

use launched::{Launched, Started};
use limits::Groups;
use mounts::Mounts;
pub(crate) use secrets::KnownSecrets;

/// What `/proc` says of a process. All of it is read at once; a process that ends meanwhile is an error.
#[derive(Debug)]
pub(crate) struct Running {
    proc: PathBuf,
    ids: Ids,
    status: String,
    mounts: Mounts,
    launched: Launched,
    groups: Groups,
}

impl Running {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let text = |name: &str| fs::read_to_string(proc.join(name));
        let ids = Ids { users: id_map(&text("uid_map")?), groups: id_map(&text("gid_map")?) };
        let (status, mounts) = (text("status")?, Mounts::new(text("mountinfo")?, covered_paths().collect()));
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
        let argv = &service.run.argv;
        let mut differs = Vec::new();
        // What the kernel tells of arguments and variables is about the program that was executed last.
        if let Some(started) = self.started_as(argv) {
            differs.extend(self.launched.differs(&started, &service.env, &given));
        }
        differs.extend(self.groups.differs(service.limits));
        differs.extend(self.other_names(service));
        differs
    }

    /// What it was started as, if it is still what it was started as: not if it has executed another program since.
    fn started_as(&self, argv: &[String]) -> Option<Started> {
        let words = || argv.iter().map(|word| word.clone().into_bytes());
        let Some(program) = argv.first() else { return Some(Started::Program(Vec::new())) };
        let now = rustix::fs::stat(self.proc.join("exe")).ok()?;
        let is_now = |path: &[u8]| {
            let named = self.file(path, OFlags::PATH).and_then(|file| Ok(fstat(&file)?));
            named.is_ok_and(|named| (named.st_dev, named.st_ino) == (now.st_dev, now.st_ino))
        };
        if is_now(program.as_bytes()) {
            return Some(Started::Program(words().collect()));
        }
        let mut head = [0; 256];
        let length = rustix::io::read(self.file(program.as_bytes(), OFlags::RDONLY).ok()?, &mut head).ok()?;
        let (interpreter, argument) = interpreter_of_script(&head[..length])?;
        let before = [Some(interpreter), argument].into_iter().flatten().map(<[u8]>::to_vec);
        is_now(interpreter).then(|| Started::Script(before.chain(words()).collect()))
    }

    /// A file as it is seen from within.
    fn file(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        Ok(openat2(self.root()?, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
    }

    /// The image's own file does where nothing is needed.
    fn other_names(&self, service: &ReleaseService) -> Option<String> {
        let expected = hosts_file(&inside(&service.needs, service.port));
        let found = fs::read_to_string(self.proc.join("root/etc/hosts")).ok();
        let differs = !service.needs.is_empty() && found != Some(expected);
        differs.then(|| "/etc/hosts does not say what its release needs".to_owned())
    }

    /// What is not as every instance has it, or not as `service` says.
    pub(crate) fn differs(&self, service: &ReleaseService) -> Vec<String> {
        let (run, may) = (&service.run, &service.capabilities);
        let mut differs = self.mounts.differs(service);
        differs.extend(self.other_devices());
        for (what, field, inside, map, changes) in [
            ("user", "Uid", run.uid, &self.ids.users, Capability::Setuid),
            ("group", "Gid", run.gid, &self.ids.groups, Capability::Setgid),
        ] {
            if may.contains(&changes) {
                continue;
            }
            let expected = Ids::outside(map, inside);
            let found = self.field(field).and_then(|ids| ids.split_ascii_whitespace().next()?.parse().ok());
            if found != expected {
                differs.push(format!("its main process does not run as {what} {inside} of its release"));
            }
        }
        let may = may.iter().fold(0u64, |bits, capability| bits | 1 << capability.number());
        for (field, means) in [
            ("CapEff", "its main process has capabilities that its release does not give it"),
            ("CapBnd", "its main process could be given capabilities that its release does not give it"),
        ] {
            let found = self.field(field).and_then(|bits| u64::from_str_radix(bits, 16).ok());
            if found.is_none_or(|found| found & !may != 0) {
                differs.push(means.to_owned());
            }
        }
        for (field, expected, means) in [
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
}

/// `0 100000 65536`, each line: where it begins inside, outside, and how many.
fn id_map(text: &str) -> Vec<(u32, u32, u32)> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|n| n.parse().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    fn within_a_minute<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    /// Reads a line, and ends when there is nothing more to be read.
    fn started(program: &str, arguments: &[&str]) -> (Child, Running) {
        let child = within_a_minute(|| {
            match Command::new(program).args(arguments).stdin(Stdio::piped()).spawn() {
                // Another test has begun a process while the script was written, which has it open until it executes.
                Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => None,
                spawned => Some(spawned.unwrap()),
            }
        });
        // For a moment it is executed and has no arguments yet.
        let running = within_a_minute(|| Running::of(child.id()).ok());
        (child, running)
    }

    fn end(mut child: Child) {
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    fn words(argv: &[&str]) -> Vec<String> {
        argv.iter().map(|word| (*word).to_owned()).collect()
    }

    /// What of it is not as if it had been started by these words.
    fn differs(running: &Running, argv: &[&str]) -> Option<Vec<String>> {
        let env = std::env::vars().collect();
        Some(running.launched.differs(&running.started_as(&words(argv))?, &env, &BTreeSet::new()))
    }

    /// What the kernel tells of `running` now.
    fn again(running: &Running) -> Running {
        let pid = running.proc.file_name().unwrap().to_str().unwrap();
        within_a_minute(|| Running::of(pid.parse().unwrap()).ok())
    }

    #[test]
    fn a_program_that_has_executed_another_one_is_known_to_have() {
        let argv = ["/bin/sh", "-c", "read first; exec cat"];
        let (mut child, running) = started(argv[0], &argv[1..]);
        assert_eq!(differs(&running, &argv), Some(Vec::new()));
        assert_eq!(differs(&running, &["/bin/sh", "-c", "exec cat"]).unwrap().len(), 1);
        child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        within_a_minute(|| running.started_as(&words(&["/bin/cat"])));
        assert!(running.started_as(&words(&argv)).is_none());
        end(child);
    }

    #[test]
    fn a_script_runs_as_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        let lines = "#! /bin/sh -e\nread first\nexec /bin/sh -c 'read second' again and again\n";
        std::fs::write(&script, lines).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let argv = [script.to_str().unwrap(), "on"];
        let (mut child, running) = started(argv[0], &argv[1..]);
        assert_eq!(differs(&running, &argv), Some(Vec::new()));
        assert_eq!(differs(&running, &["/bin/cat"]), None);
        assert_eq!(differs(&running, &["/nothing"]), None);

        // The interpreter executes itself again: neither is a difference, its words are no longer those of its start.
        child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        let then = ["/bin/sh", "-c", "read second", "again", "and", "again"];
        // The shell may have given it variables; of the words nothing is told once they are those.
        let as_then = |now: &Running| differs(now, &then).is_some_and(|d| !d.concat().contains("arguments"));
        let executed = within_a_minute(|| Some(again(&running)).filter(as_then));
        assert_eq!(differs(&executed, &argv), Some(Vec::new()));
        end(child);
    }
}
