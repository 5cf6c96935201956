//! What every engine does, as tests any engine can be put to.
//!
//! A [`Harness`] gives the engine under test, and orders for instances that behave in certain ways: how a program is
//! made to behave so is the harness's business. Each case gets a harness of its own.

mod creating;
mod ending;
mod executing;
mod needs;
mod sockets;
mod telling;
mod watch;

use kiln_engine::{Broker, Engine};
use kiln_model::{ExecOrder, InstanceId, InstanceOrder};

/// How an instance behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Runs until it is ended; does nothing about signals.
    Runs,
    /// Runs until its stop signal comes, and ends then.
    HandlesStop,
    /// Runs, and goes on when its stop signal comes.
    IgnoresStop,
    /// Ends at once with this code.
    Exits(u8),
    /// Needs more memory than it may have.
    EatsMemory,
    /// Is not in its image.
    Missing,
}

/// What a command inside an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Prints this and a newline, and ends with 0.
    Prints(&'static str),
    /// Ends at once with this code.
    Exits(u8),
    /// Runs until it is ended, and says nothing.
    Runs,
    /// Prints this and a newline, and runs until it is ended.
    PrintsAndRuns(&'static str),
    /// Is not in the image.
    Missing,
    /// Connects to something its instance needs, sends this and a newline, and ends when the other side does.
    Tells {
        /// The name of the need.
        need: &'static str,
        /// One of its ports.
        port: u16,
        /// What is sent.
        text: &'static str,
    },
}

/// An engine under test, and what it takes to test it.
pub trait Harness {
    /// The engine; it has no instances at first.
    fn engine(&self) -> &dyn Engine;

    /// Another connection to its broker.
    fn broker(&self) -> Box<dyn Broker>;

    /// An order for an instance that behaves so.
    fn order(&self, id: &str, program: Program) -> InstanceOrder;

    /// A command that does so, in an instance of any program.
    fn command(&self, command: Command) -> ExecOrder;

    /// Waits until the program of a running instance has arranged what it does about signals. Programs of an engine
    /// without processes need no time.
    fn wait_until_ready(&self, _: &InstanceId, _: Program) {}

    /// Kills the main process of an instance, without the engine's knowing.
    fn kill_unseen(&self, id: &InstanceId);

    /// Lets the time pass that an instance was given to end. An engine with a clock of its own needs no help.
    fn grace_is_over(&self, _: &InstanceId) {}
}

type Case = (&'static str, fn(&dyn Harness));

const CASES: &[&[Case]] =
    &[creating::CASES, ending::CASES, telling::CASES, sockets::CASES, needs::CASES, executing::CASES];

/// Puts engines to all cases, each to a new one.
///
/// # Panics
/// At the first that an engine does otherwise; the case is named on standard error.
pub fn run(new: &dyn Fn() -> Box<dyn Harness>) {
    for (name, case) in CASES.iter().copied().flatten() {
        eprintln!("case: {name}");
        case(&*new());
    }
}
