//! The keeper, and its loop.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use kiln_model::{InstanceId, StoreHost, Timestamp};

use super::super::capture::{OutputDir, Transit};
use super::super::cgroup::Groups;
use super::super::launch::{Host, IdBook, Launcher, Slots};
use super::super::wire::Answer;
use super::KeeperError;
use super::conversation::Conversation;
use super::door::Door;
use super::executing::Command;
use super::holder;
use super::instance::Instance;
use super::journal::Journal;
use super::poll::{Poll, Source};
use super::register::Register;
use super::rounds::Rounds;
use super::signals::{self, Heard};
use super::waiting::Waiting;

/// Everything a keeper holds. `serving` and `tending` say what it does with it.
pub(super) struct Keeper {
    pub(super) poll: Poll,
    pub(super) host: Rc<Host>,
    pub(super) launcher: Launcher,
    pub(super) groups: Groups,
    pub(super) output: OutputDir,
    /// What has left a pipe and is not yet in its file.
    pub(super) transit: Transit,
    pub(super) register: Register,
    /// Those that have not ended, by number.
    pub(super) instances: HashMap<u64, Instance>,
    pub(super) numbers: HashMap<InstanceId, u64>,
    /// Where the stores are that go by a name.
    pub(super) places: BTreeMap<StoreHost, SocketAddr>,
    /// Those whose turn to be launched has not come.
    pub(super) queue: VecDeque<u64>,
    /// How many children are on their way.
    pub(super) launches: usize,
    pub(super) alarms: BTreeSet<(Instant, Alarm)>,
    pub(super) conversations: HashMap<u64, Conversation>,
    pub(super) waiting: Vec<Waiting>,
    /// Commands inside of instances, by number.
    pub(super) commands: HashMap<u64, Command>,
    pub(super) rounds: Rounds,
    /// Whether it has been told to end, and by whom.
    pub(super) end: End,
    /// What another keeper needs to go on, should this one be killed.
    pub(super) journal: Journal,
    /// Why it stops although there are instances.
    pub(super) handing_over: Option<Outcome>,
    doors: [Door; 2],
    signals: OwnedFd,
    last_number: u64,
}

/// Why a keeper stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was told to, and nothing is left.
    Ended,
    /// Another program is to go on.
    Succeeded,
    /// Its holder is gone.
    Orphaned,
}

/// Something to do at a certain time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// The grace period of an instance is over.
    Grace(u64),
    /// What is left of an instance can be removed, perhaps.
    Remove(u64),
    /// The output of an instance that has ended is still open, perhaps.
    Outsiders(u64),
    /// Somebody has waited long enough.
    Answer,
    /// Instances may have run out of something.
    Shortage,
    /// Somebody may be admitted again at this door.
    Door(usize),
}

/// How long nobody is heard at a door when one could not be admitted.
const CLOSED: Duration = Duration::from_millis(50);

/// Whether a keeper is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    NotAsked,
    /// By a signal.
    Asked,
    /// By a request, to be answered when nothing is left: conversation and number.
    AskedBy(u64, u64),
}

impl Keeper {
    pub(super) fn new(
        host: Rc<Host>,
        (slots, ids): (Slots, IdBook),
        groups: Groups,
        (output, transit): (OutputDir, Transit),
        doors: [Door; 2],
        journal: Journal,
    ) -> io::Result<Self> {
        slots.clear()?;
        let poll = Poll::new()?;
        let signals = signals::listen()?;
        poll.add(&signals, Source::Signal)?;
        for (n, door) in (0..).zip(&doors) {
            poll.add(door.listener(), Source::Door(n))?;
        }
        Ok(Self {
            poll,
            launcher: Launcher::new(host.clone(), slots, ids),
            host,
            groups,
            output,
            transit,
            register: Register::new(identity()),
            instances: HashMap::new(),
            numbers: HashMap::new(),
            queue: VecDeque::new(),
            launches: 0,
            alarms: BTreeSet::new(),
            conversations: HashMap::new(),
            waiting: Vec::new(),
            commands: HashMap::new(),
            rounds: Rounds::default(),
            end: End::NotAsked,
            journal,
            places: BTreeMap::new(),
            handing_over: None,
            doors,
            signals,
            last_number: 0,
        })
    }

