//! How a keeper goes on where another one was killed, or wants it to.

use std::os::fd::OwnedFd;

use kiln_model::{Exit, InstanceState, OutputStream};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};

use super::super::capture::OutputPipe;
use super::super::launch::MainProcess;
use super::descriptors::{Inheritance, Mark};
use super::holder::complain;
use super::instance::{Instance, Phase};
use super::journal::{Left, Past, Trace};
use super::poll::Source;
use super::tending::leaving;
use super::turn::{Alarm, Keeper};
use super::{KeeperError, orphans};

const STREAMS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];

impl Keeper {
    /// Goes on with every instance there is, remembers those that have ended, and removes what belongs to neither.
    pub(super) fn adopt(&mut self, left: Left, mut inheritance: Inheritance) -> Result<(), KeeperError> {
        if let Err(why) = self.transit.finish(&self.output) {
            // An instance that cannot log goes on serving.
            complain(&format!("could not keep what another keeper had read: {why}\n"));
        }
        let Past { traces, statuses, places, .. } = match left {
            Left::Nothing => Past::default(),
            Left::Unfinished(past) => past,
        };
        self.places = places;
        for status in statuses {
            self.register.set(&status.id, status.state, status.since);
        }
        let mut at_work = Vec::new();
        for (trace, exit) in traces.into_values() {
            at_work.extend(self.adopt_one(trace, exit, &mut inheritance));
        }
        // Whatever else a keeper had opened: conversations, launches that will not go on, and the mounts it held, beside
        // which there may be no room for others.
        drop(inheritance);
        at_work.iter().for_each(|(number, main)| self.hold_mounts(*number, main));
        orphans::remove(&self.groups, |name| self.numbers.keys().any(|id| id.as_str() == name))
            .map_err(|e| KeeperError::new("remove what another keeper left", e))?;
        self.write_journal_anew().map_err(|e| KeeperError::new("write its journal", e))
    }

    /// Its number and its first process, if it goes on.
    fn adopt_one(
        &mut self,
        trace: Trace,
        exit: Option<Exit>,
        inheritance: &mut Inheritance,
    ) -> Option<(u64, MainProcess)> {
        let (number, id) = (self.next_number(), trace.id.clone());
        self.launcher.restore(&trace.app, trace.ids, trace.accounting_uid);
        self.register.expect(id.clone());
        let outputs = [0, 1].map(|n| self.adopt_output(number, n, &trace, inheritance));
        let main = exit.is_none().then(|| self.find_process(&trace, inheritance)).flatten();
        let watched = main.filter(|main| self.poll.add(main.pidfd(), Source::Main(number)).is_ok());
        let main = watched.clone();
        // One whose end nobody saw is gone, and how is not known.
        let phase = watched.map_or_else(|| leaving(exit.unwrap_or(Exit::Unknown)), Phase::Live);
        let listeners = trace.listeners.iter().map(|mark| inheritance.take(*mark));
        // All or none: whoever asks is told them by their places.
        let listeners = listeners.collect::<Option<Vec<OwnedFd>>>().unwrap_or_default();
        self.begin_rounds();
        self.instances.insert(number, Instance::adopt(trace, phase, outputs, listeners));
        self.numbers.insert(id.clone(), number);
        let Some(main) = main else {
            self.begin_removal(number);
            return None;
        };
        match self.register.status(&id).map(|status| &status.state) {
            Some(InstanceState::Stopping { .. }) => self.give_grace(number),
            Some(_) => return Some((number, main)),
            None => self.give_up_launch(number),
        }
        None
    }

    fn find_process(&self, trace: &Trace, inheritance: &mut Inheritance) -> Option<MainProcess> {
        let inherited = inheritance.take(trace.process);
        let found = inherited.or_else(|| {
            let pidfd = MainProcess::open(trace.pid).ok()?;
            (Mark::of(&pidfd).ok()? == trace.process).then_some(pidfd)
        })?;
        Some(MainProcess::adopt(found, trace.pid))
    }

    fn adopt_output(
        &mut self,
        number: u64,
        n: usize,
        trace: &Trace,
        inheritance: &mut Inheritance,
    ) -> Option<OutputPipe> {
        let stream = STREAMS[n];
        let reader = inheritance.take(trace.outputs[n]).or_else(|| self.find_pipe(trace, n))?;
        let pipe = OutputPipe::adopt(stream, reader);
        self.poll.add(pipe.reader(), Source::Output(number, stream)).ok()?;
        Some(pipe)
    }

    /// The pipe an instance writes to, which it holds open for reading too. What else it may have put in its place is
    /// not opened.
    fn find_pipe(&self, trace: &Trace, n: usize) -> Option<OwnedFd> {
        let path = format!("{}/fd/{}", trace.pid, n + 1);
        let there = statat(&self.host.proc, &path, AtFlags::empty()).ok()?;
        if Mark::of_stat(&there) != trace.outputs[n] {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let reader = openat(&self.host.proc, &path, flags, Mode::empty()).ok()?;
        (Mark::of(&reader).ok()? == trace.outputs[n]).then_some(reader)
    }

    /// The whole grace period again: when the last one began by a clock that does not jump is not known.
    fn give_grace(&mut self, number: u64) {
        let Some(instance) = self.instances.get(&number) else { return };
        let grace = instance.stop_grace.duration();
        if let Some(deadline) = std::time::Instant::now().checked_add(grace) {
            self.alarms.insert((deadline, Alarm::Grace(number)));
        }
    }

    /// Its child waits for a word from the keeper that is gone.
    fn give_up_launch(&mut self, number: u64) {
        if let Some(instance) = self.instances.get_mut(&number) {
            instance.failure = Some("its keeper was ended while it was being started".into());
        }
        self.kill_one(number);
    }
}
