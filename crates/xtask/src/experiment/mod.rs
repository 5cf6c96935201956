//! `cargo xtask experiment fleet`: p^N on real fleets, and what replacing makes of it.

mod host;
mod in_place;
mod load;
mod page;
mod plot;
mod statistics;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::run::{cargo, output, visibly, workspace};
use host::Host;
use in_place::Servers;

/// Sizes of fleets, with what part of the time each gets.
const FLEETS: [(usize, u32); 6] = [(1, 1), (10, 1), (50, 2), (100, 3), (500, 5), (1000, 8)];
/// Failures of a million.
const FAILURES: [u64; 4] = [100, 1_000, 10_000, 50_000];
/// Deploys and upgrades of a cell, if there is time for them.
const MOST: usize = 100;
/// Deploys there are at least, whatever time they take.
const LEAST: usize = 3;

/// What was measured of fleets of one size with one chance of failure.
#[derive(Debug, Default, Clone)]
struct Cell {
    servers: usize,
    of_million: u64,
    upgrades: usize,
    upgraded_whole: usize,
    /// Servers that were of no version or did not run, after all upgrades together.
    left_between: usize,
    deploys: usize,
    deployed_whole: usize,
    requests: u64,
    failed_requests: u64,
    /// Instances made beyond one for each server, of all deploys together, and the most of one.
    made_again: usize,
    most_made_again: usize,
    /// Seconds a deploy took, from the command until all new requests went to it.
    seconds: Vec<f64>,
    /// The same without failures, one after another on the same fleet.
    seconds_without: Vec<f64>,
    /// Why a deploy did not come out whole.
    causes: Vec<String>,
}

/// Measures all cells within about so many minutes, and writes the page.
pub(crate) fn run(minutes: u32) -> Result<()> {
    visibly(cargo().args(["build", "--release", "--package", "kiln"]))?;
    let member = build_member()?;
    let began = Instant::now();
    let mut cells = Vec::new();
    let parts: u32 = FLEETS.iter().map(|(_, part)| part).sum::<u32>() * FAILURES.len() as u32;
    for (servers, part) in FLEETS {
        let time = Duration::from_secs(60) * minutes * part / parts;
        let host = Host::start(&workspace().join("target/release/kiln"), &member)?;
        for of_million in FAILURES {
            let cell = measure(&host, &member, servers, of_million, time)?;
            eprintln!(
                "{servers:>5} servers, {of_million:>6} of a million fail: in place {} of {} whole; replaced {} of {} \
                 whole, {} of {} requests failed, {} instances made again",
                cell.upgraded_whole,
                cell.upgrades,
                cell.deployed_whole,
                cell.deploys,
                cell.failed_requests,
                cell.requests,
                cell.made_again
            );
            cells.push(cell);
        }
        host.end()?;
        // After every size: who breaks it off has what was measured so far.
        page::write(&cells, began.elapsed())?;
    }
    Ok(())
}

/// A quarter of the time goes to changes in place, which are quick.
fn measure(host: &Host, member: &Path, servers: usize, of_million: u64, time: Duration) -> Result<Cell> {
    let mut cell = Cell { servers, of_million, ..Cell::default() };
    let until = Instant::now() + time / 4;
    let mut fleet = Servers::start(member, servers)?;
    while cell.upgrades < MOST && (cell.upgrades < LEAST || Instant::now() < until) {
        let outcome = fleet.upgrade(of_million)?;
        cell.upgrades += 1;
        cell.upgraded_whole += usize::from(outcome.left_between == 0 && outcome.old == 0);
        cell.left_between += outcome.left_between;
    }
    drop(fleet);
    host.measure(&mut cell, Instant::now() + time * 3 / 4)
        .with_context(|| format!("deploying {servers} instances"))?;
    Ok(cell)
}

/// The program of a server, with everything in it.
fn build_member() -> Result<PathBuf> {
    let dir = workspace().join("target/experiment");
    std::fs::create_dir_all(&dir)?;
    let member = dir.join("fleet-member");
    let source = workspace().join("crates/xtask/examples/fleet-member.rs");
    let mut rustc = std::process::Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "panic=abort", "-o"]);
    output(rustc.arg(&member).arg(source)).context("building the program of a server")?;
    Ok(member)
}
