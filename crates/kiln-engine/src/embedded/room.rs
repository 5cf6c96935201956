//! How many more instances a keeper can hold: each takes a few of its descriptors.

use std::fs;
use std::io;

use crate::Room;

/// What a keeper holds of an instance: its process, its two outputs, and its mounts; those only as long as it has open less
/// than half of what it may.
const EACH: u64 = 4;
const EACH_AT_THE_LEAST: u64 = 3;
/// What it needs beside that for instances on their way, and to be spoken with.
const SPARE: u64 = 24;

/// What is left to keeper `pid`.
pub(super) fn left_to(pid: u32) -> io::Result<Option<Room>> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let Some(most) = most_files(&limits) else { return Ok(None) };
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
    Ok(Some(Room {
        instances: instances(most, open),
        limit: format!("this host's limit of open files ({most})"),
        remedy: format!(
            "raise it for what starts `kiln serve` (`ulimit -n`, `LimitNOFILE=`), and at once for the keeper that runs: \
             `prlimit --pid {pid} --nofile={}`",
            most.saturating_mul(16).max(65_536)
        ),
    }))
}

fn instances(most: u64, open: u64) -> u64 {
    let (half, left) = (most / 2, most.saturating_sub(open + SPARE));
    let with_mounts = half.saturating_sub(open).min(left);
    with_mounts / EACH + (left - with_mounts) / EACH_AT_THE_LEAST
}

/// The line `Max open files  1024  4096  files`: the first number is in force.
fn most_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_process_is_read() {
        let limits = "Limit          Soft Limit  Hard Limit  Units\nMax processes  7  7  processes\nMax open files  256  4096  files\n";
        assert_eq!(most_files(limits), Some(256));
        assert_eq!(
            most_files("Max open files            unlimited            unlimited            files"),
            None
        );
        assert_eq!([instances(256, 48), instances(256, 220), instances(256, 250)], [20 + 34, 4, 0]);
        let room = left_to(std::process::id()).unwrap().unwrap();
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap();
        assert_eq!(room.limit, format!("this host's limit of open files ({most})"));
        assert!(room.instances < most / EACH_AT_THE_LEAST, "{room:?}");
    }
}
