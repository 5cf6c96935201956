//! All tests, in the order in which a failure is cheapest.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::run::{cargo, output, visibly};
use crate::{setup, tidy};

pub(crate) fn run() -> Result<()> {
    ensure!(
        setup::is_root()?,
        "the tests make real instances and need root\nhint: run `sudo -E cargo xtask test`, or run it in a virtual machine"
    );
    setup::run()?;
    tidy::run()?;
    for (component, arguments) in [
        ("fmt", &["fmt", "--all", "--check"][..]),
        ("clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    ] {
        // A toolchain without them can still run the tests.
        match output(cargo().args([component, "--version"])) {
            Ok(_) => visibly(cargo().args(arguments))?,
            Err(_) => eprintln!("note: cargo {component} is not installed, its check is left out"),
        }
    }
    visibly(&mut tests())
}

/// Tests press Ctrl-C: a shell that starts this in its background has it ignored by everything below.
fn tests() -> Command {
    let cargo = cargo();
    let mut tests = Command::new("env");
    tests.arg("--default-signal=INT,QUIT").arg(cargo.get_program()).args(["test", "--workspace"]);
    tests.arg("--no-fail-fast").current_dir(crate::run::workspace());
    tests
}

/// The same with the long forms of those tests that have one: they look for `KILN_LONG`.
pub(crate) fn run_long() -> Result<()> {
    run()?;
    visibly(tests().env("KILN_LONG", "1"))
}
