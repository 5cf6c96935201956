//! Limits hold, and what runs into them harms nobody else.

mod common;

use std::time::{Duration, Instant};

use common::{Bench, status_of};
use kiln_engine::Engine;
use kiln_model::{ByteSize, Exit, InstanceOrder, InstanceStatus, IoLimits, Volatile};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_fork_bomb_stops_at_its_limit_and_goes_at_once() {
    let bench = Bench::new();
    let order =
        bench.image.shell("bomb", "bomb() { bomb | bomb & }; trap '' TERM; bomb; while true; do true; done");
    let pid = bench.run(&order);
    bench.wait_for_output(&order.id, "fork");
    let begun = Instant::now();
    let (exit, output) = bench.script("neighbour", "echo unharmed");
    assert_eq!((exit, output.as_str()), (Exit::Code { code: 0 }, "unharmed\n"));
    bench.engine.kill(std::slice::from_ref(&order.id)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(status_of(pid, "Pid"), None);
}

#[test]
fn the_number_of_processes_is_limited_exactly() {
    let bench = Bench::new();
    let mut order =
        bench.image.shell("a", "for n in 1 2 3 4 5 6 7 8 9; do sleep 100 & echo $n; done; echo never");
    order.limits.pids = 5;
    let (_, output) = bench.to_end(&order);
    assert!(output.contains("\n4\n") && !output.contains('5') && output.contains("fork"), "{output}");
}

/// Also of one that goes on: why it does not do what it should, only this tells.
#[test]
fn whoever_wants_more_processes_than_it_may_have_is_named() {
    let bench = Bench::new();
    let told = |order: &InstanceOrder, is_it: &dyn Fn(&InstanceStatus) -> bool| {
        let deadline = Instant::now() + common::PATIENCE;
        loop {
            let status = bench.engine.list().unwrap().into_iter().find(|s| s.id == order.id);
            if let Some(status) = status.filter(is_it) {
                return status;
            }
            assert!(Instant::now() < deadline, "{:?}", bench.engine.list());
            bench.engine.changes(Duration::from_millis(100)).unwrap();
        }
    };
    let mut ends = bench.image.shell("ends", "sleep 100 & sleep 100 & sleep 100 & exit 3");
    let mut stays =
        bench.image.shell("stays", "(sleep 100 & sleep 100 & sleep 100 &); while true; do true; done");
    let mut modest = bench.image.shell("modest", "sleep 100 & exit 3");
    for order in [&mut ends, &mut stays, &mut modest] {
        order.limits.pids = 3;
        bench.engine.create(std::slice::from_ref(order)).unwrap();
    }
    let status = told(&ends, &|status| status.end().is_some());
    let end = status.end().unwrap();
    assert!(end.ends_with("; it was refused more than the 3 processes it may have"), "{end}");
    told(&stays, &|status| status.shortage.processes == Some(3));
    assert_eq!(told(&modest, &|status| status.end().is_some()).end().unwrap(), "it exited with code 3");
}

#[test]
fn memory_is_limited_and_whoever_wants_more_is_named() {
    let bench = Bench::new();
    let limit = ByteSize(32 << 20);
    let (exit, _) = bench.to_end(&bench.image.order("direct", &["/bin/tail", "/dev/zero"]));
    assert_eq!(exit, Exit::OutOfMemory { limit });
    let (exit, _) = bench.script("in-a-shell", "tail /dev/zero; exit $?");
    assert_eq!(exit, Exit::OutOfMemory { limit });
    let (exit, output) = bench.script("modest", "head -c 1000000 /dev/zero | wc -c");
    assert_eq!((exit, output.as_str()), (Exit::Code { code: 0 }, "1000000\n"));
}

#[test]
fn a_volatile_path_holds_what_it_may_and_no_more() {
    let bench = Bench::new();
    let script = "dd if=/dev/zero of=/tmp/full bs=1M count=100 2>&1; stat -c %s /tmp/full; echo done";
    let (exit, output) = bench.script("a", script);
    assert_eq!(exit, Exit::Code { code: 0 });
    assert!(output.contains("No space left on device") && output.contains("\n4194304\ndone\n"), "{output}");
}

#[test]
fn no_size_is_none_and_not_one_without_limit() {
    let bench = Bench::new();
    let mut order = bench.image.shell("a", "head -c 100k /dev/zero > /tmp/full; stat -c %s /tmp/full");
    order.volatile[0].size = ByteSize(0);
    let (_, output) = bench.to_end(&order);
    assert!(output.ends_with("\n4096\n"), "{output}");
}

#[test]
fn a_volatile_path_may_be_in_another_one() {
    let bench = Bench::new();
    let script = "touch /tmp/a/x /tmp/a/b/y && stat -c '%n %u %g %a' /tmp/a /tmp/a/b /tmp/c/d; df -k /tmp/a/b | tail -1";
    let mut order = bench.image.shell("a", script);
    for path in ["/tmp/a/b", "/tmp/c", "/tmp/c/d"] {
        order.volatile.push(Volatile::new(path, ByteSize(1 << 20)));
    }
    let (uid, gid) = (order.run.uid, order.run.gid);
    let (_, output) = bench.to_end(&order);
    let owned = |path: &str| format!("{path} {uid} {gid} 755\n");
    let expected = ["/tmp/a", "/tmp/a/b", "/tmp/c/d"].map(owned).concat();
    assert!(output.starts_with(&expected) && output.contains(" 1024 "), "{output}");
}

#[test]
fn files_on_volatile_paths_count_as_memory() {
    let bench = Bench::new();
    let mut order = bench.image.shell("a", "head -c 100m /dev/zero > /tmp/full; exit $?");
    order.volatile[0].size = ByteSize(1 << 30);
    let (exit, _) = bench.to_end(&order);
    assert_eq!(exit, Exit::OutOfMemory { limit: order.limits.memory });
}

/// What is executed counts while its memory still is the keeper's.
#[test]
fn what_does_not_fit_into_its_memory_is_refused_and_costs_nobody_else_anything() {
    let bench = Bench::new();
    let keeper = bench.keeper_pid();
    let mut order = bench.image.order("a", &["/bin/true"]);
    order.limits.memory = ByteSize(1 << 20);
    order.env = (0..12).map(|n| (format!("N{n}"), "x".repeat(120_000))).collect();
    let (exit, _) = bench.to_end(&order);
    assert!(exit.to_string().contains("its arguments and variables are 1.4MiB"), "{exit}");
    assert_eq!(bench.keeper_pid(), keeper);
}

/// Together they are longer than any message may be.
#[test]
fn orders_that_are_long_go_in_several_messages() {
    let bench = Bench::new();
    let orders: Vec<_> = (0..30)
        .map(|n| {
            let mut order = bench.image.order(&format!("a-{n}"), &["/bin/true"]);
            order.limits.memory = ByteSize(64 << 20);
            order.env = (0..12).map(|n| (format!("N{n}"), "x".repeat(120_000))).collect();
            order
        })
        .collect();
    assert_eq!(bench.engine.create(&orders).unwrap().len(), 30);
}

#[test]
fn an_instance_that_loses_a_process_for_want_of_memory_ends_whole_and_alone() {
    let bench = Bench::new();
    let neighbour = bench.run(&bench.image.order("neighbour", &["/bin/sleep", "1000"]));
    let order = bench.image.shell("a", "tail /dev/zero; echo lost; while true; do sleep 1000; done");
    let (exit, _) = bench.to_end(&order);
    assert_eq!(exit, Exit::OutOfMemory { limit: order.limits.memory });
    assert!(status_of(neighbour, "Pid").is_some());
}

#[test]
fn a_full_volatile_path_is_told_while_it_is_full() {
    let bench = Bench::new();
    let order = bench.image.shell(
        "a",
        "dd if=/dev/zero of=/tmp/full bs=1M count=100; trap 'rm /tmp/full' USR1; while true; do sleep 0.1; done",
    );
    let pid = bench.run(&order);
    let is_full = |want: bool| {
        let deadline = Instant::now() + common::PATIENCE;
        loop {
            let status = bench.engine.list().unwrap().into_iter().find(|s| s.id == order.id).unwrap();
            if status.shortage.full.is_empty() != want {
                return status.shortage.full;
            }
            assert!(Instant::now() < deadline, "{status:?}");
            bench.engine.changes(Duration::from_millis(100)).unwrap();
        }
    };
    let full = is_full(true);
    assert_eq!(full.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(), ["/tmp"]);
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::USR1).unwrap();
    assert_eq!(is_full(false), []);
}

