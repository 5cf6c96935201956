//! From a command to a process of its own.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use kiln_model::Sha256;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getpid, getrlimit, setrlimit, setsid};

use super::super::capture::{OutputDir, Transit};
use super::super::cgroup::{Groups, Layout};
use super::super::launch::{Host, IdBook, Slots, TimesFile, undumpable};
use super::super::wire::{BROKER_SOCKET, CONTROL_SOCKET};
use super::descriptors::{Inheritance, Mark, numbers};
use super::door::{Door, Rights};
use super::heir::{self, Estate, Named};
use super::holder::{self, Role};
use super::journal::{Journal, Left};
use super::ready::{IsReady, Ready};
use super::turn::{Keeper, Outcome};
use super::{Config, KeeperError, heritage, signals};
use crate::lack::refusal;

/// Starts a keeper, which becomes a process of its own with a holder, and returns when it accepts requests; then the
/// calling process is to end. In the keeper and in its holder, returns when it has been told to end and has left
/// nothing, or is continued by another one.
///
/// To be called by a process with one thread, that has nothing else to do: it forks, and the fork goes on here. The
/// arguments it was called with start it again: they must lead here.
///
/// # Errors
/// If the host lacks something, another keeper works in the same run directory, or the system refuses something.
/// All that is likely to go wrong does so before the fork, and thus in the process that was started.
pub fn run(config: &Config) -> Result<(), KeeperError> {
    refuse_threads()?;
    // `support` speaks of one cause, whose source is for programmers.
    kiln_mount::support().map_err(|missing| match crate::remedy(&missing).and(refusal(&missing)) {
        Some(number) => {
            KeeperError::new("find out what this host can do", io::Error::from_raw_os_error(number))
        }
        None => KeeperError::Unsupported(missing.to_string()),
    })?;
    let before = numbers().map_err(|e| KeeperError::new("look through its descriptors", e))?;
    match Named::from_environment().map_err(|e| KeeperError::new("take over what it inherits", e))? {
        Some(named) => go_on(config, named, &before),
        None => begin(config),
    }
}

fn begin(config: &Config) -> Result<(), KeeperError> {
    let make = |dir: &Path| {
        fs::create_dir_all(dir).map_err(|e| KeeperError::new(format!("make {}", dir.display()), e))
    };
    make(&config.run_dir)?;
    make(&config.output_dir)?;
    let lock = lock(&config.run_dir)?;
    let is_first = matches!(Left::read(&config.run_dir), Ok(Left::Nothing));
    let begun = match prepare_and_fork(config, lock) {
        Ok(Forked::Keeper(parts, own, ready)) => return live(config, parts, own, ready),
        Ok(Forked::Starter(ready)) => ready.wait(&config.run_dir),
        Err(e) => Err(e),
    };
    begun.inspect_err(|_| leave_nothing(config, is_first))
}

/// Which of the two processes this is after the fork.
enum Forked {
    /// The one there was before, and what it waits for.
    Starter(Ready),
    /// The new one, with what it was given and what tells that it works.
    Keeper(Box<Parts>, BTreeSet<RawFd>, IsReady),
}

fn prepare_and_fork(config: &Config, lock: OwnedFd) -> Result<Forked, KeeperError> {
    let parts = Box::new(Parts::prepare(config, lock, None)?);
    let own = numbers().map_err(|e| KeeperError::new("look through its descriptors", e))?;
    let (ready, is_ready) = Ready::new().map_err(|e| KeeperError::new("make a pipe", e))?;
    Ok(if fork()? { Forked::Starter(ready) } else { Forked::Keeper(parts, own, is_ready) })
}

/// In the new process. What keeps the first keeper from working is told to whoever waits for it.
fn live(config: &Config, parts: Box<Parts>, own: BTreeSet<RawFd>, ready: IsReady) -> Result<(), KeeperError> {
    // Number and mark: the first keeper closes it, for itself and its holder.
    let ready = ready.into_parts();
    let ended = detach(&config.run_dir)
        .map_err(|e| KeeperError::new("become a process of its own", e))
        .and_then(|()| take_turns(config, *parts, own, Some(ready)));
    ended.inspect_err(|why| {
        if let Some(ready) = IsReady::again(ready.0, ready.1) {
            ready.tell_failure(why);
        }
    })
}

/// Takes away what a keeper makes before it works. Groups in which there is something stay, and so does what one before
/// it has left: the next one goes on with it.
fn leave_nothing(config: &Config, is_first: bool) {
    if let (Ok(layout), Ok(name)) = (Layout::of_this_host(), group_name(&config.run_dir)) {
        Groups::remove_empty(&layout, &name);
    }
    // Whatever cannot be removed is found by the next keeper.
    for socket in [CONTROL_SOCKET, BROKER_SOCKET] {
        let _ = fs::remove_file(config.run_dir.join(socket));
    }
    if is_first {
        Journal::remove(&config.run_dir);
        let _ = Transit::path(&config.run_dir).and_then(fs::remove_file);
    }
}

