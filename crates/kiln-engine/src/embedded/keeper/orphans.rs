//! What nobody knows of.
//!
//! Whatever a keeper makes is in its control groups, and is told from everything else on the host by them. What is
//! there and in no journal, because a keeper was killed before it could write it down, is ended by the next one before
//! anybody asks it for anything.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::poll;
use rustix::time::Timespec;

use super::super::cgroup::Groups;

/// How long killed processes may take to go.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often that is looked at.
const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Kills everything in our groups that are not known, and removes them.
pub(super) fn remove(groups: &Groups, is_known: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut names = groups.names()?;
    names.retain(|name| !is_known(name));
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
