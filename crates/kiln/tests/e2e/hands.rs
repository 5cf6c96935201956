//! People who lay hands on an instance: they may, it is written down, and nobody else notices.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use crate::host::{TestHost, said};
use crate::project::Project;

fn first_instance(host: &TestHost) -> String {
    host.json(&["instances"])[0]["id"].as_str().unwrap().to_owned()
}

fn is_replaced(host: &TestHost, victim: &str) -> bool {
    let now = host.json(&["instances"]);
    let all = now.as_array().unwrap();
    all.len() == 4 && all.iter().all(|i| i["state"] == "ready" && i["id"] != victim)
}

#[test]
fn who_is_touched_is_replaced_and_nobody_is_dropped() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let load = host.load();
    let victim = first_instance(&host);
    let diff = host.json(&["diff", &victim]);
    let paths = |diff: &Value| {
        diff["volatile"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["path"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(!paths(&diff).contains(&"/tmp/x".to_owned()) && diff["drift"] == serde_json::json!([]), "{diff}");
    let output = host.kiln(&[
        "exec",
        &victim,
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; hostname > /tmp/x; cat /tmp/x >/dev/null; exit 7",
    ]);
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    host.wait_until("the touched instance is replaced", || is_replaced(&host, &victim));
    let report = load.stop();
    assert_eq!(report.failures, [], "of {} requests", report.requests);
    let all = host.json(&["instances", "--all"]);
    let gone = all.as_array().unwrap().iter().find(|i| i["id"] == victim.as_str()).unwrap().clone();
    assert_eq!(gone["state"], "replaced");
    assert!(gone["reason"].as_str().unwrap().contains("root ran `sh -c"), "{gone}");
    let log = host.json(&["log"]);
    let entries: Vec<&Value> = log.as_array().unwrap().iter().collect();
    let of = |what: &str| {
        entries.iter().find(|e| e["what"] == what).unwrap_or_else(|| panic!("no {what} in {log}"))
    };
    assert_eq!(of("exec")["by"], "root");
    assert!(of("replace")["reason"].as_str().unwrap().starts_with(&victim), "{log}");
}

#[test]
fn input_is_passed_on_and_an_interrupted_command_ends() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let victim = first_instance(&host);
    let mut command = host.command(&["exec", &victim, "--", "sh", "-c", "cat; echo end"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"typed\nend\n"[..]));

    let other = host.json(&["instances"])[3]["id"].as_str().unwrap().to_owned();
    let mut command = host.command(&["exec", &other, "--", "sh", "-c", "echo $$; exec sleep 1000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait().unwrap();
    host.wait_until("both touched instances are replaced", || {
        is_replaced(&host, &other) && is_replaced(&host, &victim)
    });
}

#[test]
fn what_cannot_be_run_is_told() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let output = host.kiln(&["exec", "hello-web-1-99", "--", "true"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("there is no running instance hello-web-1-99"), "{}", said(&output));
    let victim = first_instance(&host);
    let output = host.kiln(&["exec", &victim, "--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127), "{}", said(&output));
    assert!(said(&output).contains("no-such-program, which is not on the PATH"), "{}", said(&output));
    host.wait_until("the touched instance is replaced", || is_replaced(&host, &victim));
    let victim = first_instance(&host);
    let output = host.kiln(&["exec", &victim, "--", "/etc/passwd"]);
    assert_eq!(output.status.code(), Some(126), "{}", said(&output));
    assert!(said(&output).contains("could not execute /etc/passwd"), "{}", said(&output));
    host.wait_until("the touched instance is replaced", || is_replaced(&host, &victim));
    let victim = first_instance(&host);
    let output = host.kiln(&["exec", &victim, "--", ""]);
    assert_eq!(output.status.code(), Some(127), "{}", said(&output));
    assert!(said(&output).contains("could not execute a program without a name"), "{}", said(&output));
    host.wait_until("the touched instance is replaced", || is_replaced(&host, &victim));
    // Short enough for the kernel, and as JSON too long for the host's door.
    let (victim, long) = (first_instance(&host), "\u{1}".repeat(100_000));
    let output = host.kiln(&["exec", &victim, "--", "true", &long, &long]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("standard input"), "{}", said(&output));
    assert_eq!(victim, first_instance(&host), "it was not touched");
}

#[test]
fn a_command_ends_with_who_reads_it_and_with_the_keeper() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let victim = first_instance(&host);
    let mut command = host.command(&["exec", &victim, "--", "sh", "-c", "while :; do echo y; done"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 2]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    host.wait_until("the touched instance is replaced", || is_replaced(&host, &victim));

    let victim = first_instance(&host);
    let mut command = host.command(&["exec", &victim, "--", "sh", "-c", "echo begun; exec sleep 1000"]);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    kill_process(host.keeper(), Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(9), "{}", said(&output));
    assert!(said(&output).contains("the session broke off"), "{}", said(&output));
}

#[test]
fn output_that_a_full_disk_does_not_take_ends_the_command_and_is_told() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (name, script) in [("stdout", "while :; do echo y; done"), ("stderr", "while :; do echo y >&2; done")]
    {
        let victim = first_instance(&host);
        let mut command = host.command(&["exec", &victim, "--", "sh", "-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let output = match name {
            "stdout" => command.stdout(full()).output().unwrap(),
            _ => command.stderr(full()).output().unwrap(),
        };
        assert_eq!(output.status.code(), Some(9), "{}", said(&output));
        if name == "stdout" {
            assert!(said(&output).contains("stdout could not be written here"), "{}", said(&output));
        }
        host.wait_until("the touched instance is replaced", || is_replaced(&host, &victim));
    }
    let output = host.command(&["logs"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(9), "{}", said(&output));
    assert!(said(&output).contains("No space left on device"), "{}", said(&output));
}

/// Everything that has come out of a terminal until something has.
fn read_until(terminal: &mut std::fs::File, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let mut bytes = [0; 1024];
        // The kernel may tell of the end before it hands out what was written last.
        let read = terminal.read(&mut bytes).or_else(|_| terminal.read(&mut bytes));
        let length = read.unwrap_or_else(|e| panic!("{e}, after {text:?}"));
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    text
}

#[test]
fn a_terminal_is_passed_through_with_its_size_and_its_keys() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let victim = first_instance(&host);
    let size = |rows, columns| Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&ours).unwrap();
    tcsetwinsize(&ours, size(33, 77)).unwrap();
    let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    let script = "tty -s && stty size; echo $TERM; while [ \"$(stty size)\" != '20 50' ]; do sleep 0.1; done; \
        echo resized; trap 'echo stopped; exit 9' INT; echo waiting; while :; do sleep 0.1; done";
    let mut command = host.command(&["exec", &victim, "--", "sh", "-c", script]);
    command.env("TERM", "xterm-kiln").stdin(theirs.try_clone().unwrap());
    command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
    // SAFETY: two system calls on numbers, between fork and exec.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(rustix::process::ioctl_tiocsctty(std::io::stdin())?)
        });
    }
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut terminal = std::fs::File::from(ours);
    let told = read_until(&mut terminal, "xterm-kiln");
    assert!(told.contains("33 77"), "{told}");
    tcsetwinsize(&terminal, size(20, 50)).unwrap();
    read_until(&mut terminal, "waiting");
    terminal.write_all(&[3]).unwrap();
    read_until(&mut terminal, "stopped");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    host.wait_until("the touched instance is replaced", || is_replaced(&host, &victim));
}
