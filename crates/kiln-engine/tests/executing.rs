//! A command inside an instance is confined as the instance is.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use common::{Bench, PATIENCE};
use kiln_engine::Engine;
use kiln_model::{ByteSize, Capability, ExecOrder, Exit, InstanceId, SecretOrder, SecretValue};
use rustix::pipe::pipe;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Runs a script beside the main process: how it ended, and what it wrote.
fn run(bench: &Bench, id: &InstanceId, script: &str, input: &str) -> (Exit, String) {
    let order = bench.image.command(["/bin/sh", "-c", script].map(String::from).to_vec());
    run_command(bench, id, &order, input)
}

fn run_command(bench: &Bench, id: &InstanceId, order: &ExecOrder, input: &str) -> (Exit, String) {
    let (stdin, mut typed) = pipe().map(|(r, w)| (r, File::from(w))).unwrap();
    let (output, stdout) = pipe().unwrap();
    typed.write_all(input.as_bytes()).unwrap();
    drop(typed);
    let stderr: OwnedFd = stdout.try_clone().unwrap();
    let mut execution = bench.engine.exec(id, order, [stdin, stdout, stderr]).unwrap();
    let mut text = String::new();
    File::from(output).read_to_string(&mut text).unwrap();
    (execution.wait(PATIENCE).unwrap().expect("it has closed its output"), text)
}

const NAMESPACES: &str = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/$WHO/ns/$n; done; \
    cat /proc/$WHO/cgroup; grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap)' /proc/$WHO/status";

#[test]
fn it_is_where_the_main_process_is_and_may_do_no_more() {
    let bench = Bench::new();
    let order = bench.image.order("a", &["/bin/sleep", "1000"]);
    bench.run(&order);
    let of_main = run(&bench, &order.id, &NAMESPACES.replace("$WHO", "1"), "");
    let own = run(&bench, &order.id, &NAMESPACES.replace("$WHO", "self"), "");
    assert_eq!(of_main, own);
    let text = own.1;
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    let attempts =
        "touch /etc/x || mount -t tmpfs none /tmp || unshare -U true || echo 1 > /proc/sys/kernel/panic";
    let (exit, _) = run(&bench, &order.id, attempts, "");
    assert!(matches!(exit, Exit::Code { code: 1.. }), "{exit:?}");
}

/// It begins with all descriptors of the keeper, which has directories of the host open.
#[test]
fn neither_its_directory_nor_its_program_leads_out_by_a_descriptor() {
    let bench = Bench::new();
    let order = bench.image.order("a", &["/bin/sleep", "1000"]);
    bench.run(&order);
    for number in 0..128 {
        let mut command = bench.image.command(["/bin/true"].map(String::from).to_vec());
        command.workdir = format!("/proc/self/fd/{number}");
        let (exit, text) = run_command(&bench, &order.id, &command, "");
        assert!(matches!(exit, Exit::NotStarted { .. }), "{number}: {exit} {text}");
        for there in ["../bin/true", "../usr/bin/true", "../../bin/true", "../../../../../usr/bin/true"] {
            let program = format!("/proc/self/fd/{number}/{there}");
            let (exit, text) =
                run_command(&bench, &order.id, &bench.image.command(vec![program.clone()]), "");
            assert!(matches!(exit, Exit::NotStarted { .. }), "{program}: {exit} {text}");
        }
    }
}

/// Commands begin where there is hardly any room, more or less of it.
#[test]
fn commands_in_an_instance_that_is_full_are_killed_and_nobody_else_is() {
    let bench = Bench::new();
    let keeper = bench.keeper_pid();
    let nothing = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    for n in 0..24 {
        let fill = format!("head -c {}k /dev/zero > /tmp/full; exec sleep 1000", 2048 + n * 96);
        let mut order = bench.image.shell(&format!("a-{n}"), &fill);
        order.limits.memory = ByteSize(4 << 20);
        bench.run(&order);
        for _ in 0..10 {
            let command = bench.image.command(["/bin/true"].map(String::from).to_vec());
            if let Ok(mut execution) =
                bench.engine.exec(&order.id, &command, [nothing(), nothing(), nothing()])
            {
                let _ = execution.wait(PATIENCE);
            }
        }
    }
    assert_eq!(bench.keeper_pid(), keeper);
}