/// As the holder of what another program has left to this one.
fn go_on(config: &Config, named: Named, before: &BTreeSet<RawFd>) -> Result<(), KeeperError> {
    let parts = Parts::prepare(config, named.lock, Some(named.doors))?;
    let mut own: BTreeSet<RawFd> = numbers()
        .map_err(|e| KeeperError::new("look through its descriptors", e))?
        .difference(before)
        .copied()
        .collect();
    own.extend(parts.named());
    take_turns(config, parts, own, None)
}

fn take_turns(
    config: &Config,
    parts: Parts,
    own: BTreeSet<RawFd>,
    ready: Option<(RawFd, Mark)>,
) -> Result<(), KeeperError> {
    // Also of what an older program left, which may not have forgotten it.
    heritage::forget().map_err(|e| KeeperError::new("forget the limits it was started under", e))?;
    signals::block().map_err(|e| KeeperError::new("block signals", e))?;
    let estate = Estate { named: parts.named(), own };
    let holder = getpid();
    // In a holder they are numbers, which its keepers give their meaning.
    let parts = ManuallyDrop::new(parts);
    match holder::hold(&config.run_dir, &estate, ready)? {
        Role::HolderOfNothing => Ok(()),
        Role::Keeper => {
            holder::miss_holder(holder).map_err(|e| KeeperError::new("watch its holder", e))?;
            keep(config, ManuallyDrop::into_inner(parts), &estate, ready)
        }
    }
}

/// What a keeper does, from its first breath to its last.
fn keep(
    config: &Config,
    parts: Parts,
    estate: &Estate,
    ready: Option<(RawFd, Mark)>,
) -> Result<(), KeeperError> {
    note(&parts.lock).map_err(|e| KeeperError::new("write its process number into its lock", e))?;
    let mut owned = estate.own.clone();
    // Used up when it works, and not before.
    let is_unused = |(number, mark): &(RawFd, Mark)| IsReady::is_unused(*number, *mark);
    owned.extend(ready.filter(is_unused).map(|(number, _)| number));
    let left =
        Left::read(&config.run_dir).map_err(|e| KeeperError::new("read what another keeper left", e))?;
    // SAFETY: `owned` is what was open before the first keeper of this holder, whose copy this process is; it has
    // opened nothing else that it still holds.
    let inheritance = unsafe { Inheritance::collect(&owned) }
        .map_err(|e| KeeperError::new("look through its descriptors", e))?;
    // However this ends: what they hold stays open for whoever goes on.
    let (lock, keeper) = parts.assemble(config)?;
    let (lock, mut keeper) = (ManuallyDrop::new(lock), ManuallyDrop::new(keeper));
    keeper.adopt(left, inheritance)?;
    if let Some(is_ready) = ready.and_then(|(number, mark)| IsReady::again(number, mark)) {
        is_ready.tell();
    }
    let outcome = keeper.work()?;
    match outcome {
        Outcome::Ended => {
            // Before its connections, which close with this process and its holder: who waits for their end can
            // start the next keeper.
            let _ = Transit::path(&config.run_dir).and_then(fs::remove_file);
            drop(ManuallyDrop::into_inner(lock));
            Ok(())
        }
        // The holder goes on, and has the descriptors.
        Outcome::Succeeded => Ok(()),
        Outcome::Orphaned => {
            let why = heir::become_holder(Path::new("/proc/self/exe"), estate);
            Err(KeeperError::new("execute its own program again", why))
        }
    }
}

/// What a keeper is made of, as far as it can be made before it is a process of its own. Its holder makes each keeper
/// from these.
struct Parts {
    lock: OwnedFd,
    host: Rc<Host>,
    slots: Slots,
    groups: Groups,
    output: OutputDir,
    doors: [Door; 2],
}

impl Parts {
    fn prepare(config: &Config, lock: OwnedFd, doors: Option<[OwnedFd; 2]>) -> Result<Self, KeeperError> {
        let null = File::options().read(true).write(true).open("/dev/null");
        let groups = open_groups(&config.run_dir)?;
        let slots = null.and_then(|null| Slots::reserve(null.as_fd(), &groups.others()));
        let slots = slots.map_err(|e| KeeperError::new("reserve descriptors", e))?;
        let mut host = Host::learn().map_err(|e| KeeperError::new("learn about this host", e))?;
        host.times = config
            .times
            .as_ref()
            .map(|path| TimesFile::create(path))
            .transpose()
            .map_err(|e| KeeperError::new("open the file of times", e))?;
        let output = OutputDir::open(&config.output_dir)
            .map_err(|e| KeeperError::new(format!("open {}", config.output_dir.display()), e))?;
        let doors = open_doors(config, doors)?;
        Ok(Self { lock, host: Rc::new(host), slots, groups, output, doors })
    }

