//! One edge after another, without anybody noticing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_edge::{Certificate, EdgeClient, EdgeError, Listener};
use kiln_model::{Failure, RouteTable};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::process::{Process, ends_within};
use super::{EdgeProcess, Held, Leaving, sockets};
use crate::sync::lock;
use crate::world::Trouble;

/// How long who is connected to an edge with a successor may stay: downloads, websockets, streams of events.
const GRACE: Duration = Duration::from_secs(3600);

/// How the control socket of an edge with a successor is called: this, and a number.
const LEAVING: &str = "edge.sock.leaving-";

impl EdgeProcess {
    /// Starts another edge if this one is gone, and gives it the table. Whether it did.
    pub(crate) fn revive(&self) -> Result<bool, Failure> {
        let mut held = lock(&self.held);
        held.leaving.retain_mut(|leaving| !leaving.is_over());
        if held.process.as_mut().is_some_and(|process| !process.has_ended()) {
            return Ok(false);
        }
        let end = held.process.as_mut().map(Process::how_it_ended);
        self.start_another(&mut held).map_err(super::failure)?;
        Estate::of(&held).and_then(|estate| Self::tell(&self.client, &estate)).map_err(super::failure)?;
        // Whoever looks for requests that were lost finds when and why.
        if let Some(end) = end {
            self.complain(&format!(
                "the edge has ended ({end}), and what was in flight in it with it; another one serves"
            ));
        }
        Ok(true)
    }

    /// Returns when the edge has ended, or after `at_most`.
    pub(crate) fn wait_for_end(&self, at_most: Duration) {
        let watched = lock(&self.held).process.as_ref().and_then(Process::watch);
        match watched {
            Some(pidfd) => drop(ends_within(&pidfd, at_most)),
            None => std::thread::park_timeout(at_most),
        }
    }

    /// Gives this edge a successor: the program as it is on the disk now. Whoever orders the edge about meanwhile does not wait
    /// for one that may never come up.
    pub(crate) fn renew(&self) -> Result<(), Trouble> {
        let _one_at_a_time = lock(&self.renewing);
        let next = self.next();
        let known = Estate::of(&lock(&self.held)).map_err(|e| Trouble::of(&e))?;
        let (client, process) = self.bring_up(&known, &next).map_err(|e| Trouble::of(&e))?;
        let mut held = lock(&self.held);
        if !known.has_the_doors_of(&held) {
            discard(process, &next);
            // It is known to come up by now.
            return self.succeed(&mut held);
        }
        let now = Estate::of(&held).map_err(|e| Trouble::of(&e))?;
        if !known.serves_as(&now)
            && let Err(error) = Self::tell(&client, &now)
        {
            discard(process, &next);
            return Err(Trouble::of(&error));
        }
        self.hand_over(&mut held, &next, client, process)
    }

    /// Gives this edge a successor while nobody else may order it about.
    pub(super) fn succeed(&self, held: &mut Held) -> Result<(), Trouble> {
        if held.listeners.is_empty() {
            return Err(Trouble("the edge has ended".into()));
        }
        let next = self.next();
        let estate = Estate::of(held).map_err(|e| Trouble::of(&e))?;
        let (client, process) = self.bring_up(&estate, &next).map_err(|e| Trouble::of(&e))?;
        self.hand_over(held, &next, client, process)
    }

    /// Where one takes orders that is not the successor yet.
    fn next(&self) -> PathBuf {
        self.path.with_extension("sock.next")
    }

    fn hand_over(
        &self,
        held: &mut Held,
        next: &Path,
        client: EdgeClient,
        process: Process,
    ) -> Result<(), Trouble> {
        // From here on orders go to the successor; the old one is found under a name of its own.
        let old = unused(&self.path);
        let swapped = renameat_with(CWD, next, CWD, &self.path, RenameFlags::EXCHANGE)
            .map_err(std::io::Error::from)
            .and_then(|()| std::fs::rename(next, &old));
        if let Err(error) = swapped {
            let _ = client.shutdown(Duration::ZERO);
            process.finish(false);
            return Err(Trouble(format!(
                "could not give the edge's control socket to its successor: {error}"
            )));
        }
        let leaving = Leaving { client: EdgeClient::at(&old), process: held.process.replace(process) };
        // One that does not answer has ended, or will be counted as it is.
        let _ = leaving.client.leave(GRACE);
        held.leaving.push(leaving);
        Ok(())
    }

