//! A time of day that jumps, for one process and those it starts.
//!
//! A library that is loaded before all others answers for the C library; the clock that does not jump stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const SHIM: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long long *shift;

__attribute__((constructor)) static void look(void) {
    const char *path = getenv("KILN_TEST_SHIFT");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) shift = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int answer = (int)syscall(SYS_clock_gettime, clock, time);
    if (answer == 0 && clock == CLOCK_REALTIME && shift) time->tv_sec += *shift;
    return answer;
}
"#;

/// A shift of the time of day that can be changed while programs see it.
#[derive(Debug)]
pub struct ShiftedClock {
    dir: TempDir,
}

impl ShiftedClock {
    /// One that is right as yet.
    ///
    /// # Panics
    /// If the host has no C compiler, which Rust needs as well.
    pub fn new() -> Self {
        let clock = Self { dir: TempDir::new().expect("a temporary directory") };
        let source = clock.dir.path().join("shift.c");
        fs::write(&source, SHIM).expect("a file can be written");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(clock.shim()).arg(&source);
        assert!(compiler.status().expect("these tests need cc").success(), "the library could not be made");
        clock.jump(0);
        clock
    }

    fn shim(&self) -> PathBuf {
        self.dir.path().join("shift.so")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("seconds")
    }

    /// The time of day is so many seconds ahead of what it is, from now on.
    ///
    /// # Panics
    /// If the file that says so cannot be written.
    pub fn jump(&self, seconds: i64) {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(self.file());
        let file = file.expect("a file can be opened");
        // In place, because it is mapped.
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("a file can be written");
    }

    /// What a program must have in its environment to see it.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.shim()), ("KILN_TEST_SHIFT", self.file())]
    }

    /// Has a command and what it starts see it.
    pub fn shift_for(&self, command: &mut Command) {
        command.envs(self.environment());
    }

    /// A program that is `program` as one that sees it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn wrapped(&self, program: &Path) -> PathBuf {
        let path = self.dir.path().join("wrapped");
        let variables: Vec<String> =
            self.environment().iter().map(|(name, value)| format!("{name}={}", value.display())).collect();
        let script = format!("#!/bin/sh\nexec env {} {} \"$@\"\n", variables.join(" "), program.display());
        crate::program::program(&path, script.as_bytes());
        path
    }
}

impl Default for ShiftedClock {
    fn default() -> Self {
        Self::new()
    }
}
