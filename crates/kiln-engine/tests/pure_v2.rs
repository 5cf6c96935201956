//! A host whose control groups are v2 alone: a mount namespace in which nothing else is mounted.

mod common;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use common::Bench;
use kiln_engine::Engine;
use kiln_engine::embedded::Embedded;
use kiln_model::{ByteSize, Exit, Limits};
use kiln_testkit::fixture_image::FixtureImage;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

const TREE: &str = "/sys/fs/cgroup";

/// Makes the calling process live on such a host. It has one thread.
fn with_v2_alone() -> io::Result<()> {
    // SAFETY: the process has one thread, so nobody else's view of mounts changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    unmount(TREE, UnmountFlags::DETACH)?;
    Ok(mount("none", TREE, "cgroup2", MountFlags::empty(), None)?)
}

fn on_such_a_host(program: &str) -> Command {
    let mut command = Command::new(program);
    // SAFETY: a few system calls, made in the copy of this process that has one thread; they allocate nothing.
    unsafe { command.pre_exec(with_v2_alone) };
    command
}

/// Which of the controllers limits are made of are there.
fn controllers() -> Vec<String> {
    let said = on_such_a_host("/bin/cat").arg(format!("{TREE}/cgroup.controllers")).output().unwrap();
    assert!(said.status.success(), "these tests need root: {said:?}");
    let all = String::from_utf8(said.stdout).unwrap();
    ["memory", "cpu", "pids"]
        .iter()
        .filter(|c| all.split_whitespace().any(|w| w == **c))
        .map(|c| (*c).to_owned())
        .collect()
}

#[test]
fn limits_are_set_in_the_one_tree_or_no_keeper_starts() {
    let there = controllers();
    let dir = tempfile::tempdir().unwrap();
    let (run, output) = (dir.path().join("run"), dir.path().join("output"));
    let started =
        on_such_a_host(env!("CARGO_BIN_EXE_keeper-for-tests")).arg(&run).arg(&output).output().unwrap();
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    if let Some(missing) = ["memory", "cpu", "pids"].iter().find(|c| !there.iter().any(|t| t == **c)) {
        eprintln!(
            "NOT TESTED here: limits in a v2 tree. This kernel has {missing} in a v1 hierarchy that is in use."
        );
        let names_it = format!("neither cgroup2 nor a mounted v1 hierarchy has the controller `{missing}`");
        assert!(!started.status.success() && said.contains(&names_it), "{said}");
        assert!(Embedded::connect(&run).is_err());
        return;
    }
    assert!(started.status.success(), "{said}");
    let bench = Bench { engine: Embedded::connect(&run).unwrap(), image: FixtureImage::new(), dir };
    let limits = Limits { memory: ByteSize(16 << 20), cpu_millis: 250, pids: 7, io: None };
    let order = kiln_model::InstanceOrder { limits, ..bench.image.shell("a", "tail /dev/zero") };
    bench.engine.create(std::slice::from_ref(&order)).unwrap();
    assert_eq!(bench.ending(&order.id), Exit::OutOfMemory { limit: ByteSize(16 << 20) });
    let (_, forks) =
        bench.script("b", "n=0; while [ $n -lt 20 ]; do sleep 1000 & n=$((n+1)); done; echo made it");
    assert!(!forks.contains("made it"), "{forks}");
}
