//! A keeper may be killed at any time: instances live on, and the next one goes on where it was.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Bench, PATIENCE, kill, signal, status_of};
use kiln_engine::embedded::{Embedded, UpgradeError, broker};
use kiln_engine::{Broker, Engine};
use kiln_model::{Exit, InstanceId, InstanceOrder, InstanceState, OutputStream};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;

/// Counts, until it is told to end by the file /tmp/end or a signal.
fn counter(bench: &Bench, id: &str) -> InstanceOrder {
    bench.image.shell(
        id,
        "trap 'echo told; exit 5' TERM; n=0; while true; do n=$((n+1)); echo $n; echo $n >&2; sleep 0.01; done",
    )
}

fn state(bench: &Bench, id: &InstanceId) -> InstanceState {
    bench.engine.list().unwrap().into_iter().find(|s| s.id == *id).unwrap().state
}

/// How far a counter has come.
fn count(bench: &Bench, id: &InstanceId) -> usize {
    bench.output(id).lines().filter_map(|l| l.parse().ok()).max().unwrap_or(0)
}

fn wait_for_more(bench: &Bench, id: &InstanceId) {
    let (before, deadline) = (count(bench, id), Instant::now() + PATIENCE);
    while count(bench, id) <= before {
        assert!(Instant::now() < deadline, "{id} is heard no more");
        bench.engine.changes(Duration::from_millis(5)).unwrap();
    }
}

/// Every number that was written is kept exactly once on each stream, in order.
fn nothing_is_missing(bench: &Bench, id: &InstanceId) {
    let counts = [OutputStream::Stdout, OutputStream::Stderr].map(|stream| {
        let output = bench.output_of(id, stream);
        let numbers: Vec<usize> = output.lines().filter_map(|l| l.parse().ok()).collect();
        assert!(numbers.iter().copied().eq(1..=numbers.len()), "{}:\n{output}", stream.as_str());
        numbers.len()
    });
    // The last one may not have been written to the other stream yet.
    assert!(counts[0] > 0 && counts[0].abs_diff(counts[1]) <= 1, "{counts:?}");
}

#[test]
fn instances_live_on_and_are_told_and_heard_as_before() {
    let bench = Bench::new();
    let orders = ["a", "b", "c"].map(|id| counter(&bench, id));
    let pids = [0, 1, 2].map(|n| bench.run(&orders[n]));
    for _ in 0..3 {
        let before = bench.keeper_pid();
        bench.kill_keeper();
        bench.next_keeper(before);
        for (order, pid) in orders.iter().zip(pids) {
            assert_eq!(state(&bench, &order.id), InstanceState::Running { pid });
            wait_for_more(&bench, &order.id);
        }
    }
    bench.engine.stop(&[orders[0].id.clone()]).unwrap();
    assert_eq!(bench.ending(&orders[0].id), Exit::Code { code: 5 });
    bench.engine.kill(&[orders[1].id.clone()]).unwrap();
    assert_eq!(bench.ending(&orders[1].id), Exit::Signal { signal: 9 });
    kill(pids[2] as i32);
    assert_eq!(bench.ending(&orders[2].id), Exit::Signal { signal: 9 });
    orders.iter().for_each(|order| nothing_is_missing(&bench, &order.id));
    assert!(bench.output(&orders[0].id).ends_with("told\n"));
    assert_eq!(fs::read_to_string(bench.run_dir().join("keeper.log")).unwrap(), "");
}

#[test]
fn how_an_instance_ends_while_there_is_no_keeper_is_not_lost_nor_are_its_last_words() {
    let bench = Bench::new();
    let by_code = bench.image.shell(
        "code",
        "trap 'seq 1 2000; echo last words; exit 42' USR1; echo ready; while true; do sleep 0.01; done",
    );
    let by_signal = bench.image.order("signal", &["/bin/sleep", "1000"]);
    let ended = bench.image.shell("ended", "exit 3");
    let pids = [bench.run(&by_code), bench.run(&by_signal)].map(|pid| pid as i32);
    bench.to_end(&ended);
    bench.wait_for_output(&by_code.id, "ready");
    let (keeper, holder) = (bench.keeper_pid(), bench.holder_pid());
    signal(holder, Signal::STOP);
    kill(keeper);
    let end = common::end_of(pids[0]);
    signal(pids[0], Signal::USR1);
    end();
    kill(pids[1]);
    signal(holder, Signal::CONT);
    bench.next_keeper(keeper);
    assert_eq!(bench.ending(&by_code.id), Exit::Code { code: 42 });
    assert_eq!(bench.ending(&by_signal.id), Exit::Signal { signal: 9 });
    assert_eq!(bench.ending(&ended.id), Exit::Code { code: 3 }, "and what ended before is still known");
    let output = bench.output(&by_code.id);
    assert!(output.lines().count() == 2002 && output.ends_with("last words\n"), "{}", output.len());
}

