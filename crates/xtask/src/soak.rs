//! The zero-drop suite for as long as somebody wants to watch.

use anyhow::Result;

use crate::run::{cargo, visibly};

/// Switches, switches back and successions of the edge under all kinds of load, for `minutes`; says at the end how
/// many requests and switches there were, and fails on one request or stream that was dropped.
pub(crate) fn run(minutes: u32) -> Result<()> {
    let test = "nobody_is_dropped_whatever_they_are_doing";
    let mut cargo = cargo();
    cargo.args(["test", "--package", "kiln-edge", "--test", "edge", test, "--", "--nocapture"]);
    visibly(cargo.env("KILN_SOAK_MINUTES", minutes.to_string()))
}
