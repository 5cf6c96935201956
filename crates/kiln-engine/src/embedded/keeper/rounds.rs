//! Instances that run out of memory, space or processes, seen while they run.
//!
//! Looked at about once a second as long as there are instances. Memory costs one small read, whatever their number:
//! the kernel counts its kills on the whole host, and only when that count has grown are the groups asked whose they
//! were. Space costs a call for each volatile path, and processes cost a read, so that only some instances are looked at
//! in each round.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use kiln_model::{InstanceId, Shortage, Volatile};
use rustix::fs::{Mode, OFlags, StatVfs, fstatvfs, openat, statvfs};

use super::super::launch::{Host, Launcher};
use super::instance::{Instance, Phase};
use super::turn::{Alarm, Keeper};

/// How long a round is.
const ROUND: Duration = Duration::from_secs(1);
/// How many instances have their volatile paths and groups looked at in one round.
const AT_ONCE: usize = 64;
/// Less than this is no space: no file can be written to.
const LEAST_BLOCKS: u64 = 1;

/// What the last round found, and where the next one begins.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    kills: u64,
    next: u64,
}

impl Keeper {
    /// The first round of a keeper that has instances again.
    pub(super) fn begin_rounds(&mut self) {
        if self.instances.is_empty() {
            // Kills from before were somebody else's.
            self.rounds.kills = oom_kills(&self.host).unwrap_or(0);
            self.alarms.insert((Instant::now() + ROUND, Alarm::Shortage));
        }
    }

    /// One round; the last one if there is nobody to look at.
    pub(super) fn look_for_shortage(&mut self) {
        if self.instances.is_empty() {
            return;
        }
        self.look_at_memory();
        self.look_at_some();
        self.alarms.insert((Instant::now() + ROUND, Alarm::Shortage));
    }

    /// An instance that has lost one of its processes is in a state nobody tested: all of it ends.
    fn look_at_memory(&mut self) {
        let Ok(kills) = oom_kills(&self.host) else { return };
        if kills == std::mem::replace(&mut self.rounds.kills, kills) {
            return;
        }
        let live = self.instances.iter().filter(|(_, i)| matches!(i.phase, Phase::Live(_)) && !i.is_killed);
        let starved = live.filter_map(|(n, i)| Some((*n, self.groups.want_of_memory(&i.id)?)));
        for (number, wanting) in starved.collect::<Vec<_>>() {
            if let Some(instance) = self.instances.get_mut(&number) {
                instance.starved = Some(wanting);
            }
            self.end_processes(number);
        }
    }

    fn look_at_some(&mut self) {
        let mut numbers: Vec<u64> = self.instances.keys().copied().collect();
        numbers.sort_unstable();
        let from = numbers.partition_point(|n| *n < self.rounds.next);
        numbers.rotate_left(from);
        numbers.truncate(AT_ONCE);
        self.rounds.next = numbers.last().map_or(0, |n| n + 1);
        for number in numbers {
            let Some(instance) = self.instances.get(&number) else { continue };
            if let Some(full) = full_paths(&self.host, instance) {
                let processes = self.groups.want_of_processes(&instance.id);
                self.register.set_shortage(&instance.id, Shortage { full, processes });
            }
        }
    }

    /// Of an instance that has just ended, and whose groups are still there. What was full is looked at by itself.
    pub(super) fn look_at_processes(&mut self, id: &InstanceId) {
        let Some(processes) = self.groups.want_of_processes(id) else { return };
        let full = self.register.status(id).map_or_else(Vec::new, |s| s.shortage.full.clone());
        self.register.set_shortage(id, Shortage { full, processes: Some(processes) });
    }
}

/// None of an instance without a running process: it has no paths.
fn full_paths(host: &Host, instance: &Instance) -> Option<Vec<Volatile>> {
    let Phase::Live(main) = &instance.phase else { return None };
    let is_full = |v: &&Volatile| is_full(host, main.pid(), &v.path).unwrap_or(false);
    Some(instance.volatile.iter().filter(is_full).cloned().collect())
}

/// Of an instance whose process has just ended: what is full in its mounts, which are held for this. The calling
/// process has one thread only.
pub(super) fn full_at_the_end(
    launcher: &mut Launcher,
    mounts: &OwnedFd,
    volatile: &[Volatile],
) -> Vec<Volatile> {
    let is_full = |v: &&Volatile| statvfs(v.path.as_str()).is_ok_and(|stat| is_used_up(&stat));
    let full = launcher.in_mounts(mounts, || volatile.iter().filter(is_full).cloned().collect());
    full.unwrap_or_default()
}

/// The process is a child nobody has reaped, so its number is its own.
fn is_full(host: &Host, pid: u32, path: &str) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = openat(host.proc(), format!("{pid}/root{path}"), flags, Mode::empty())?;
    Ok(is_used_up(&fstatvfs(&path)?))
}

fn is_used_up(stat: &StatVfs) -> bool {
    stat.f_bfree < LEAST_BLOCKS || stat.f_ffree == 0
}

/// How often the kernel has killed for want of memory since it was started.
fn oom_kills(host: &Host) -> io::Result<u64> {
    let file = openat(host.proc(), "vmstat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = [0; 16 << 10];
    let mut length = 0;
    while let more @ 1.. = rustix::io::read(&file, &mut text[length..])? {
        length += more;
    }
    let text = String::from_utf8_lossy(&text[..length]);
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|n| n.trim().parse().ok()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_counts_its_kills() {
        let host = Host::learn().unwrap();
        let first = oom_kills(&host).unwrap();
        assert!(oom_kills(&host).unwrap() >= first);
    }
}