/// However often it is killed while it reads and writes: as much as an instance can write, all of it, once. (A holder
/// whose keepers are short-lived waits longer and longer before it makes the next one; many more kills of what reads and
/// writes alone are among the tests of `capture`.)
#[test]
fn a_keeper_killed_again_and_again_keeps_every_line_of_a_flood() {
    let kills = if std::env::var_os("KILN_LONG").is_some() { 60 } else { 7 };
    let bench = Bench::new();
    // Numbers in lines of many lengths, now in large pieces and now in small ones, the last of each without an end.
    let flood = "n=0; while [ ! -e /tmp/end ]; do seq $n $((n+999)); n=$((n+1000)); \
                 printf 'x%s' $n; printf y; echo z; seq $n $((n+9)); n=$((n+10)); done; echo end $n";
    let order = bench.image.shell("flood", flood);
    let pid = bench.run(&order);
    for n in 0..kills {
        let before = bench.keeper_pid();
        // At a different moment of its work each time.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(3000 + 37 * n) {}
        kill(before);
        bench.next_keeper(before);
    }
    fs::write(format!("/proc/{pid}/root/tmp/end"), "").unwrap();
    assert_eq!(bench.ending(&order.id), Exit::Code { code: 0 });
    let output = bench.output(&order.id);
    // Of more than is kept, the first line is what is left of one whose beginning is gone.
    let is_bounded = output.contains("bytes of older output are gone");
    let lines = output.lines().filter(|l| !l.starts_with("kiln: "));
    let lines: Vec<&str> = lines.skip(usize::from(is_bounded)).collect();
    let numbers: Vec<u64> = lines.iter().filter_map(|l| l.parse().ok()).collect();
    assert!(is_bounded || numbers[0] == 0, "it begins with {}", numbers[0]);
    if let Some(at) = numbers.windows(2).position(|pair| pair[1] != pair[0] + 1) {
        panic!(
            "at {at} of {}: {:?}",
            numbers.len(),
            &numbers[at.saturating_sub(2)..(at + 4).min(numbers.len())]
        );
    }
    assert_eq!(lines.last().unwrap(), &format!("end {}", numbers.last().unwrap() + 1));
    let torn = lines.iter().find(|l| l.starts_with('x') && !l.ends_with("yz"));
    assert_eq!(torn, None, "a line that was written in parts");
}

/// A pipe nobody reads holds 64 KiB; then who writes waits, and nothing is lost.
#[test]
fn an_instance_waits_for_a_keeper_that_stands_still_and_loses_nothing() {
    let bench = Bench::new();
    let order = bench.image.shell(
        "a",
        "trap 'seq 1 100000; echo done; exit 4' USR1; echo ready; while true; do sleep 0.01; done",
    );
    let pid = bench.run(&order);
    bench.wait_for_output(&order.id, "ready");
    let keeper = bench.keeper_pid();
    signal(keeper, Signal::STOP);
    let ended = common::end_of(pid as i32);
    signal(pid as i32, Signal::USR1);
    // It sleeps in a write, and stays where it is.
    let deadline = Instant::now() + PATIENCE;
    let waits =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|w| w.contains("pipe_write"));
    let family = || [children_of(pid), vec![pid]].concat();
    while !family().into_iter().any(waits) {
        assert!(Instant::now() < deadline, "it does not wait");
    }
    signal(keeper, Signal::CONT);
    ended();
    assert_eq!(bench.ending(&order.id), Exit::Code { code: 4 });
    let output = bench.output(&order.id);
    assert!(output.lines().count() == 100_002 && output.ends_with("\ndone\n"), "{}", output.lines().count());
}

fn children_of(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|p| p.parse().ok()).collect()
}

