//! Time, CPU and memory of whole processes, as the kernel counts them.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// What one run took, its children included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Seconds from start to end.
    pub(crate) wall: f64,
    /// Seconds of CPU, user and system.
    pub(crate) cpu: f64,
    /// The most memory any of its processes had.
    pub(crate) peak_mb: f64,
}

impl Figures {
    pub(crate) fn to_json(self) -> Value {
        json!({ "wall_s": self.wall, "cpu_s": self.cpu, "peak_mb": self.peak_mb })
    }
}

/// Runs `command`, and has the kernel count what it and its children took.
pub(crate) fn measured(command: &mut Command) -> Result<Figures> {
    let printed = std::env::temp_dir().join(format!("kiln-measured-{}", std::process::id()));
    let file = File::create(&printed)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let begun = Instant::now();
    let child = command.spawn().with_context(|| format!("could not run {command:?}"))?;
    let (status, usage) = waited(child.id())?;
    let wall = begun.elapsed().as_secs_f64();
    ensure!(status == 0, "{command:?}: {}", fs::read_to_string(&printed)?);
    fs::remove_file(&printed)?;
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    Ok(Figures { wall, cpu, peak_mb: usage.ru_maxrss as f64 / 1024.0 })
}

/// How a child ended, and what it took.
fn waited(child: u32) -> Result<(i32, libc::rusage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both places are there for the whole call, and the child is ours and not waited for by anybody else.
    let found = unsafe { libc::wait4(child as i32, &mut status, 0, usage.as_mut_ptr()) };
    ensure!(found == child as i32, "a child could not be waited for: {}", std::io::Error::last_os_error());
    // SAFETY: numbers, of which zero is one, and the kernel has filled them in.
    Ok((status, unsafe { usage.assume_init() }))
}

/// The run in the middle by wall time, with the CPU in the middle.
pub(crate) fn median(mut runs: Vec<Figures>) -> Figures {
    runs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let cpu = runs[runs.len() / 2].cpu;
    runs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    Figures { cpu, ..runs[runs.len() / 2] }
}

/// Takes all that was made of downloads in a state directory out of sight, for a bake that makes it anew. It is moved and not
/// deleted: an ext4 without a journal passes over each inode that was deleted in the last minutes when it looks for a free
/// one, so that whoever runs next would pay for the deleting, more than for all of its own work.
pub(crate) fn forget_made(state: &Path, aside: &Path) -> Result<()> {
    let made = ["objects", "images", "inputs"].map(|part| state.join(part));
    let caches = fs::read_dir(state.join("cache"))?.map(|entry| Ok(entry?.path()));
    let caches = caches.collect::<Result<Vec<_>>>()?;
    // The lists of packages are downloads.
    let caches = caches.into_iter().filter(|path| !path.ends_with("debian-packages"));
    fs::create_dir_all(aside)?;
    let before = fs::read_dir(aside)?.count();
    for (n, path) in made.into_iter().chain(caches).filter(|path| path.exists()).enumerate() {
        fs::rename(&path, aside.join((before + n).to_string()))
            .with_context(|| format!("could not put {} aside", path.display()))?;
    }
    Ok(())
}
