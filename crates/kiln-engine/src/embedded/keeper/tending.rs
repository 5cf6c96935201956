//! What a keeper does when something happens to an instance, from its launch to its end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use kiln_model::{Exit, InstanceId, InstanceOrder, InstanceState, OutputStream};

use super::super::capture::OutputPipe;
use super::super::cgroup::{Allowance, NO_IO};
use super::super::launch::{LAUNCHES_AT_ONCE, LaunchError, Launching, MainProcess, ParentTimes, Progress};
use super::instance::{Instance, Phase};
use super::poll::Source;
use super::rounds::full_at_the_end;
use super::turn::{Alarm, Keeper, now};

/// How long the kernel may take to let go of the last process of a group, and how often that is looked at.
const REMOVAL: Duration = Duration::from_secs(10);
const REMOVE_AGAIN: Duration = Duration::from_millis(2);

/// How long the output of an instance without a process may stay open before whoever is in its groups is killed. Its own
/// processes have closed it, and reading what is left takes less.
const OUTSIDERS: Duration = Duration::from_millis(100);

impl Keeper {
    /// Starts launches, as many as there is room for.
    pub(super) fn launch_more(&mut self) {
        while self.launches < LAUNCHES_AT_ONCE
            && self.handing_over.is_none()
            && let Some(number) = self.queue.pop_front()
        {
            self.launch(number);
        }
        if self.launches == 0 {
            self.launcher.rest();
        }
    }

    fn launch(&mut self, number: u64) {
        let Some(instance) = self.instances.get_mut(&number) else { return };
        // What is left in its place is what it becomes if there will be no process.
        let nothing = leaving(Exit::Unknown);
        let Phase::Queued(order) = std::mem::replace(&mut instance.phase, nothing) else { return };
        match self.begin_launch(number, &order) {
            Ok(launching) => {
                self.launches += 1;
                self.set_phase(number, Phase::Launching(Box::new(launching)));
            }
            Err(cause) => self.never_ran(number, cause),
        }
    }