#[test]
fn its_holder_may_be_killed_instead() {
    let bench = Bench::new();
    let order = counter(&bench, "a");
    let pid = bench.run(&order);
    let (keeper, holder) = (bench.keeper_pid(), bench.holder_pid());
    kill(holder);
    bench.next_keeper(keeper);
    assert_eq!(bench.holder_pid(), keeper, "the keeper has become a holder");
    assert_eq!(state(&bench, &order.id), InstanceState::Running { pid });
    wait_for_more(&bench, &order.id);
    let before = bench.keeper_pid();
    bench.kill_keeper();
    bench.next_keeper(before);
    kill(pid as i32);
    assert_eq!(bench.ending(&order.id), Exit::Signal { signal: 9 });
    nothing_is_missing(&bench, &order.id);
}

#[test]
fn instances_outlive_both_and_are_found_by_the_next_that_is_started() {
    let mut bench = Bench::new();
    let order = counter(&bench, "a");
    let ends = bench.image.shell("b", "trap 'exit 42' USR1; while true; do sleep 0.01; done");
    let (pid, other) = (bench.run(&order), bench.run(&ends));
    wait_for_more(&bench, &order.id);
    bench.kill_keeper_and_holder();
    assert!(bench.engine.list().is_err(), "there is no keeper");
    let kept = count(&bench, &order.id);
    bench.restart();
    assert_eq!(state(&bench, &order.id), InstanceState::Running { pid });
    wait_for_more(&bench, &order.id);
    assert!(kept > 0 && count(&bench, &order.id) > kept);
    nothing_is_missing(&bench, &order.id);
    signal(other as i32, Signal::USR1);
    assert_eq!(bench.ending(&ends.id), Exit::Code { code: 42 }, "although it is nobody's child here");
}

#[test]
fn one_that_ended_while_there_was_neither_is_not_said_to_have_ended_well() {
    let mut bench = Bench::new();
    let order = bench.image.order("a", &["/bin/sleep", "1000"]);
    let pid = bench.run(&order);
    bench.kill_keeper_and_holder();
    kill(pid as i32);
    bench.restart();
    let exit = bench.ending(&order.id);
    assert!(matches!(exit, Exit::Unknown | Exit::Signal { signal: 9 }), "{exit:?}");
}

#[test]
fn the_broker_finds_the_networks_of_adopted_instances() {
    let bench = Bench::new();
    let order = bench.image.shell("a", "while true; do echo hello | nc -l -p 80; done");
    bench.run(&order);
    let broker = broker::Client::connect(&broker::socket_path(&bench.run_dir())).unwrap();
    broker.sockets(&order.id, 1).unwrap();
    let before = bench.keeper_pid();
    bench.kill_keeper();
    bench.next_keeper(before);
    let (port_80, deadline): (SocketAddr, _) = ("127.0.0.1:80".parse().unwrap(), Instant::now() + PATIENCE);
    loop {
        let socket = broker.sockets(&order.id, 1).unwrap().remove(0);
        fcntl_setfl(&socket, fcntl_getfl(&socket).unwrap() - OFlags::NONBLOCK).unwrap();
        if rustix::net::connect(&socket, &port_80).is_ok() {
            let mut said = String::new();
            TcpStream::from(socket).read_to_string(&mut said).unwrap();
            assert_eq!(said, "hello\n");
            return;
        }
        assert!(Instant::now() < deadline, "it does not listen");
    }
}

#[test]
fn another_program_goes_on_with_everything() {
    let bench = Bench::new();
    let orders = ["a", "b"].map(|id| counter(&bench, id));
    let pids = [0, 1].map(|n| bench.run(&orders[n]));
    let this = Path::new(env!("CARGO_BIN_EXE_keeper-for-tests"));
    assert!(!bench.engine.upgrade(this).unwrap(), "it is the same program");
    let newer = bench.dir.path().join("newer");
    kiln_testkit::program::program(&newer, &fs::read(this).unwrap());
    assert!(bench.engine.upgrade(&newer).unwrap());
    for pid in [bench.keeper_pid(), bench.holder_pid()] {
        assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap(), newer.canonicalize().unwrap());
    }
    for (order, pid) in orders.iter().zip(pids) {
        assert_eq!(state(&bench, &order.id), InstanceState::Running { pid });
        wait_for_more(&bench, &order.id);
    }
    bench.engine.stop(&[orders[0].id.clone()]).unwrap();
    assert_eq!(bench.ending(&orders[0].id), Exit::Code { code: 5 });
    let before = bench.keeper_pid();
    bench.kill_keeper();
    bench.next_keeper(before);
    assert_eq!(state(&bench, &orders[1].id), InstanceState::Running { pid: pids[1] });
    bench.engine.kill(&[orders[1].id.clone()]).unwrap();
    nothing_is_missing(&bench, &orders[0].id);
    nothing_is_missing(&bench, &orders[1].id);
}

