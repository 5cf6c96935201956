//! An instance that has not ended, or of which something is left.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use kiln_model::{ByteSize, Exit, Inside, InstanceId, InstanceOrder, Millis, OutputStream, Volatile};

use super::super::capture::OutputPipe;
use super::super::cgroup::Wanting;
use super::super::launch::{Launching, MainProcess};
use super::descriptors::Mark;
use super::journal::Trace;

/// What a keeper holds of an instance.
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) stop_signal: i32,
    pub(super) stop_grace: Millis,
    memory: ByteSize,
    pub(super) volatile: Vec<Volatile>,
    pub(super) phase: Phase,
    outputs: [Option<OutputPipe>; 2],
    /// What is written down of it.
    pub(super) trace: Option<Box<Trace>>,
    /// How it finds what it needs, and the sockets that listen for that: one for each port, in this order.
    pub(super) needs: Vec<Inside>,
    pub(super) listeners: Vec<OwnedFd>,
    /// Why its program never ran.
    pub(super) failure: Option<String>,
    /// Whether it is ending because it was told to, at once.
    pub(super) is_killed: bool,
    /// Of whose memory it is ending for want of, if the kernel killed one of its processes for that.
    pub(super) starved: Option<Wanting>,
    /// Its mount namespace, held so that its volatile paths can be looked at when it has ended by itself. Let go of
    /// before it is asked to end: whoever lets go last takes the mounts down, and that is to be its own process.
    pub(super) mounts: Option<OwnedFd>,
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
            volatile: order.volatile.clone(),
            needs: order.needs.clone(),
            listeners: Vec::new(),
            phase: Phase::Queued(Box::new(order)),
            outputs: [None, None],
            trace: None,
            failure: None,
            is_killed: false,
            starved: None,
            mounts: None,
        }
    }

    /// One that another keeper has made.
    pub(super) fn adopt(
        trace: Trace,
        phase: Phase,
        outputs: [Option<OutputPipe>; 2],
        listeners: Vec<OwnedFd>,
    ) -> Self {
        Self {
            id: trace.id.clone(),
            stop_signal: trace.stop_signal,
            stop_grace: trace.stop_grace,
            memory: trace.memory,
            volatile: trace.volatile.clone(),
            needs: trace.needs.clone(),
            listeners,
            phase,
            outputs,
            trace: Some(Box::new(trace)),
            failure: None,
            is_killed: false,
            starved: None,
            mounts: None,
        }
    }

    /// What becomes of it if this keeper is killed: what the next one must know.
    pub(super) fn describe(&self, order: &InstanceOrder, launching: &Launching) -> io::Result<Trace> {
        let (ids, accounting_uid) = launching.ids().ok_or(io::ErrorKind::InvalidInput)?;
        let main = launching.main();
        let mark = |pipe: &Option<OutputPipe>| match pipe {
            Some(pipe) => Mark::of(pipe.reader()),
            None => Ok(Mark::NOTHING),
        };
        Ok(Trace {
            id: self.id.clone(),
            app: order.app.clone(),
            ids,
            accounting_uid,
            stop_signal: self.stop_signal,
            stop_grace: self.stop_grace,
            memory: self.memory,
            pid: main.pid(),
            process: Mark::of(main.pidfd())?,
            outputs: [mark(&self.outputs[0])?, mark(&self.outputs[1])?],
            volatile: self.volatile.clone(),
            needs: self.needs.clone(),
            listeners: Vec::new(),
        })
    }

    /// How its process ended, if it has and the rest has not.
    pub(super) fn exit(&self) -> Option<&Exit> {
        match &self.phase {
            Phase::Leaving { exit, .. } => Some(exit),
            _ => None,
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
    pub(super) fn verdict(&mut self, exit: Exit, want_of_memory: impl FnOnce() -> Option<Wanting>) -> Exit {
        if let Some(cause) = self.failure.take() {
            return Exit::NotStarted { cause };
        }
        if let Some(wanting) = self.starved {
            return self.out_of_memory(wanting);
        }
        let may_be_memory = match exit {
            Exit::Signal { signal } => signal == libc::SIGKILL && !self.is_killed,
            // What a shell returns whose command was killed.
            Exit::Code { code } => code == 128 + libc::SIGKILL,
            _ => false,
        };
        match may_be_memory.then(want_of_memory).flatten() {
            Some(wanting) => self.out_of_memory(wanting),
            None => exit,
        }
    }

    fn out_of_memory(&self, wanting: Wanting) -> Exit {
        match wanting {
            Wanting::ItsOwn => Exit::OutOfMemory { limit: self.memory },
            Wanting::TheHosts => Exit::HostOutOfMemory,
        }
    }
}
