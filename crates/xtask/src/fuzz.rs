//! Every parser of bytes from outside, against libFuzzer: what cargo-fuzz does, without cargo-fuzz. It takes a nightly
//! compiler, for the address sanitizer and to see which way an input went.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{output, visibly, workspace};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address --cfg fuzzing -Cdebug-assertions";

/// Builds all targets and runs each for so long; what makes one fail is kept in `fuzz/artifacts`.
pub(crate) fn run(seconds: u32) -> Result<()> {
    let dir = workspace().join("fuzz");
    output(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]))
        .context("fuzzing takes a nightly compiler: `rustup toolchain install nightly`")?;
    let mut build = Command::new("rustup");
    build.args(["run", "nightly", "cargo", "build", "--release", "--bins", "--target", TARGET]);
    visibly(build.current_dir(&dir).env("RUSTFLAGS", FLAGS))?;
    let mut failed = Vec::new();
    for name in targets(&dir)? {
        eprintln!("{name}: {seconds} s");
        if let Err(error) = fuzz(&dir, &name, seconds) {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    ensure!(failed.is_empty(), "{}\nhint: the inputs are in fuzz/artifacts", failed.join("\n"));
    Ok(())
}

/// By the names of their files.
fn targets(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir.join("fuzz_targets"))? {
        names.extend(entry?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort_unstable();
    ensure!(!names.is_empty(), "there is no target in {}", dir.display());
    Ok(names)
}

fn fuzz(dir: &Path, name: &str, seconds: u32) -> Result<()> {
    let (corpus, artifacts) = (dir.join("corpus").join(name), dir.join("artifacts"));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let mut fuzzer = Command::new(dir.join("target").join(TARGET).join("release").join(name));
    fuzzer.arg(format!("-max_total_time={seconds}"));
    // Memory and time that one input may take.
    fuzzer.args(["-rss_limit_mb=3000", "-timeout=20", "-max_len=65536", "-verbosity=0"]);
    fuzzer.arg(format!("-artifact_prefix={}/{name}-", artifacts.display())).arg(&corpus);
    let seeds = dir.join("seeds").join(name);
    if seeds.is_dir() {
        fuzzer.arg(seeds);
    }
    visibly(&mut fuzzer)
}