    fn named(&self) -> [RawFd; 3] {
        let [control, broker] = &self.doors;
        [heir::number(&self.lock), heir::number(control.listener()), heir::number(broker.listener())]
    }

    fn assemble(self, config: &Config) -> Result<(OwnedFd, Keeper), KeeperError> {
        let journal = Journal::open(&config.run_dir)
            .map_err(|e| KeeperError::new(format!("open {}", config.run_dir.display()), e))?;
        let transit = Transit::open(&config.run_dir)
            .map_err(|e| KeeperError::new("open the file for output on its way to other files", e))?;
        let output = (self.output, transit);
        let slots = (self.slots, IdBook::of_keeper(&config.run_dir));
        let keeper = Keeper::new(self.host, slots, self.groups, output, self.doors, journal)
            .map_err(|e| KeeperError::new("prepare to wait for events", e))?;
        Ok((self.lock, keeper))
    }
}

fn open_doors(config: &Config, inherited: Option<[OwnedFd; 2]>) -> Result<[Door; 2], KeeperError> {
    let [control, broker] = inherited.map_or([None, None], |doors| doors.map(Some));
    let open = |name: &str, rights, uid, inherited: Option<OwnedFd>| {
        let path = config.run_dir.join(name);
        let door = match inherited {
            Some(listener) => Door::inherit(listener, &path, rights, uid),
            None => Door::open(&path, rights, uid),
        };
        door.map_err(|e| KeeperError::new(format!("listen on {}", path.display()), e))
    };
    Ok([
        open(CONTROL_SOCKET, Rights::Control, None, control)?,
        open(BROKER_SOCKET, Rights::Broker, config.edge_uid, broker)?,
    ])
}

fn refuse_threads() -> Result<(), KeeperError> {
    let threads =
        fs::read_dir("/proc/self/task").map_err(|e| KeeperError::new("count its threads", e))?.count();
    if threads == 1 {
        return Ok(());
    }
    let why = io::Error::new(io::ErrorKind::InvalidInput, format!("the process has {threads} threads"));
    Err(KeeperError::new("fork", why))
}

/// Holds until the last process that has it open ends, however it ends.
fn lock(run_dir: &Path) -> Result<OwnedFd, KeeperError> {
    let path = run_dir.join("keeper.lock");
    let on = |e: io::Error| KeeperError::new(format!("lock {}", path.display()), e);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(on)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file.into()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(KeeperError::AlreadyRunning { run_dir: run_dir.to_owned() })
        }
        Err(e) => Err(on(e.into())),
    }
}

fn open_groups(run_dir: &Path) -> Result<Groups, KeeperError> {
    let layout = Layout::of_this_host().map_err(KeeperError::Unsupported)?;
    Groups::open(&layout, &group_name(run_dir)?).map_err(|(attempted, e)| KeeperError::new(attempted, e))
}

/// The same for the same run directory, different for others: how leftovers are known for our own.
fn group_name(run_dir: &Path) -> Result<String, KeeperError> {
    let whole =
        run_dir.canonicalize().map_err(|e| KeeperError::new(format!("resolve {}", run_dir.display()), e))?;
    Ok(format!("kiln-{}", &Sha256::of(whole.as_os_str().as_bytes()).hex()[..12]))
}

/// Whether this is the process there was before.
fn fork() -> Result<bool, KeeperError> {
    // SAFETY: this process has one thread, so the copy is whole.
    match unsafe { libc::fork() } {
        -1 => Err(KeeperError::new("fork", io::Error::last_os_error())),
        pid => Ok(pid > 0),
    }
}

/// For people who want to know which process it is.
fn note(lock: &OwnedFd) -> io::Result<()> {
    let text = format!("{}\n", getpid());
    rustix::io::pwrite(lock, text.as_bytes(), 0)?;
    Ok(rustix::fs::ftruncate(lock, text.len() as u64)?)
}

/// Leaves the session, the working directory and the streams of whoever started it.
fn detach(run_dir: &Path) -> io::Result<()> {
    undumpable();
    setsid()?;
    let log = OpenOptions::new().create(true).append(true).open(run_dir.join("keeper.log"))?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for (from, stream) in [(&null, 0), (&null, 1), (&log, 2)] {
        // SAFETY: the standard streams have no owner in this process that could be taken by surprise.
        if unsafe { libc::dup2(from.as_raw_fd(), stream) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    std::env::set_current_dir("/")?;
    let most = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?)
}