#[test]
fn a_program_that_cannot_go_on_leaves_the_old_one_at_work() {
    let bench = Bench::new();
    let order = counter(&bench, "a");
    let pid = bench.run(&order);
    let missing = bench.engine.upgrade(Path::new("/does/not/exist"));
    assert!(matches!(missing, Err(UpgradeError::Program { .. })), "{missing:?}");
    let broken = bench.dir.path().join("broken");
    fs::write(&broken, "not a program").unwrap();
    let before = bench.keeper_pid();
    let asked = bench.engine.upgrade(&broken);
    assert!(matches!(asked, Err(UpgradeError::NotExecuted { .. })), "{asked:?}");
    bench.next_keeper(before);
    assert_eq!(state(&bench, &order.id), InstanceState::Running { pid });
    wait_for_more(&bench, &order.id);
    let log = fs::read_to_string(bench.run_dir().join("keeper.log")).unwrap();
    assert!(log.contains("could not execute") && log.contains("broken"), "{log}");
}

/// A keeper of a version that speaks another language: it ends every conversation.
#[test]
fn a_keeper_that_does_not_understand_is_told_from_one_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("keeper.sock")).unwrap();
    let listening = std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            if stream.read(&mut [0; 1024]).is_ok_and(|n| n == 0) {
                return;
            }
        }
    });
    let engine = Embedded::connect(dir.path()).unwrap();
    let asked = engine.upgrade(Path::new(env!("CARGO_BIN_EXE_keeper-for-tests")));
    assert!(matches!(asked, Err(UpgradeError::NotUnderstood)), "{asked:?}");
    drop(UnixStream::connect(dir.path().join("keeper.sock")));
    listening.join().unwrap();
    let asked = engine.upgrade(Path::new(env!("CARGO_BIN_EXE_keeper-for-tests")));
    assert!(matches!(asked, Err(UpgradeError::Unreachable { .. })), "{asked:?}");
}

/// Where this keeper's groups are in the tree that kills.
fn unified(bench: &Bench) -> PathBuf {
    let all = bench.groups();
    let is_unified = |p: &&PathBuf| p.file_name().unwrap().to_string_lossy().starts_with("kiln-");
    all.iter().filter(is_unified).find(|p| p.join("cgroup.kill").exists()).unwrap().clone()
}

#[test]
fn what_is_in_no_journal_is_found_and_removed() {
    let bench = Bench::new();
    let order = bench.image.order("known", &["/bin/sleep", "1000"]);
    let pid = bench.run(&order);
    // As if a keeper had been killed right after it made a process.
    let leaked = unified(&bench).join("leaked");
    fs::create_dir(&leaked).unwrap();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(leaked.join("cgroup.procs"), child.id().to_string()).unwrap();
    let before = bench.keeper_pid();
    bench.kill_keeper();
    assert!(!child.wait().unwrap().success(), "it was killed");
    bench.next_keeper(before);
    assert!(!leaked.exists());
    assert_eq!(state(&bench, &order.id), InstanceState::Running { pid });
}

#[test]
fn it_may_be_killed_in_the_middle_of_a_fleet_again_and_again() {
    let bench = Bench::new();
    let orders: Vec<_> =
        (0..80).map(|n| bench.image.order(&format!("a-{n}"), &["/bin/sleep", "1000"])).collect();
    let statuses = std::thread::scope(|scope| {
        let creating = scope.spawn(|| bench.engine.create(&orders));
        for _ in 0..2 {
            let before = bench.keeper_pid();
            kill(before);
            bench.next_keeper(before);
        }
        creating.join().unwrap().unwrap()
    });
    assert_eq!(statuses.len(), orders.len());
    let running: Vec<u32> = statuses.iter().filter_map(|s| s.state.pid()).collect();
    for status in &statuses {
        let exit = match &status.state {
            InstanceState::Ended { exit } => exit,
            _ => continue,
        };
        let Exit::NotStarted { cause } = exit else { panic!("{status:?}") };
        assert!(cause.contains("its keeper was ended"), "{cause}");
    }
    assert!(running.len() >= 70, "{} of 80 run", running.len());
    assert!(running.iter().all(|pid| status_of(*pid, "Pid").is_some()));
    let groups =
        fs::read_dir(unified(&bench)).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(groups, running.len(), "nothing but what runs has groups");
    let ids: Vec<_> = orders.iter().map(|o| o.id.clone()).collect();
    bench.engine.kill(&ids).unwrap();
    assert!(running.iter().all(|pid| status_of(*pid, "Pid").is_none()));
}

