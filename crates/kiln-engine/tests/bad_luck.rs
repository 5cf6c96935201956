//! The host reaches a limit in the middle of a fleet: the right error, nothing left over, and nobody else harmed.

mod common;

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::private_group::PrivateGroup;
use common::{Bench, PATIENCE, signal, status_of};
use kiln_engine::Engine;
use kiln_engine::embedded::Embedded;
use kiln_model::{ByteSize, Exit, InstanceId, InstanceOrder, InstanceState, InstanceStatus, IoLimits};
use kiln_testkit::fixture_image::FixtureImage;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::Signal;
use rustix::thread::{UnshareFlags, unshare_unsafe};

fn sleepers(bench: &Bench, count: usize) -> Vec<InstanceOrder> {
    (0..count).map(|n| bench.image.order(&format!("a-{n}"), &["/bin/sleep", "1000"])).collect()
}

/// Those that run, and why the others do not.
fn sorted(statuses: &[InstanceStatus]) -> (Vec<(InstanceId, u32)>, Vec<String>) {
    let (mut running, mut causes) = (Vec::new(), Vec::new());
    for status in statuses {
        match &status.state {
            InstanceState::Running { pid } => running.push((status.id.clone(), *pid)),
            InstanceState::Ended { exit: Exit::NotStarted { cause } } => causes.push(cause.clone()),
            other => panic!("{}: {other:?}", status.id),
        }
    }
    (running, causes)
}

fn groups_of_instances(bench: &Bench) -> Vec<PathBuf> {
    let named = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("a-"));
    bench.groups().into_iter().filter(named).collect()
}

/// What ran goes on, what did not has left nothing, and when there is room again there are instances again.
fn recovers(bench: &Bench, running: &[(InstanceId, u32)]) {
    assert!(running.iter().all(|(_, pid)| status_of(*pid, "Pid").is_some()), "those that run are unharmed");
    let hierarchies = groups_of_instances(bench).len() / running.len();
    assert_eq!(
        groups_of_instances(bench).len(),
        hierarchies * running.len(),
        "no group is left of the others"
    );
    let (two, rest) = running.split_at(2);
    bench.engine.kill(&two.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>()).unwrap();
    bench.run(&bench.image.order("again", &["/bin/sleep", "1000"]));
    assert!(rest.iter().all(|(_, pid)| status_of(*pid, "Pid").is_some()));
}

#[test]
fn descriptors_run_out() {
    let bench = Bench::with_few_descriptors(100);
    let statuses = bench.engine.create(&sleepers(&bench, 60)).unwrap();
    let (running, causes) = sorted(&statuses);
    assert!(running.len() > 5 && causes.len() > 5, "{} run", running.len());
    assert!(causes.iter().all(|cause| cause.contains("Too many open files")), "{causes:#?}");
    recovers(&bench, &running);
}

/// The time a process has had of a processor, in hundredths of a second.
fn processor_time(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn who_cannot_be_admitted_waits_and_keeps_nobody_busy() {
    let bench = Bench::with_few_descriptors(100);
    bench.run(&bench.image.order("a-first", &["/bin/sleep", "1000"]));
    let door = bench.run_dir().join("keeper.sock");
    let visitors: Vec<_> = (0..120).map(|_| UnixStream::connect(&door).unwrap()).collect();
    // It has no descriptor left now, and knows those it speaks with.
    let before = processor_time(bench.keeper_pid());
    bench.engine.changes(Duration::ZERO).unwrap();
    assert_eq!(bench.engine.changes(Duration::from_secs(1)).unwrap(), []);
    let busy = processor_time(bench.keeper_pid()) - before;
    assert!(busy < 20, "it was busy for {busy} hundredths of a second");
    drop(visitors);
    let another = Embedded::connect(&bench.run_dir()).unwrap();
    assert_eq!(another.list().unwrap().len(), 1, "it listens again");
}

#[test]
fn control_groups_run_out() {
    let bench = Bench::new();
    let ours = bench.groups();
    let unified = ours.iter().find(|p| p.join("cgroup.max.descendants").exists()).unwrap();
    fs::write(unified.join("cgroup.max.descendants"), "8").unwrap();
    let statuses = bench.engine.create(&sleepers(&bench, 20)).unwrap();
    let (running, causes) = sorted(&statuses);
    assert_eq!((running.len(), causes.len()), (8, 12), "{causes:#?}");
    assert!(causes.iter().all(|cause| cause.starts_with("could not make its control groups")), "{causes:#?}");
    recovers(&bench, &running);
}

#[test]
fn processes_run_out() {
    const MOST: u64 = 24;
    let host = PrivateGroup::new("pids", &["pids.max"], MOST);
    let bench = Bench::prepared(FixtureImage::new(), |command| host.confine(command, true));
    let statuses = bench.engine.create(&sleepers(&bench, 40)).unwrap();
    let (running, causes) = sorted(&statuses);
    // The keeper and its holder count as well.
    assert_eq!((running.len(), causes.len()), (22, 18), "{causes:#?}");
    let why = "could not make its first process: Resource temporarily unavailable";
    assert!(causes.iter().all(|cause| cause.starts_with(why)), "{causes:#?}");
    recovers(&bench, &running);
}

#[test]
fn the_memory_of_the_host_runs_out() {
    let files = ["memory.limit_in_bytes", "memory.max"];
    let host = PrivateGroup::new("memory", &files, 80 << 20);
    let image = FixtureImage::with_program(Path::new(env!("CARGO_BIN_EXE_escape-for-tests")), "/bin/escape");
    let bench = Bench::prepared(image, |command| host.confine(command, false));
    let small = bench.run(&bench.image.order("small", &["/bin/sleep", "1000"]));
    // Each is within its limit of 32 MiB, and all of them are more than there is.
    let eaters: Vec<InstanceOrder> =
        (0..4).map(|n| bench.image.order(&format!("a-{n}"), &["/bin/escape", "hold-memory", "26"])).collect();
    bench.engine.create(&eaters).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        let all = bench.engine.list().unwrap();
        let ended: Vec<Exit> = all
            .into_iter()
            .filter_map(|s| match s.state {
                InstanceState::Ended { exit } => Some(exit),
                _ => None,
            })
            .collect();
        let holding = eaters.iter().filter(|e| bench.output(&e.id).contains("holding")).count();
        if !ended.is_empty() && holding + ended.len() >= eaters.len() {
            break ended;
        }
        assert!(Instant::now() < deadline, "{ended:?}, {holding} hold what they want");
        bench.engine.changes(Duration::from_millis(20)).unwrap();
    };
    assert!(ended.iter().all(|exit| *exit == Exit::HostOutOfMemory), "{ended:?}");
    assert!(status_of(small, "Pid").is_some(), "who wants little is unharmed");
    let (exit, _) = bench.script("again", "echo there is room again");
    assert_eq!(exit, Exit::Code { code: 0 });
}