/// What an instance is told to have ended of, with `full` for /tmp as the fixture has it.
fn without_space(exit: Exit) -> Exit {
    let full = vec![Volatile::new("/tmp", ByteSize(4 << 20))];
    Exit::OutOfSpace { full, exit: Box::new(exit) }
}

#[test]
fn one_that_ends_because_it_has_no_space_is_told_so_at_once() {
    let bench = Bench::new();
    let script = "head -c 10m /dev/zero > /tmp/full || exit 3";
    let (exit, _) = bench.script("soon", script);
    assert_eq!(exit, without_space(Exit::Code { code: 3 }));
    assert_eq!(exit.to_string(), "exited with code 3 while no space was left on /tmp (4MiB)");
    // Killed by somebody who is not its keeper, as the kernel does.
    let waits = format!("({script}); echo full; while true; do sleep 1; done");
    let order = bench.image.shell("killed", &waits);
    let pid = bench.run(&order);
    bench.wait_for_output(&order.id, "full\n");
    common::kill(pid as i32);
    assert_eq!(bench.ending(&order.id), without_space(Exit::Signal { signal: 9 }));
    // Full, and yet well; not full, and not well.
    let (exit, _) = bench.script("well", &format!("({script}); exit 0"));
    assert_eq!(exit, Exit::Code { code: 0 });
    let (exit, _) = bench.script("unwell", "head -c 1m /dev/zero > /tmp/some; exit 3");
    assert_eq!(exit, Exit::Code { code: 3 });
    // Who is ended by others has not ended for want of space.
    let order = bench.image.shell("ended", &waits);
    bench.run(&order);
    bench.wait_for_output(&order.id, "full\n");
    bench.engine.kill(std::slice::from_ref(&order.id)).unwrap();
    assert_eq!(bench.ending(&order.id), Exit::Signal { signal: 9 });
}

