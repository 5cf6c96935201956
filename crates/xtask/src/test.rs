//! All tests, in the order in which a failure is cheapest.

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
    visibly(cargo().args(["test", "--workspace", "--no-fail-fast"]))
}

/// The same with the long forms of those tests that have one: they look for `KILN_LONG`.
pub(crate) fn run_long() -> Result<()> {
    run()?;
    visibly(cargo().args(["test", "--workspace", "--no-fail-fast"]).env("KILN_LONG", "1"))
}
