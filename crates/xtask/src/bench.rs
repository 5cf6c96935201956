//! Benchmarks.

use anyhow::Result;

pub(crate) fn run(_json: bool) -> Result<()> {
    anyhow::bail!("not yet")
}
