//! Commands inside of instances.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use kiln_engine::{EngineError, Execution};
use kiln_model::{Exit, InstanceId};
use rustix::pipe::pipe;

use super::watch::{PATIENCE, create_one, listed, run_one};
use super::{Case, Command, Harness, Program};

pub(super) const CASES: &[Case] = &[
    ("what a command writes arrives, and its code is reported", output_and_code),
    ("a command that is not there is named", missing),
    ("commands are no business of the main process", side_by_side),
    ("a command that nobody waits for is ended", dropped),
    ("a command ends with its instance", ends_with_instance),
    ("no command without a running instance", nobody_there),
];

/// Begins a command; the second value is where it writes to.
pub(super) fn begin(harness: &dyn Harness, id: &InstanceId, command: Command) -> (Box<dyn Execution>, File) {
    let (stdin, _) = pipe().expect("a pipe");
    let (output, stdout) = pipe().expect("a pipe");
    let stderr: OwnedFd = stdout.try_clone().expect("a descriptor");
    let order = harness.command(command);
    let execution =
        harness.engine().exec(id, &order, [stdin, stdout, stderr]).expect("an engine that answers");
    (execution, output.into())
}

pub(super) fn end(execution: &mut dyn Execution) -> Exit {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(exit) = execution.wait(Duration::from_secs(5)).expect("an instance that runs") {
            return exit;
        }
    }
    panic!("the command did not end");
}

fn output_and_code(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::Runs);
    let (mut execution, mut output) = begin(harness, &id, Command::Prints("hello there"));
    assert_eq!(end(&mut *execution), Exit::Code { code: 0 });
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello there\n");
    for code in [0, 1, 255] {
        let (mut execution, _) = begin(harness, &id, Command::Exits(code));
        assert_eq!(end(&mut *execution), Exit::Code { code: code.into() });
    }
}

fn missing(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::Runs);
    let (mut execution, _) = begin(harness, &id, Command::Missing);
    let exit = end(&mut *execution);
    assert!(matches!(&exit, Exit::NotStarted { cause } if cause.contains("missing")), "{exit:?}");
}

fn side_by_side(harness: &dyn Harness) {
    let (order, before) = create_one(harness, "a", Program::Runs);
    let (mut long, _) = begin(harness, &order.id, Command::Runs);
    let (mut short, _) = begin(harness, &order.id, Command::Exits(3));
    assert_eq!(end(&mut *short), Exit::Code { code: 3 });
    assert_eq!(long.wait(Duration::from_millis(1)).unwrap(), None);
    assert_eq!(listed(harness.engine(), &order.id), Some(before));
}

fn dropped(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::Runs);
    let (execution, mut output) = begin(harness, &id, Command::Runs);
    drop(execution);
    // It held the other end until it ended.
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
}

fn ends_with_instance(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::Runs);
    let (mut execution, mut output) = begin(harness, &id, Command::PrintsAndRuns("here"));
    // One that has not begun to run would only be told that there is nothing to run in.
    output.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(execution.wait(Duration::from_millis(1)).unwrap(), None);
    harness.engine().kill(std::slice::from_ref(&id)).unwrap();
    assert_eq!(end(&mut *execution), Exit::Signal { signal: 9 });
}

fn nobody_there(harness: &dyn Harness) {
    let id = run_one(harness, "a", Program::Runs);
    harness.engine().kill(std::slice::from_ref(&id)).unwrap();
    for id in [id, "nobody".parse().unwrap()] {
        let (mut execution, _) = begin(harness, &id, Command::Exits(0));
        let refused = execution.wait(PATIENCE);
        assert!(matches!(&refused, Err(EngineError::NoSuchInstance(which)) if *which == id), "{refused:?}");
    }
}
