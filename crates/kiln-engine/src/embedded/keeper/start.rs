//! From a command to a process of its own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use kiln_model::Sha256;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid};

use super::super::capture::OutputDir;
use super::super::cgroup::{Groups, Layout};
use super::super::launch::Host;
use super::super::wire::{BROKER_SOCKET, CONTROL_SOCKET};
use super::door::{Door, Rights};
use super::turn::Keeper;
use super::{Config, KeeperError, orphans};

/// Starts a keeper, which becomes a process of its own, and returns when it accepts requests; then the calling
/// process is to end. In the keeper itself, returns when it has been told to end and has left nothing.
///
/// To be called by a process with one thread, that has nothing else to do: it forks, and the fork goes on here.
///
/// # Errors
/// If the host lacks something, another keeper works in the same run directory, or the system refuses something.
/// All that is likely to go wrong does so before the fork, and thus in the process that was started.
pub fn run(config: &Config) -> Result<(), KeeperError> {
    refuse_threads()?;
    // `support` speaks of one cause, whose source is for programmers.
    kiln_mount::support().map_err(|missing| KeeperError::Unsupported(missing.to_string()))?;
    let make = |dir: &Path| {
        fs::create_dir_all(dir).map_err(|e| KeeperError::new(format!("make {}", dir.display()), e))
    };
    make(&config.run_dir)?;
    make(&config.output_dir)?;
    let lock = lock(&config.run_dir)?;
    let groups = open_groups(&config.run_dir)?;
    orphans::remove(&groups).map_err(|e| KeeperError::new("remove what another keeper left", e))?;
    let parts = Parts::prepare(config, groups)?;
    if let Some(keeper) = fork()? {
        return note(&lock, keeper)
            .map_err(|e| KeeperError::new("write its process number into its lock", e));
    }
    detach(&config.run_dir).map_err(|e| KeeperError::new("become a process of its own", e))?;
    let mut keeper = parts.assemble()?;
    let ended = keeper.work();
    // Before its connections: who waits for their end can start the next keeper.
    drop(lock);
    drop(keeper);
    ended
}

/// What a keeper is made of, as far as it can be made before the fork.
struct Parts {
    host: Rc<Host>,
    groups: Groups,
    output: OutputDir,
    doors: [Door; 2],
}

impl Parts {
    fn prepare(config: &Config, groups: Groups) -> Result<Self, KeeperError> {
        let host = Host::learn().map_err(|e| KeeperError::new("learn about this host", e))?;
        let output = OutputDir::open(&config.output_dir)
            .map_err(|e| KeeperError::new(format!("open {}", config.output_dir.display()), e))?;
        let open = |name: &str, rights, uid| {
            let path = config.run_dir.join(name);
            Door::open(&path, rights, uid)
                .map_err(|e| KeeperError::new(format!("listen on {}", path.display()), e))
        };
        let doors = [
            open(CONTROL_SOCKET, Rights::Control, None)?,
            open(BROKER_SOCKET, Rights::Broker, config.edge_uid)?,
        ];
        Ok(Self { host: Rc::new(host), groups, output, doors })
    }

    fn assemble(self) -> Result<Keeper, KeeperError> {
        Keeper::new(self.host, self.groups, self.output, self.doors)
            .map_err(|e| KeeperError::new("prepare to wait for events", e))
    }
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
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|e| KeeperError::new("read /proc/self/mountinfo", e))?;
    let controllers =
        |tree: &std::path::PathBuf| fs::read_to_string(tree.join("cgroup.controllers")).unwrap_or_default();
    let layout = Layout::read(&mountinfo, controllers).map_err(KeeperError::Unsupported)?;
    Groups::open(&layout, &group_name(run_dir)?).map_err(|(attempted, e)| KeeperError::new(attempted, e))
}

/// The same for the same run directory, different for others: how leftovers are known for our own.
fn group_name(run_dir: &Path) -> Result<String, KeeperError> {
    let whole =
        run_dir.canonicalize().map_err(|e| KeeperError::new(format!("resolve {}", run_dir.display()), e))?;
    Ok(format!("kiln-{}", &Sha256::of(whole.as_os_str().as_bytes()).hex()[..12]))
}

/// The number of the new process; none in the new process itself.
fn fork() -> Result<Option<i32>, KeeperError> {
    // SAFETY: this process has one thread, so the copy is whole.
    match unsafe { libc::fork() } {
        -1 => Err(KeeperError::new("fork", io::Error::last_os_error())),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// For people who want to know which process it is.
fn note(lock: &OwnedFd, pid: i32) -> io::Result<()> {
    rustix::fs::ftruncate(lock, 0)?;
    rustix::io::write(lock, format!("{pid}\n").as_bytes())?;
    Ok(())
}

/// Leaves the session, the working directory and the streams of whoever started it.
fn detach(run_dir: &Path) -> io::Result<()> {
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
