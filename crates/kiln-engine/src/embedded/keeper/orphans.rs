//! What a keeper that was killed left behind.
//!
//! Instances outlive their keeper, and are told from everything else on the host by their control groups. A new
//! keeper is not their parent, so it could not say how they end: it ends them, before anybody asks it for anything.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::poll;
use rustix::time::Timespec;

use super::super::cgroup::Groups;

/// How long killed processes may take to go.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often that is looked at.
const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Kills everything in our groups and removes them.
pub(super) fn remove(groups: &Groups) -> io::Result<()> {
    let names = groups.names()?;
    for name in &names {
        match groups.kill(name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    let deadline = Instant::now() + PATIENCE;
    names.iter().try_for_each(|name| remove_until(groups, name, deadline))
}

fn remove_until(groups: &Groups, name: &str, deadline: Instant) -> io::Result<()> {
    loop {
        match groups.remove(name) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                poll(&mut [], Some(&AGAIN))?;
            }
            other => return other,
        }
    }
}