    fn begin_launch(&mut self, number: u64, order: &InstanceOrder) -> Result<Launching, String> {
        let with = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| LaunchError::new(what, e).in_full()
        };
        let mut times = self.host.times.is_some().then(ParentTimes::begin);
        if order.limits.io.is_some() {
            if !self.groups.can_limit_reading() {
                return Err(format!("could not limit what it reads from the disk: {NO_IO}"));
            }
            // Where disks are looked up.
            self.launcher.rest();
        }
        let allowed = Allowance::of(order).map_err(with("limit what it reads from the disk"))?;
        self.groups.create_leaf(&order.id, allowed).map_err(with("make its control groups"))?;
        let stdout =
            self.open_output(number, OutputStream::Stdout).map_err(with("make a pipe for its output"))?;
        let stderr =
            self.open_output(number, OutputStream::Stderr).map_err(with("make a pipe for its output"))?;
        times.iter_mut().for_each(|times| times.mark("make the v2 control group and two pipes"));
        // With others on their way or waiting, the child does what it can do itself.
        let is_busy = self.launches > 0 || !self.queue.is_empty();
        let groups = (&self.groups, allowed);
        let launching = self.launcher.begin(order, groups, [stdout, stderr], (times, is_busy));
        let mut launching = launching.map_err(|e| e.in_full())?;
        self.poll.add(launching.channel(), Source::Launch(number)).map_err(with("watch its launch"))?;
        self.poll.add(launching.main().pidfd(), Source::Main(number)).map_err(with("watch it"))?;
        self.hold_mounts(number, launching.main());
        self.write_down(number, order, &launching).map_err(with("write down that it exists"))?;
        launching.mark("watch it and write it down");
        Ok(launching)
    }

    /// Its end is told without what was full if they cannot be held, and where descriptors get scarce: that there is
    /// an instance is more than why one ended. The lowest free number tells how many there are.
    pub(super) fn hold_mounts(&mut self, number: u64, main: &MainProcess) {
        let half = self.host.most_files / 2;
        if let Some(instance) = self.instances.get_mut(&number) {
            instance.mounts = main.mounts().ok().filter(|held| held.as_raw_fd() as u64 <= half);
        }
    }

    fn open_output(&mut self, number: u64, stream: OutputStream) -> io::Result<OwnedFd> {
        let (pipe, writer) = OutputPipe::new(stream, self.host.proc.as_fd())?;
        self.poll.add(pipe.reader(), Source::Output(number, stream))?;
        if let Some(instance) = self.instances.get_mut(&number) {
            *instance.output(stream) = Some(pipe);
        }
        Ok(writer)
    }

    pub(super) fn launch_went_on(&mut self, number: u64) {
        let Some(instance) = self.instances.get_mut(&number) else { return };
        let Phase::Launching(launching) = &mut instance.phase else { return };
        match launching.proceed(&self.host) {
            Progress::UnderWay => return,
            Progress::Over => {}
            Progress::Failed(why) => {
                instance.failure.get_or_insert(why.in_full());
            }
        }
        let nothing = leaving(Exit::Unknown);
        let Phase::Launching(mut launching) = std::mem::replace(&mut instance.phase, nothing) else { return };
        instance.listeners = launching.take_listeners();
        let has_failed = instance.failure.is_some();
        self.journal_listeners(number);
        self.poll.remove(launching.channel());
        self.launches -= 1;
        let main = self.launcher.finish(*launching);
        let pid = main.pid();
        self.set_phase(number, Phase::Live(main));
        if !has_failed {
            self.tell(number, InstanceState::Running { pid });
        }
    }

    /// Asks an instance to end.
    pub(super) fn stop(&mut self, id: &InstanceId) {
        let Some(number) = self.numbers.get(id).copied() else { return };
        let Some(instance) = self.instances.get_mut(&number) else { return };
        instance.mounts = None;
        let is_stopping = matches!(
            self.register.status(id).map(|s| &s.state),
            Some(InstanceState::Stopping { .. } | InstanceState::Ended { .. })
        );
        match &instance.phase {
            Phase::Live(main) if !is_stopping => {
                main.ask_to_end(&self.host, instance.stop_signal);
                let (pid, grace) = (main.pid(), instance.stop_grace.duration());
                // A deadline beyond the clock's range is none.
                if let Some(deadline) = Instant::now().checked_add(grace) {
                    self.alarms.insert((deadline, Alarm::Grace(number)));
                }
                self.tell(number, InstanceState::Stopping { pid });
            }
            Phase::Queued(_) | Phase::Launching(_) => self.kill_one(number),
            Phase::Live(_) | Phase::Leaving { .. } => {}
        }
    }

    pub(super) fn grace_is_over(&mut self, number: u64) {
        // From here on a SIGKILL is ours, and not the kernel's for want of memory.
        if let Some(instance) = self.instances.get_mut(&number) {
            instance.is_killed = true;
            self.end_processes(number);
        }
    }

    /// Ends an instance at once.
    pub(super) fn kill_one(&mut self, number: u64) {
        let Some(instance) = self.instances.get_mut(&number) else { return };
        instance.is_killed = true;
        instance.mounts = None;
        match instance.phase {
            Phase::Queued(_) => {
                self.queue.retain(|n| *n != number);
                self.never_ran(number, "it was ended before its turn to start".into());
            }
            Phase::Launching(_) => {
                instance.failure.get_or_insert("it was ended while it was being started".into());
                self.end_processes(number);
            }
            Phase::Live(_) | Phase::Leaving { .. } => self.end_processes(number),
        }
    }

    pub(super) fn end_processes(&mut self, number: u64) {
        let Some(instance) = self.instances.get(&number) else { return };
        match instance.main() {
            // All processes inside go with the first one, and the groups need not be asked, which costs more.
            Some(main) => main.kill(),
            // Nobody in them is from inside any more.
            None => drop(self.groups.kill(instance.id.as_str())),
        }
    }

    pub(super) fn main_ended(&mut self, number: u64) {
        if let Some(Instance { phase: Phase::Launching(launching), .. }) = self.instances.get_mut(&number) {
            launching.child_ended();
            self.launch_went_on(number);
        }
        let Some(instance) = self.instances.get_mut(&number) else { return };
        let Phase::Live(main) = &instance.phase else { return };
        let Some(exit) = main.reap(&self.host) else { return };
        self.poll.remove(main.pidfd());
        let id = instance.id.clone();
        let exit = instance.verdict(exit, || self.groups.want_of_memory(&id));
        let exit = self.with_shortage(number, exit);
        self.journal_exit(&id, &exit);
        self.set_phase(number, leaving(exit));
        self.begin_removal(number);
    }

    /// Of an instance whose first process has ended.
    pub(super) fn begin_removal(&mut self, number: u64) {
        self.remove_rest(number);
        if self.instances.get(&number).is_some_and(|instance| !instance.is_silent()) {
            self.alarms.insert((Instant::now() + OUTSIDERS, Alarm::Outsiders(number)));
        }
    }

    /// Whoever was moved into the groups of an instance from outside ends with it: as long as such a process holds its
    /// output open, nothing else would tell of that end.
    pub(super) fn end_outsiders(&mut self, number: u64) {
        let instance = self.instances.get(&number);
        if instance.is_some_and(|i| matches!(i.phase, Phase::Leaving { .. }) && !i.is_silent()) {
            self.end_processes(number);
        }
    }

    /// An instance that ended by itself and not well may have had no space left, or too few processes.
    fn with_shortage(&mut self, number: u64, exit: Exit) -> Exit {
        let Some(instance) = self.instances.get_mut(&number) else { return exit };
        let Some(mounts) = instance.mounts.take() else { return exit };
        if exit.is_success() || !matches!(exit, Exit::Code { .. } | Exit::Signal { .. }) {
            return exit;
        }
        let (id, full) =
            (instance.id.clone(), full_at_the_end(&mut self.launcher, &mounts, &instance.volatile));
        self.look_at_processes(&id);
        if full.is_empty() { exit } else { Exit::OutOfSpace { full, exit: Box::new(exit) } }
    }

    pub(super) fn keep_output(&mut self, number: u64, stream: OutputStream) {
        let Some(instance) = self.instances.get_mut(&number) else { return };
        let id = instance.id.clone();
        let Some(pipe) = instance.output(stream) else { return };
        if pipe.turn(&id, &self.output, &mut self.transit) {
            self.poll.remove(pipe.reader());
            *instance.output(stream) = None;
            self.remove_rest(number);
        }
    }

    /// There will be no process.
    fn never_ran(&mut self, number: u64, cause: String) {
        self.set_phase(number, leaving(Exit::NotStarted { cause }));
        self.remove_rest(number);
    }

    /// Of an instance without processes: when all it wrote is kept, its groups go, and its end is told. What somebody
    /// has moved into them from outside is killed, and asked for only if they do not go.
    pub(super) fn remove_rest(&mut self, number: u64) {
        let Some(instance) = self.instances.get(&number) else { return };
        let Phase::Leaving { exit, deadline } = &instance.phase else { return };
        if !instance.is_silent() {
            return;
        }
        match self.groups.remove(instance.id.as_str()) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < *deadline => {
                let _ = self.groups.kill(instance.id.as_str());
                self.alarms.insert((Instant::now() + REMOVE_AGAIN, Alarm::Remove(number)));
            }
            _ => {
                let exit = exit.clone();
                self.tell(number, InstanceState::Ended { exit });
                self.drop_instance(number);
            }
        }
    }

    fn drop_instance(&mut self, number: u64) {
        if let Some(instance) = self.instances.remove(&number) {
            self.numbers.remove(&instance.id);
        }
        self.alarms.retain(|(_, alarm)| *alarm != Alarm::Grace(number));
    }

    pub(super) fn set_phase(&mut self, number: u64, phase: Phase) {
        if let Some(instance) = self.instances.get_mut(&number) {
            instance.phase = phase;
        }
    }

    fn tell(&mut self, number: u64, state: InstanceState) {
        if let Some(instance) = self.instances.get(&number) {
            self.register.set(&instance.id, state, now());
            self.journal_status(&instance.id.clone());
        }
    }
}

pub(super) fn leaving(exit: Exit) -> Phase {
    Phase::Leaving { exit, deadline: Instant::now() + REMOVAL }
}
