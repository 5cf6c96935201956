//! Programs that a test makes and then runs.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes a program of these bytes. A process of its own writes it: what this one has open for writing, a process forked
/// meanwhile by another test would have as well, and until that one executes something the program cannot be run.
///
/// # Panics
/// If it cannot be written.
pub fn program(path: &Path, bytes: &[u8]) {
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("install can be run");
    install.stdin.take().expect("a pipe").write_all(bytes).expect("it is read");
    assert!(install.wait().expect("it ends").success(), "{} could not be written", path.display());
}