    /// Takes turns until it has been told to end and nothing is left, or somebody else is to go on.
    pub(super) fn work(&mut self) -> Result<Outcome, KeeperError> {
        while self.end == End::NotAsked || !self.instances.is_empty() {
            if let Some(outcome) = self.handing_over.filter(|_| self.launches == 0) {
                return Ok(outcome);
            }
            self.turn().map_err(|e| KeeperError::new("wait for events", e))?;
        }
        self.journal.end();
        self.doors.iter().for_each(Door::remove);
        let dissolved = self.groups.dissolve();
        if let End::AskedBy(conversation, number) = self.end {
            self.reply(conversation, number, Answer::Done, Vec::new());
        }
        dissolved.map_err(|e| KeeperError::new("remove its control groups", e))?;
        Ok(Outcome::Ended)
    }

    fn turn(&mut self) -> io::Result<()> {
        let sources = self.poll.wait(self.time_to_next_alarm())?;
        for source in sources {
            self.hear(source);
        }
        self.launch_more();
        self.ring();
        self.answer();
        self.keep_journal_whole();
        Ok(())
    }

    fn hear(&mut self, source: Source) {
        match source {
            Source::Door(n) => self.open_door(n as usize),
            Source::Signal => self.hear_signal(),
            Source::Conversation(n) => self.converse(n),
            Source::Launch(n) if self.commands.contains_key(&n) => self.command_went_on(n),
            Source::Main(n) if self.commands.contains_key(&n) => self.command_ended(n),
            Source::Launch(n) => self.launch_went_on(n),
            Source::Main(n) => self.main_ended(n),
            Source::Output(n, stream) => self.keep_output(n, stream),
        }
    }

    fn open_door(&mut self, n: usize) {
        let Some(door) = self.doors.get(n) else { return };
        let rights = door.rights;
        match door.admit() {
            Ok(Some(socket)) => self.begin_conversation(Conversation::new(socket, rights)),
            Ok(None) => {}
            Err(_) => {
                // Mostly for want of a descriptor. Who knocks stays there, and would be heard again and again.
                self.poll.remove(door.listener());
                self.alarms.insert((Instant::now() + CLOSED, Alarm::Door(n)));
            }
        }
    }

    fn listen_again(&self, n: usize) {
        if let Some(door) = self.doors.get(n)
            && self.poll.add(door.listener(), Source::Door(n as u64)).is_err()
        {
            holder::complain("could not listen at a door again\n");
        }
    }

    fn hear_signal(&mut self) {
        match signals::hear(&self.signals) {
            Some(Heard::End) => self.begin_end(End::Asked),
            Some(Heard::HolderGone) => self.handing_over = Some(Outcome::Orphaned),
            None => {}
        }
    }

    /// A number nothing else has or will have.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn time_to_next_alarm(&self) -> Option<Duration> {
        self.alarms.first().map(|(at, _)| at.saturating_duration_since(Instant::now()))
    }

    fn ring(&mut self) {
        let now = Instant::now();
        while let Some((_, alarm)) = self.alarms.first().copied().filter(|(at, _)| *at <= now) {
            self.alarms.pop_first();
            match alarm {
                Alarm::Grace(n) => self.grace_is_over(n),
                Alarm::Remove(n) => self.remove_rest(n),
                Alarm::Outsiders(n) => self.end_outsiders(n),
                Alarm::Answer => {}
                Alarm::Shortage => self.look_for_shortage(),
                Alarm::Door(n) => self.listen_again(n),
            }
        }
    }
}

/// The time of day, which may jump; deadlines are not measured by it.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Tells this keeper from the one before and the one after it on this host.
fn identity() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64 ^ u64::from(std::process::id()) << 48
}