/// The user on the host that an instance's namespaces are charged to.
fn accounting_user(pid: u32) -> u32 {
    const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;
    let namespace = fs::File::open(format!("/proc/{pid}/ns/user")).unwrap();
    let mut uid = 0u32;
    // SAFETY: the kernel writes one number to where there is room for one.
    let answer = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    uid
}

/// Everything that a user of the host may have of inotify.
fn use_up_inotify(uid: u32) -> Vec<OwnedFd> {
    let use_up = move || {
        // SAFETY: numbers; without the C library around it, the call is about this thread alone, which ends soon.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }, 0);
        let mut all = Vec::new();
        loop {
            // SAFETY: a number; the descriptor is given an owner.
            match unsafe { libc::inotify_init1(libc::IN_CLOEXEC) } {
                -1 => return all,
                // SAFETY: it was just made.
                fd => all.push(unsafe { OwnedFd::from_raw_fd(fd) }),
            }
        }
    };
    std::thread::spawn(use_up).join().unwrap()
}

#[test]
fn inotify_runs_out_for_the_user_an_instance_is_charged_to() {
    let image = FixtureImage::with_program(Path::new(env!("CARGO_BIN_EXE_escape-for-tests")), "/bin/escape");
    let bench = Bench::prepared(image, |_| {});
    let script = "trap 'exec /bin/escape use-up-inotify' USR1; echo ready; while true; do sleep 0.1; done";
    let orders = ["a-poor", "a-rich"].map(|id| bench.image.shell(id, script));
    let pids = orders.each_ref().map(|order| bench.run(order));
    orders.iter().for_each(|order| bench.wait_for_output(&order.id, "ready"));
    let taken = use_up_inotify(accounting_user(pids[0]));
    assert!(taken.len() > 10, "{}", taken.len());
    pids.iter().for_each(|pid| signal(*pid as i32, Signal::USR1));
    let found = orders.each_ref().map(|order| {
        bench.wait_for_output(&order.id, "there were ");
        let output = bench.output(&order.id);
        output.trim().rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    });
    assert_eq!(found, [0, taken.len()], "a sibling has as much as ever");
    bench.run(&bench.image.order("a-next", &["/bin/sleep", "1000"]));
}

#[test]
fn whoever_leaves_its_parent_twice_is_still_inside() {
    let bench = Bench::new();
    let before = bench.groups();
    let script = "( ( trap '' HUP TERM; sleep 1000 ) & ) & echo $$; exec sleep 1000";
    let order = bench.image.shell("a-daemon", script);
    bench.run(&order);
    bench.engine.kill(&[order.id]).unwrap();
    assert_eq!(bench.groups(), before);
}

/// Has a process live on a host on which reading cannot be limited.
fn without_blkio() -> std::io::Result<()> {
    // SAFETY: the process has just been forked and has one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(unmount(BLKIO, UnmountFlags::DETACH)?)
}

const BLKIO: &str = "/sys/fs/cgroup/blkio";

#[test]
fn an_instance_whose_reading_cannot_be_limited_is_refused_and_nothing_is_made_for_it() {
    if !Path::new(BLKIO).join("tasks").exists() {
        return eprintln!(
            "NOT TESTED here: a host without limits of reading. It has no v1 hierarchy to be without."
        );
    }
    let bench = Bench::prepared(FixtureImage::new(), |command| {
        // SAFETY: a few system calls, made in the copy of this process that has one thread; they allocate nothing.
        unsafe { command.pre_exec(without_blkio) };
    });
    let before = bench.groups();
    let mut order = bench.image.order("a-limited", &["/bin/sleep", "1000"]);
    order.limits.io = Some(IoLimits { read: Some(ByteSize(2 << 20)), reads: None });
    let (exit, _) = bench.to_end(&order);
    let Exit::NotStarted { cause } = exit else { panic!("{exit:?}") };
    assert!(cause.contains("nor is a v1 hierarchy with `blkio` mounted"), "{cause}");
    assert_eq!(bench.groups(), before);
    bench.run(&bench.image.order("a-unlimited", &["/bin/sleep", "1000"]));
}
