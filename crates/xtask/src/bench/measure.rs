//! Time, CPU and memory of whole processes, as the kernel counts them.

use std::process::Command;

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

/// Runs `command` under Debian's `time`, which counts what the children took.
pub(crate) fn measured(command: &mut Command) -> Result<Figures> {
    let figures = std::env::temp_dir().join(format!("kiln-time-{}", std::process::id()));
    let mut time = Command::new("/usr/bin/time");
    time.args(["--quiet", "-f", "%U %S %M", "-o"]).arg(&figures);
    time.arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        time.current_dir(dir);
    }
    let begun = std::time::Instant::now();
    let output = time.output().context("could not run /usr/bin/time (package `time`)")?;
    let wall = begun.elapsed().as_secs_f64();
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&figures)?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    ensure!(numbers.len() == 3, "time said `{text}`");
    Ok(Figures { wall, cpu: numbers[0] + numbers[1], peak_mb: numbers[2] / 1024.0 })
}

/// The run in the middle by wall time, with the CPU in the middle.
pub(crate) fn median(mut runs: Vec<Figures>) -> Figures {
    runs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let cpu = runs[runs.len() / 2].cpu;
    runs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    Figures { cpu, ..runs[runs.len() / 2] }
}