#[test]
fn want_of_space_is_told_by_the_next_keeper_too() {
    let bench = Bench::new();
    let script =
        "trap 'head -c 10m /dev/zero > /tmp/full; exit 4' USR1; echo ready; while true; do sleep 0.1; done";
    let order = bench.image.shell("a", script);
    let pid = bench.run(&order);
    bench.wait_for_output(&order.id, "ready");
    let before = bench.keeper_pid();
    bench.kill_keeper();
    bench.next_keeper(before);
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::USR1).unwrap();
    assert_eq!(bench.ending(&order.id), without_space(Exit::Code { code: 4 }));
}

/// Reading, and not what is in memory already: the content's object is dropped from the page cache first.
#[test]
fn reading_from_the_disk_is_limited() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::write(&data, (0..4u32 << 18).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    let bench = Bench::with_program(data.to_str().unwrap(), "/bin/data");
    let mut order = bench.image.shell("a", "cat /bin/data | wc -c");
    order.limits.io = Some(IoLimits { read: Some(ByteSize(2 << 20)), reads: None });
    if let Some(why) = bench.engine.unenforceable(&order.limits, &order.image) {
        let (exit, _) = bench.to_end(&order);
        let Exit::NotStarted { cause } = exit else { panic!("{exit:?}, although {why}") };
        assert!(cause.contains(&why), "{cause}: {why}");
        return;
    }
    for object in objects_of(&bench.image.handle.objects) {
        let file = std::fs::File::open(object).unwrap();
        rustix::fs::fsync(&file).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    let begun = Instant::now();
    let (exit, output) = bench.to_end(&order);
    assert_eq!((exit, output.as_str()), (Exit::Code { code: 0 }, "4194304\n"));
    assert!(begun.elapsed() > Duration::from_secs(1), "4 MiB in {:?} at 2 MiB/s", begun.elapsed());
}

fn objects_of(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = |dir: &std::path::Path| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries(dir).flat_map(|prefix| entries(&prefix).collect::<Vec<_>>()).collect()
}

#[test]
fn processor_time_is_limited() {
    let bench = Bench::new();
    let mut order = bench.image.shell("a", "while true; do true; done");
    order.limits.cpu_millis = 100;
    let pid = bench.run(&order);
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(") ").next().unwrap().split(' ').filter_map(|f| f.parse().ok()).collect();
        // utime and stime are the 14th and 15th field; the first two and the state are not among these.
        fields[10] + fields[11]
    };
    let (before, begun) = (ticks(), Instant::now());
    while begun.elapsed() < Duration::from_secs(2) {
        bench.engine.changes(Duration::from_millis(500)).unwrap();
    }
    // A tick is 10 ms: unlimited, there would be about 200.
    assert!(ticks() - before < 60, "{} ticks in two seconds", ticks() - before);
}