#[test]
fn it_reads_what_it_is_given_and_sees_what_the_instance_has() {
    let bench = Bench::new();
    let order =
        bench.image.shell("a", "echo inside > /tmp/file; hostname > /tmp/name; echo ready; sleep 1000");
    bench.run(&order);
    bench.wait_for_output(&order.id, "ready");
    let (exit, text) =
        run(&bench, &order.id, "cat; cat /tmp/file /tmp/name; ps | grep -c sleep; exit 4", "typed\n");
    assert_eq!(exit, Exit::Code { code: 4 });
    assert!(text.starts_with("typed\ninside\na\n"), "{text}");
}

#[test]
fn it_has_the_secrets_that_are_variables_and_the_capabilities_it_is_given() {
    let bench = Bench::new();
    let order = bench.image.order("a", &["/bin/sleep", "1000"]);
    bench.run(&order);
    let mut command = bench.image.command(
        ["/bin/sh", "-c", "echo $PLAIN $SECRET; grep CapEff /proc/self/status"].map(String::from).to_vec(),
    );
    command.env =
        [("PLAIN".to_owned(), "word".to_owned()), ("SECRET".to_owned(), "hidden".to_owned())].into();
    let value = SecretValue::new(b"sesame".to_vec()).unwrap();
    command.secrets = vec![SecretOrder { name: "KEY".parse().unwrap(), value, env: Some("SECRET".into()) }];
    command.capabilities = [Capability::Kill].into();
    let (exit, text) = run_command(&bench, &order.id, &command, "");
    assert_eq!((exit, text.as_str()), (Exit::Code { code: 0 }, "word sesame\nCapEff:\t0000000000000020\n"));
}

#[test]
fn it_counts_against_the_limits_of_its_instance() {
    let bench = Bench::new();
    let mut order = bench.image.order("a", &["/bin/sleep", "1000"]);
    order.limits.pids = 5;
    bench.run(&order);
    let (_, text) = run(&bench, &order.id, "for n in 1 2 3 4 5 6; do sleep 0.2 & echo $n; done; wait", "");
    assert!(text.contains("fork") && !text.contains('6'), "{text}");
    let (exit, _) = run(&bench, &order.id, "tail /dev/zero", "");
    let whole = bench.ending(&order.id);
    assert_eq!(whole, Exit::OutOfMemory { limit: order.limits.memory }, "the command {exit:?}");
}

#[test]
fn a_terminal_is_one_inside_too() {
    let bench = Bench::new();
    let order = bench.image.order("a", &["/bin/sleep", "1000"]);
    bench.run(&order);
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&ours).unwrap();
    let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&ours, size).unwrap();
    let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    let streams = [theirs.try_clone().unwrap(), theirs.try_clone().unwrap(), theirs];
    // The shell tells whether it has a terminal; Ctrl-C reaches what runs on it.
    let script = "trap 'echo interrupted; exit 5' INT; test -t 0 && echo terminal; echo told > /dev/tty; \
        while true; do sleep 0.1; done";
    let mut command = bench.image.command(["/bin/sh", "-c", script].map(String::from).to_vec());
    command.has_terminal = true;
    let mut execution = bench.engine.exec(&order.id, &command, streams).unwrap();
    let mut ours = File::from(ours);
    let mut text = String::new();
    let mut read_until = |ours: &mut File, wanted: &str| {
        while !text.contains(wanted) {
            let mut bytes = [0; 256];
            // The kernel may tell of the end before it hands out what was written last.
            let length = ours.read(&mut bytes).or_else(|_| ours.read(&mut bytes)).unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    };
    read_until(&mut ours, "told");
    ours.write_all(&[3]).unwrap();
    read_until(&mut ours, "interrupted");
    assert_eq!(execution.wait(PATIENCE).unwrap(), Some(Exit::Code { code: 5 }));
    assert!(text.contains("terminal"), "{text}");
}
