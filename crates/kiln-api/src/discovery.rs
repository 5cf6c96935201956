//! Which hosts run on this machine: one small file for each, under `/run`.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use kiln_model::{ExitCode, Failure, Timestamp};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use serde::{Deserialize, Serialize};

use crate::reach::Reach;

/// What a host says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its process.
    pub pid: u32,
    /// Its state directory.
    pub root: PathBuf,
    /// Its door.
    pub socket: PathBuf,
    /// Where its edge listens.
    pub listen: String,
    /// Since when.
    pub started: Timestamp,
}

/// The hosts of this machine.
#[derive(Debug, Clone)]
pub struct Registry {
    directory: PathBuf,
}

/// An entry in the registry, taken out when dropped.
#[derive(Debug)]
pub struct Registered {
    file: PathBuf,
}

impl Drop for Registered {
    fn drop(&mut self) {
        // An entry left behind is found to be stale by whoever looks next.
        let _ = fs::remove_file(&self.file);
    }
}

impl Registry {
    /// Where the registry is, unless said otherwise.
    pub const DIRECTORY: &'static str = "/run/kiln/hosts";

    /// The registry in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Enters a host, in one piece: whoever lists sees all of it or nothing.
    ///
    /// # Errors
    /// If the directory cannot be made or written.
    pub fn register(&self, host: &Registration) -> io::Result<Registered> {
        fs::create_dir_all(&self.directory)?;
        let file = self.directory.join(format!("{}.json", host.pid));
        // Without a name until it is whole: whoever is killed meanwhile leaves nothing.
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut out: fs::File = open(&self.directory, flags, Mode::from_raw_mode(0o644))?.into();
        out.write_all(&serde_json::to_vec(host)?)?;
        // One that was killed may have had the same number.
        let _ = fs::remove_file(&file);
        let whole = format!("/proc/self/fd/{}", out.as_raw_fd());
        linkat(CWD, whole, CWD, &file, AtFlags::SYMLINK_FOLLOW)?;
        self.forget_predecessors(host);
        Ok(Registered { file })
    }

    /// A process that was killed on the same state directory could not take its entry away, and its socket answers
    /// again now.
    fn forget_predecessors(&self, host: &Registration) {
        for before in self.list().iter().filter(|other| other.socket == host.socket && other.pid != host.pid)
        {
            let _ = fs::remove_file(self.directory.join(format!("{}.json", before.pid)));
        }
    }

    /// The hosts that answer, by their process ids. Entries of those that do not are removed.
    pub fn list(&self) -> Vec<Registration> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let files = entries.flatten().map(|entry| entry.path());
        let mut hosts: Vec<Registration> =
            files.filter(|f| f.extension().is_some_and(|e| e == "json")).filter_map(|f| alive(&f)).collect();
        hosts.sort_by_key(|host| host.pid);
        hosts
    }

    /// The socket of the host that is meant by `wanted`, which may be its socket, its state directory, or the
    /// address it listens on; the only host that runs if nothing is given.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn find(&self, wanted: Option<&str>) -> Result<PathBuf, Failure> {
        let hosts = self.list();
        match (wanted, hosts.as_slice()) {
            (Some(wanted), _) => named(wanted, &hosts),
            (None, []) => {
                let failure = Failure::new(ExitCode::Host, "no Kiln host is running here");
                Err(failure.hint("start one with `kiln up` (this app, in the foreground) or `kiln serve`"))
            }
            (None, [only]) => Ok(only.socket.clone()),
            (None, several) => {
                let failure = Failure::new(ExitCode::Host, format!("{} Kiln hosts run here", several.len()));
                let failure = several.iter().fold(failure, |f, host| f.because(describe(host)));
                Err(failure
                    .hint("choose one with `--host` or KILN_HOST: its socket, state directory or address"))
            }
        }
    }
}

/// The entry in `file`, if its host answers.
fn alive(file: &Path) -> Option<Registration> {
    let host: Registration = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    match answers(&host.socket) {
        Ok(()) => Some(host),
        // A process that runs may have its socket where only others see it.
        Err(io::ErrorKind::NotFound) if Path::new("/proc").join(host.pid.to_string()).exists() => None,
        Err(_) => {
            let _ = fs::remove_file(file);
            None
        }
    }
}

/// Whether a host is behind a socket; why not. One that is there and not for us, or busy, is: saying that it is not there
/// would be a lie.
fn answers(socket: &Path) -> Result<(), io::ErrorKind> {
    match Reach::to(socket).and_then(|reach| UnixStream::connect(reach.path())) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(e.kind())
        }
        _ => Ok(()),
    }
}

/// The door of a host, below its state directory.
const DOOR: &str = "run/control.sock";

fn named(wanted: &str, hosts: &[Registration]) -> Result<PathBuf, Failure> {
    let path = Path::new(wanted.strip_prefix("unix:").unwrap_or(wanted));
    let real = fs::canonicalize(path).ok();
    let is_meant = |host: &&Registration| {
        let places = [&host.socket, &host.root];
        host.listen == wanted || places.iter().any(|place| *place == path || Some(*place) == real.as_ref())
    };
    match hosts.iter().find(is_meant) {
        Some(host) => Ok(host.socket.clone()),
        None if path.is_absolute() && path.exists() && !path.is_dir() => Ok(path.to_owned()),
        // Its entry may have been cleared away.
        None if let Some(socket) = real.map(|root| root.join(DOOR)).filter(|door| answers(door).is_ok()) => {
            Ok(socket)
        }
        None => {
            let failure = Failure::new(ExitCode::Host, format!("no Kiln host is running at `{wanted}`"));
            let failure = hosts.iter().fold(failure, |f, host| f.because(describe(host)));
            Err(failure.hint("name the socket, state directory or address of one that runs, or start it"))
        }
    }
}

fn describe(host: &Registration) -> String {
    let Registration { pid, root, socket, listen, .. } = host;
    format!("pid {pid} on {listen}, state in {}, socket {}", root.display(), socket.display())
}