    /// An edge that serves what this one serves, from the same sockets, and takes orders at `control`.
    fn bring_up(&self, estate: &Estate, control: &Path) -> Result<(EdgeClient, Process), EdgeError> {
        let _ = std::fs::remove_file(control);
        let sockets = sockets(control, &estate.listeners)?;
        let process = Process::ours(self.command.spawn(&sockets)?);
        drop(sockets);
        let told = EdgeClient::connect(control).and_then(|client| {
            Self::tell(&client, estate)?;
            Ok(client)
        });
        match told {
            Ok(client) => Ok((client, process)),
            Err(error) => {
                discard(process, control);
                Err(error)
            }
        }
    }
}

/// What an edge serves by, and where.
pub(super) struct Estate {
    listeners: Vec<Listener>,
    certificates: Vec<Certificate>,
    table: Option<RouteTable>,
}

impl Estate {
    pub(super) fn of(held: &Held) -> Result<Self, EdgeError> {
        let listeners: std::io::Result<_> = held.listeners.iter().map(Listener::try_clone).collect();
        Ok(Self {
            listeners: listeners.map_err(|source| EdgeError::Spawn { source })?,
            certificates: held.certificates.in_force().to_vec(),
            table: held.table.clone(),
        })
    }

    fn has_the_doors_of(&self, held: &Held) -> bool {
        self.listeners.iter().map(|l| l.door).eq(held.listeners.iter().map(|l| l.door))
    }

    fn serves_as(&self, other: &Self) -> bool {
        (&self.certificates, &self.table) == (&other.certificates, &other.table)
    }
}

impl EdgeProcess {
    /// What it serves by, for one that starts with nothing.
    fn tell(client: &EdgeClient, estate: &Estate) -> Result<(), EdgeError> {
        if !estate.certificates.is_empty() {
            client.set_certificates(&estate.certificates)?;
        }
        match &estate.table {
            Some(table) if table.version > 0 => client.set_table(table).map(drop),
            _ => Ok(()),
        }
    }
}

impl Leaving {
    /// Whether it is gone; then nothing of it is left.
    fn is_over(&mut self) -> bool {
        let over = match &mut self.process {
            Some(process) => process.has_ended(),
            None => self.client.counts().is_err(),
        };
        if over {
            let _ = std::fs::remove_file(self.client.path());
        }
        over
    }
}

/// Ends one that takes orders at `control` and is not to be the successor.
fn discard(process: Process, control: &Path) {
    process.finish(true);
    let _ = std::fs::remove_file(control);
}

/// Waits for one that was told to end at once.
pub(super) fn forget(leaving: Leaving) {
    let _ = std::fs::remove_file(leaving.client.path());
    if let Some(process) = leaving.process {
        process.finish(false);
    }
}

fn unused(path: &Path) -> PathBuf {
    let candidates = (1..).map(|n: u32| path.with_file_name(format!("{LEAVING}{n}")));
    candidates.into_iter().find(|p| !p.exists()).unwrap_or_else(|| path.with_file_name(format!("{LEAVING}0")))
}

/// The edges that were leaving when the control plane before this one died.
pub(super) fn left_behind(path: &Path) -> Vec<Leaving> {
    let Some(entries) = path.parent().and_then(|dir| std::fs::read_dir(dir).ok()) else { return Vec::new() };
    let sockets = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(LEAVING));
    let known = sockets.map(|entry| Leaving { client: EdgeClient::at(entry.path()), process: None });
    let alive = |leaving: &mut Leaving| {
        leaving.process = leaving.client.hand_over().ok().map(|estate| Process::other(estate.pid));
        leaving.process.is_some() || !leaving.is_over()
    };
    let mut known: Vec<Leaving> = known.collect();
    known.retain_mut(alive);
    known
}
