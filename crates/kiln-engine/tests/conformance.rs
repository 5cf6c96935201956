//! The embedded engine does what every engine does.

mod common;

use common::Bench;
use kiln_engine::embedded::broker;
use kiln_engine::{Broker, Engine};
use kiln_model::{ExecOrder, InstanceId, InstanceOrder};
use kiln_testkit::conformance::{self, Command, Harness, Program};
use rustix::process::{Pid, Signal, kill_process};

impl Harness for Bench {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn broker(&self) -> Box<dyn Broker> {
        Box::new(broker::Client::connect(&broker::socket_path(&self.run_dir())).unwrap())
    }

    fn order(&self, id: &str, program: Program) -> InstanceOrder {
        match program {
            Program::Runs => self.image.order(id, &["/bin/sleep", "1000"]),
            Program::HandlesStop => {
                self.image.shell(id, "trap 'exit 3' TERM; echo ready; while true; do sleep 0.01; done")
            }
            Program::IgnoresStop => {
                self.image.shell(id, "trap '' TERM; echo ready; while true; do sleep 1000; done")
            }
            Program::Exits(code) => self.image.shell(id, &format!("exit {code}")),
            Program::EatsMemory => self.image.order(id, &["/bin/tail", "/dev/zero"]),
            Program::Missing => self.image.order(id, &["/bin/missing"]),
        }
    }

    fn command(&self, command: Command) -> ExecOrder {
        let argv = match command {
            Command::Prints(text) => vec!["echo".into(), text.to_owned()],
            Command::Exits(code) => vec!["/bin/sh".into(), "-c".into(), format!("exit {code}")],
            Command::Runs => vec!["sleep".into(), "1000".into()],
            Command::PrintsAndRuns(text) => {
                vec!["/bin/sh".into(), "-c".into(), format!("echo {text}; exec sleep 1000")]
            }
            Command::Missing => vec!["missing".into()],
            Command::Tells { need, port, text } => {
                vec!["/bin/sh".into(), "-c".into(), format!("echo {text} | nc {need} {port}")]
            }
        };
        self.image.command(argv)
    }

    fn wait_until_ready(&self, id: &InstanceId, program: Program) {
        if matches!(program, Program::HandlesStop | Program::IgnoresStop) {
            self.wait_for_output(id, "ready");
        }
    }

    fn kill_unseen(&self, id: &InstanceId) {
        let list = self.engine.list().unwrap();
        let pid = list.iter().find(|s| s.id == *id).and_then(|s| s.state.pid()).unwrap();
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    }
}

#[test]
fn it_does_what_every_engine_does() {
    conformance::run(&|| Box::new(Bench::new()));
}
