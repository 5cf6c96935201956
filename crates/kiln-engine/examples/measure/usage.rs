//! What processes have used.

use std::fs;
use std::path::Path;

use super::Result;

/// Processor seconds of this process and of a keeper with all its instances that have ended.
pub(super) struct Usage(f64);

impl Usage {
    pub(super) fn now(run_dir: &Path) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", keeper(run_dir)?))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        // utime, stime, cutime, cstime: the 14th to the 17th field; the first two are not among these.
        let ticks: u64 = fields.iter().skip(11).take(4).filter_map(|f| f.parse::<u64>().ok()).sum();
        Ok(Self(ticks as f64 / 100.0 + own()))
    }

    pub(super) fn since(&self, before: &Self) -> f64 {
        self.0 - before.0
    }
}

/// Of this process and its children that were waited for.
pub(super) fn own() -> f64 {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .into_iter()
        .map(|who| {
            // SAFETY: all zeroes is a valid `rusage`, and the kernel writes one.
            let used = unsafe {
                let mut used: libc::rusage = std::mem::zeroed();
                libc::getrusage(who, &raw mut used);
                used
            };
            let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
            seconds(used.ru_utime) + seconds(used.ru_stime)
        })
        .sum()
}

fn keeper(run_dir: &Path) -> Result<u32> {
    Ok(fs::read_to_string(run_dir.join("keeper.lock"))?.trim().parse()?)
}

/// The memory of a keeper and its holder, what they share counted once.
pub(super) fn keeper_bytes(run_dir: &Path) -> Result<u64> {
    let keeper = keeper(run_dir)?;
    let status = fs::read_to_string(format!("/proc/{keeper}/status"))?;
    let holder = status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap_or_default().trim().to_owned();
    let mut bytes = 0;
    for pid in [keeper.to_string(), holder] {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap_or_default();
        bytes += line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024;
    }
    Ok(bytes)
}
