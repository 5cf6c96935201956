//! The zero-drop suites for as long as somebody wants to watch.

use anyhow::Result;

use crate::run::{cargo, visibly};

/// The suites: package, test binary, test.
const SUITES: [(&str, &str, &str); 2] = [
    // Deploys, rollbacks, canaries, killed instances and renewed edges of a real host.
    ("kiln", "e2e", "nobody_is_dropped_by_real_instances"),
    // The edge alone, with every kind of client and hundreds of switches.
    ("kiln-edge", "edge", "nobody_is_dropped_whatever_they_are_doing"),
];

/// Each for half of `minutes`; says at the end how many requests and cut-overs there were, and fails on one request or
/// stream that was dropped.
pub(crate) fn run(minutes: u32) -> Result<()> {
    let each = minutes.div_ceil(2).max(1).to_string();
    for (package, binary, test) in SUITES {
        let mut cargo = cargo();
        cargo.args(["test", "--package", package, "--test", binary, test, "--", "--nocapture"]);
        visibly(cargo.env("KILN_SOAK_MINUTES", &each))?;
    }
    Ok(())
}
