//! The access log does not grow for ever: when it is large another one is begun, and the oldest goes.
//!
//! ```text
//!   run/access.log          what is written now
//!   run/access.log.1 … .4   what was written before, the newest first
//!   run/access.log.new      for a moment: handed to the edge, not yet in its place
//! ```
//! The edge writes to what it has been given, whatever that is called. So it is given the new file first, and when it
//! has acknowledged that nothing more goes to the old one, the names follow. A control plane that dies in between
//! leaves `access.log.new`, and the next one goes on from there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::PathBuf;

use kiln_edge::EdgeClient;
use kiln_model::ByteSize;
use kiln_store::Store;

use crate::host::HostConfig;

/// So many old ones stay.
const KEPT: u32 = 4;

/// The access log of a host.
pub(super) struct AccessLog {
    path: PathBuf,
    largest: ByteSize,
}

impl AccessLog {
    /// None if the host keeps none.
    pub(super) fn of(config: &HostConfig, store: &Store) -> Option<Self> {
        let largest = config.edge.as_ref()?.access_log?;
        Some(Self { path: store.run_dir().join("access.log"), largest })
    }

    fn named(&self, end: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(end);
        name.into()
    }

    /// Begins another one if it is time to. The first of `edges` serves, the others are leaving.
    pub(super) fn look(&self, edges: &[&EdgeClient]) -> io::Result<()> {
        if self.named(".new").exists() {
            // The one before may have died before or after it was handed over.
            return self.begin_another(edges);
        }
        match fs::metadata(&self.path) {
            Ok(file) if file.len() >= self.largest.0 => self.begin_another(edges),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn begin_another(&self, edges: &[&EdgeClient]) -> io::Result<()> {
        let new = self.named(".new");
        let file = OpenOptions::new().create(true).append(true).open(&new)?;
        let (serving, leaving) = edges.split_first().ok_or(io::ErrorKind::NotFound)?;
        serving.take_log(&file).map_err(io::Error::other)?;
        // One that does not take it writes on to the old one, which stays for a while.
        leaving.iter().for_each(|edge| drop(edge.take_log(&file)));
        self.shift()?;
        fs::rename(&new, &self.path)
    }

    /// Each takes the name of the next older one.
    fn shift(&self) -> io::Result<()> {
        let move_on = |from: PathBuf, to: PathBuf| match fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        for n in (1..KEPT).rev() {
            move_on(self.named(&format!(".{n}")), self.named(&format!(".{}", n + 1)))?;
        }
        // What was there before the edge wrote anything is as old as what follows it.
        File::open(&self.path).map_or(Ok(()), |_| move_on(self.path.clone(), self.named(".1")))
    }
}