/// Nothing of a keeper that was killed stays open but what belongs to instances.
#[test]
fn descriptors_do_not_pile_up() {
    let bench = Bench::new();
    bench.run(&bench.image.order("a", &["/bin/sleep", "1000"]));
    let count = || {
        let before = bench.keeper_pid();
        bench.kill_keeper();
        let keeper = bench.next_keeper(before);
        fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count()
    };
    let first = count();
    assert_eq!([count(), count(), count()], [first; 3]);
}

/// The number of each descriptor of a keeper that leads to the mounts of one of these.
fn held_mounts(bench: &Bench, pids: &[u32]) -> Vec<u64> {
    let mounts = pids.iter().map(|pid| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap());
    let mounts: Vec<PathBuf> = mounts.collect();
    let all = fs::read_dir(format!("/proc/{}/fd", bench.keeper_pid())).unwrap().map(|e| e.unwrap().path());
    let held = all.filter(|path| fs::read_link(path).is_ok_and(|to| mounts.contains(&to)));
    held.map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect()
}

/// A keeper holds mounts only where it has enough descriptors: those of the one before it do not count.
#[test]
fn the_next_keeper_holds_as_many_mounts_as_the_last() {
    let run_ten = |bench: &Bench| -> Vec<u32> {
        (0..10).map(|n| bench.run(&bench.image.order(&format!("n{n}"), &["/bin/sleep", "1000"]))).collect()
    };
    let plenty = Bench::new();
    let highest = held_mounts(&plenty, &run_ten(&plenty)).into_iter().max().unwrap();
    let bench = Bench::with_few_descriptors(2 * (highest + 2));
    let pids = run_ten(&bench);
    assert_eq!(held_mounts(&bench, &pids).len(), 10);
    let before = bench.keeper_pid();
    bench.kill_keeper();
    bench.next_keeper(before);
    assert_eq!(held_mounts(&bench, &pids).len(), 10);
}

/// A process of nobody inside, which ends well by itself long before anybody's patience does.
fn outsider(stdout: Stdio) -> Child {
    Command::new("sleep").arg("30").stdout(stdout).spawn().unwrap()
}

fn move_into(group: &Path, process: &Child) {
    fs::write(group.join("cgroup.procs"), process.id().to_string()).unwrap();
}

/// The standard output of a process, to write to.
fn output_of(pid: u32) -> Stdio {
    OpenOptions::new().write(true).open(format!("/proc/{pid}/fd/1")).unwrap().into()
}

/// Its own processes go with its first one; these do not.
#[test]
fn what_was_moved_into_the_groups_of_an_instance_ends_with_it() {
    let bench = Bench::new();
    let order = bench.image.order("a", &["/bin/sleep", "1000"]);
    let pid = bench.run(&order);
    let before = bench.groups();
    let group = unified(&bench).join("a");
    let mut all = [outsider(Stdio::null()), outsider(output_of(pid))];
    all.iter().for_each(|process| move_into(&group, process));
    bench.engine.kill(&[order.id]).unwrap();
    for process in &mut all {
        assert!(!process.wait().unwrap().success(), "it was killed");
    }
    assert!(before.contains(&group) && !bench.groups().contains(&group));
}

/// Who holds its output keeps it from its end; once moved into its groups it can be ended by ending the instance again.
#[test]
fn what_was_moved_into_the_groups_of_an_instance_that_has_ended_can_be_killed() {
    let bench = Bench::new();
    let order = bench.image.order("a", &["/bin/sleep", "1000"]);
    let pid = bench.run(&order);
    let group = unified(&bench).join("a");
    let mut process = outsider(output_of(pid));
    kill(pid as i32);
    bench.to_end(&bench.image.shell("later", "exit 0"));
    assert!(matches!(state(&bench, &order.id), InstanceState::Running { .. }), "its output is still open");
    move_into(&group, &process);
    bench.engine.kill(std::slice::from_ref(&order.id)).unwrap();
    assert!(!process.wait().unwrap().success(), "it was killed");
    assert_eq!(bench.ending(&order.id), Exit::Signal { signal: 9 });
    assert!(!bench.groups().contains(&group));
}
