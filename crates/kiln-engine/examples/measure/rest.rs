//! A quiet machine: what the kernel still cleans up after the last measurement would count as part of the next.

use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

use super::Result;

/// Longer than this nobody waits: others use this machine. After thousands the kernel cleans up for seconds.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// As much of one processor may be at work: the kernel takes network namespaces down on one, however many there are.
const AT_WORK: f64 = 0.2;

/// Returns when the processors have had nearly nothing to do for a moment, or will not.
pub(super) fn wait() -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let (before, looked) = (idle()?, Instant::now());
        poll(&mut [], Some(&LOOK))?;
        let processors = std::thread::available_parallelism()?.get() as f64;
        if idle()? - before > (processors - AT_WORK) * looked.elapsed().as_secs_f64() {
            break;
        }
    }
    Ok(())
}

/// The seconds in which processors had nothing to do, since the host was started.
fn idle() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let all = stat.lines().next().unwrap_or_default().split_whitespace();
    // `cpu`, user, nice, system, idle, iowait, in hundredths.
    let ticks = all.skip(4).take(2).map(str::parse::<f64>).sum::<std::result::Result<f64, _>>()?;
    Ok(ticks / 100.0)
}
