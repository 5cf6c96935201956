//! What was measured, as a page with a plot.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result};

use super::statistics::{interval, median};
use super::{Cell, plot};
use crate::run::workspace;

const HEAD: &str = "\
# p^N on real fleets, and what replacing makes of it

A fleet that is upgraded in place comes out whole with probability p^N: each of N servers has to come out right. This
page has what was measured of it on one machine, beside what Kiln does: it makes a whole new fleet from the image, throws
away what fails and makes it again, and switches when all of it is well. `kiln odds` has the arithmetic.

![Whole fleets, in place and replaced](fleet.svg)

";

const HOW: &str = "
## How it was measured
Servers are one small program. It fails with the given chance at a random one of four points of its start: at once, when
it has read what it needs, when its socket is there, when it has answered once.

- **In place**: N processes, each with a directory. One after another is stopped, its program, configuration and content
  are replaced, it is started and asked which version it is. With the given chance the procedure breaks off before one of
  these steps, or the new process fails in its start. Nothing is tried again. A fleet is whole if every server is wholly
  of the new version. What is broken is put right before the next upgrade, outside of the count.
- **Replaced**: `kiln deploy` of N instances on the embedded engine, over a fleet that serves, while four people ask a
  hundred times a second. The environment of the instances differs from deploy to deploy, the image does not. A fleet is
  whole if Kiln says so *and* as many processes of the new version are found in /proc. What fails is made again
  within the budget that every deploy has: as many losses as half of the fleet, three at least, give it up.

Intervals are exact (Clopper and Pearson, 95 %). Where few deploys were measured they are wide, and say so.
";

pub(super) fn write(cells: &[Cell], took: Duration) -> Result<()> {
    let docs = workspace().join("docs");
    std::fs::write(docs.join("fleet.svg"), plot::svg(cells))?;
    std::fs::write(docs.join("fleet.md"), page(cells, took)?).context("writing docs/fleet.md")
}

fn page(cells: &[Cell], took: Duration) -> Result<String> {
    let mut out = HEAD.to_owned();
    out.push_str(
        "| a server fails | servers | in place: whole | measured | p^N | left between versions | replaced: whole | \
         measured | failed requests |\n|---:|---:|---:|---|---:|---:|---:|---|---:|\n",
    );
    for cell in sorted(cells) {
        writeln!(
            out,
            "| {} | {} | {} of {} | {} | {} | {:.2} a fleet | {} of {} | {} | {} of {} |",
            chance(cell.of_million),
            cell.servers,
            cell.upgraded_whole,
            cell.upgrades,
            share(cell.upgraded_whole, cell.upgrades),
            percent(in_place(cell.of_million, cell.servers)),
            cell.left_between as f64 / cell.upgrades.max(1) as f64,
            cell.deployed_whole,
            cell.deploys,
            share(cell.deployed_whole, cell.deploys),
            cell.failed_requests,
            cell.requests,
        )?;
    }
    out.push_str(
        "\n## The price\n| a server fails | servers | instances made again a deploy | at most | a deploy takes | \
         without failures |\n|---:|---:|---:|---:|---:|---:|\n",
    );
    for cell in sorted(cells) {
        let whole = cell.deploys - cell.causes.len().min(cell.deploys);
        let seconds = |values: &[f64]| median(values).map_or("–".into(), |s| format!("{s:.2} s"));
        writeln!(
            out,
            "| {} | {} | {:.2} | {} | {} | {} |",
            chance(cell.of_million),
            cell.servers,
            cell.made_again as f64 / whole.max(1) as f64,
            cell.most_made_again,
            seconds(&cell.seconds),
            seconds(&cell.seconds_without),
        )?;
    }
    let causes: Vec<String> = sorted(cells)
        .iter()
        .flat_map(|c| {
            c.causes.iter().map(|why| format!("- {} of {}: {why}", chance(c.of_million), c.servers))
        })
        .collect();
    if !causes.is_empty() {
        writeln!(out, "\n## Deploys that did not come out whole\n{}", causes.join("\n"))?;
    }
    out.push_str(HOW);
    let cores = std::thread::available_parallelism()?.get();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    writeln!(
        out,
        "\nMeasured with `cargo xtask experiment fleet` in {} minutes on {cores} cores, Linux {}, with other work on \
         the machine: times are for comparison within this page.",
        took.as_secs().div_ceil(60),
        kernel.trim()
    )?;
    Ok(out)
}

fn sorted(cells: &[Cell]) -> Vec<&Cell> {
    let mut sorted: Vec<&Cell> = cells.iter().collect();
    sorted.sort_by_key(|c| (c.of_million, c.servers));
    sorted
}

/// The chance that all servers come out right.
pub(super) fn in_place(of_million: u64, servers: usize) -> f64 {
    (1.0 - of_million as f64 / 1e6).powf(servers as f64)
}

/// As it is written: 0.01 %.
pub(super) fn chance(of_million: u64) -> String {
    format!("{} %", of_million as f64 / 1e4)
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p >= 0.1 => format!("{p:.1} %"),
        p => format!("{p:.1e} %"),
    }
}

fn share(successes: usize, trials: usize) -> String {
    let (low, high) = interval(successes, trials);
    let measured = successes as f64 / trials.max(1) as f64;
    format!("{:.0} % ({:.1}–{:.1})", measured * 100.0, low * 100.0, high * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_what_was_measured_and_what_went_wrong() {
        let cell = Cell {
            servers: 100,
            of_million: 10_000,
            upgrades: 100,
            upgraded_whole: 37,
            left_between: 90,
            deploys: 50,
            deployed_whole: 49,
            requests: 7000,
            causes: vec!["the log could not be written".into()],
            seconds: vec![1.0, 2.0, 3.0],
            ..Cell::default()
        };
        let page = page(&[cell], Duration::from_secs(100)).unwrap();
        assert!(
            page.contains("| 1 % | 100 | 37 of 100 | 37 % (27.6–47.2) | 36.6 % | 0.90 a fleet | 49 of 50 |"),
            "{page}"
        );
        assert!(page.contains("- 1 % of 100: the log could not be written"), "{page}");
        assert!(page.contains("| 2.00 s | – |"), "{page}");
        assert_eq!(percent(in_place(50_000, 1000)), "5.3e-21 %");
    }
}
