//! An instance that has not ended, or of which something is left.

use std::time::Instant;

use kiln_model::{ByteSize, Exit, InstanceId, InstanceOrder, Millis, OutputStream};

use super::super::capture::OutputPipe;
use super::super::launch::{Launching, MainProcess};

/// What a keeper holds of an instance.
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) stop_signal: i32,
    pub(super) stop_grace: Millis,
    memory: ByteSize,
    pub(super) phase: Phase,
    outputs: [Option<OutputPipe>; 2],
    /// Why its program never ran.
    pub(super) failure: Option<String>,
    /// Whether it is ending because it was told to, at once.
    pub(super) is_killed: bool,
}

/// Where it is, as its keeper sees it.
pub(super) enum Phase {
    /// Its turn has not come.
    Queued(Box<InstanceOrder>),
    /// Its child is on its way to the program.
    Launching(Box<Launching>),
    /// Its main process is there.
    Live(MainProcess),
    /// Its main process is not, and what is left is being removed.
    Leaving {
        /// How it ended.
        exit: Exit,
        /// When the last attempt to remove what is left is made.
        deadline: Instant,
    },
}

impl Instance {
    pub(super) fn new(order: InstanceOrder) -> Self {
        Self {
            id: order.id.clone(),
            stop_signal: order.run.stop_signal,
            stop_grace: order.run.stop_grace,
            memory: order.limits.memory,
            phase: Phase::Queued(Box::new(order)),
            outputs: [None, None],
            failure: None,
            is_killed: false,
        }
    }

    pub(super) fn output(&mut self, stream: OutputStream) -> &mut Option<OutputPipe> {
        &mut self.outputs[match stream {
            OutputStream::Stdout => 0,
            OutputStream::Stderr => 1,
        }]
    }

    /// Whether all it has written is kept.
    pub(super) fn is_silent(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    /// The process to signal, if there is one.
    pub(super) fn main(&self) -> Option<&MainProcess> {
        match &self.phase {
            Phase::Launching(launching) => Some(launching.main()),
            Phase::Live(main) => Some(main),
            Phase::Queued(_) | Phase::Leaving { .. } => None,
        }
    }

    /// How it ended, given how its main process did.
    pub(super) fn verdict(&mut self, exit: Exit, ran_out_of_memory: impl FnOnce() -> bool) -> Exit {
        if let Some(cause) = self.failure.take() {
            return Exit::NotStarted { cause };
        }
        let may_be_memory = match exit {
            Exit::Signal { signal } => signal == libc::SIGKILL && !self.is_killed,
            // What a shell returns whose command was killed.
            Exit::Code { code } => code == 128 + libc::SIGKILL,
            _ => false,
        };
        if may_be_memory && ran_out_of_memory() {
            return Exit::OutOfMemory { limit: self.memory };
        }
        exit
    }
}
