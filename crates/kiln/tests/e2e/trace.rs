//! What a host could leave behind: processes, mounts, control groups, registrations.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// What was there before.
pub(crate) struct Traces {
    cgroups: BTreeSet<String>,
}

impl Traces {
    pub(crate) fn before() -> Self {
        Self { cgroups: cgroups() }
    }

    /// Fails if a host on `root` has left anything.
    pub(crate) fn assert_none(&self, root: &Path) {
        let root = root.to_str().expect("a path in UTF-8");
        let left: Vec<_> = processes().into_iter().filter(|(_, line)| line.contains(root)).collect();
        assert_eq!(left, [], "processes are left");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mounts: Vec<&str> = mounts.lines().filter(|m| m.contains(root)).collect();
        assert_eq!(mounts, Vec::<&str>::new(), "mounts are left");
        let sockets: Vec<_> = std::fs::read_dir(format!("{root}/run"))
            .expect("the run directory")
            .map(|e| e.unwrap().file_name())
            .filter(|n| n.to_string_lossy().ends_with(".sock"))
            .collect();
        assert!(sockets.is_empty(), "sockets are left: {sockets:?}");
        // Other tests run at the same time: only what names this host's root counts.
        let mine = group(root);
        let left: Vec<String> =
            cgroups().difference(&self.cgroups).filter(|c| c.contains(&mine)).cloned().collect();
        assert_eq!(left, Vec::<String>::new(), "control groups are left");
        let registered = std::fs::read_dir("/run/kiln/hosts").into_iter().flatten().filter_map(Result::ok);
        let registered: Vec<String> = registered
            .filter_map(|e| std::fs::read_to_string(e.path()).ok())
            .filter(|t| t.contains(root))
            .collect();
        assert_eq!(registered, Vec::<String>::new(), "registrations are left");
    }
}

/// Fails if a host on `root` has left a file that it was writing.
pub(crate) fn assert_nothing_half_written(root: &Path) {
    let written: Vec<_> = std::fs::read_dir(root.join("tmp"))
        .expect("the directory of files being written")
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(written.is_empty(), "files that nobody writes are left: {written:?}");
}

/// What the control groups of a host are called.
fn group(root: &str) -> String {
    let run_dir = std::fs::canonicalize(format!("{root}/run")).expect("the run directory");
    let digest = kiln_model::Sha256::of(run_dir.as_os_str().as_encoded_bytes()).hex();
    format!("kiln-{}", &digest[..12])
}

/// Kills the processes of a host that cannot be ended otherwise, and its instances.
pub(crate) fn kill(root: &Path) {
    let root = root.to_str().expect("a path in UTF-8");
    let all = processes().into_iter().filter(|(pid, line)| {
        line.contains(&format!("--root {root}")) && *pid != i32::try_from(std::process::id()).unwrap_or(0)
    });
    let all: Vec<Pid> = all.filter_map(|(pid, _)| Pid::from_raw(pid)).collect();
    // Stopped first: a holder makes another keeper, and a keeper another holder.
    for signal in [Signal::STOP, Signal::KILL] {
        for pid in &all {
            // It may have ended meanwhile.
            let _ = kill_process(*pid, signal);
        }
    }
    let mine = group(root);
    for group in cgroups().into_iter().filter(|c| c.contains(&mine)) {
        let _ = std::fs::write(format!("{group}/cgroup.kill"), "1");
    }
}

/// The command lines of all processes.
pub(crate) fn processes() -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let line = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).ok();
    let lines = pids.filter_map(|pid| Some((pid, String::from_utf8_lossy(&line(pid)?).replace('\0', " "))));
    lines.filter(|(_, line)| !line.is_empty()).collect()
}

fn cgroups() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.insert(entry.path().display().to_string());
                waiting.push(entry.path());
            }
        }
    }
    found
}

/// Whether a process has a handler for `signal`; what pid 1 of a namespace has none for is lost.
pub(crate) fn hears(pid: Pid, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let caught =
        status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("the signals it catches");
    let caught = u64::from_str_radix(caught.trim(), 16).expect("a mask");
    caught & (1 << (signal.as_raw() - 1)) != 0
}
