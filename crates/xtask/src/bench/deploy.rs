//! Deploys and rollbacks against the goals of the project: whole processes, and planning and the past of a host by an
//! example of the test kit (`crates/kiln-testkit/examples/deploys.rs`).

mod host;
mod visitors;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use self::host::{BenchHost, Rollback};
use crate::run::{cargo, output, visibly, workspace};

/// Times every row of the table of goals.
pub(crate) fn run(as_json: bool) -> Result<()> {
    let example = ["build", "--release", "--package", "kiln-testkit", "--example", "deploys"];
    visibly(cargo().args(["build", "--release", "--package", "kiln"]))?;
    visibly(cargo().args(example))?;
    let mut cases = vec![warm_rollback()?, cold_rollback()?, thousand()?];
    cases.extend(planning()?);
    cases.extend(long_past()?);
    let kernel = output(Command::new("uname").arg("-r"))?.trim().to_owned();
    let cores = std::thread::available_parallelism()?.get();
    let document =
        json!({ "area": "deploy", "machine": { "cores": cores, "kernel": kernel }, "cases": cases });
    if as_json {
        println!("{document:#}");
        return Ok(());
    }
    for case in &cases {
        let met = if case["met"] == true { "met" } else { "NOT met" };
        let name = case["name"].as_str().unwrap_or_default();
        println!(
            "{name:<64} {:>9.4} goal {:>7} {met}",
            case["value"].as_f64().unwrap_or(f64::NAN),
            case["goal"]
        );
    }
    Ok(())
}

fn case(name: &str, value: f64, goal: f64, more: &Value) -> Value {
    json!({ "name": name, "value": value, "goal": goal, "met": value <= goal, "kiln": more })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// From the command until the last request was begun that the old release answered, as clients saw it, beside what the
/// edge has acknowledged.
fn warm_rollback() -> Result<Value> {
    let mut host = BenchHost::start()?;
    host.write(4, "10m")?;
    for page in ["one", "two"] {
        host.say(page)?;
        host.deploy()?;
    }
    let runs = (0..31).map(|_| host.rollback()).collect::<Result<Vec<Rollback>>>()?;
    host.down()?;
    Ok(rollback("warm rollback: command to last new request on the old release, s", &runs, 0.005))
}

fn cold_rollback() -> Result<Value> {
    let mut host = BenchHost::start()?;
    host.write(10, "0s")?;
    for page in ["one", "two"] {
        host.say(page)?;
        host.deploy()?;
    }
    let mut runs = Vec::new();
    for _ in 0..11 {
        // What it goes back to is wholly gone.
        host.until_nothing_is_under_way()?;
        runs.push(host.rollback()?);
    }
    host.down()?;
    Ok(rollback("cold rollback of 10 instances, to the last request on the old, s", &runs, 0.150))
}

fn rollback(name: &str, runs: &[Rollback], goal: f64) -> Value {
    let of = |figure: fn(&Rollback) -> f64| runs.iter().map(figure).collect::<Vec<f64>>();
    let (old, new) = (of(|r| r.seen.last_on_old), of(|r| r.seen.first_on_new));
    let acknowledged = of(|r| r.acknowledged);
    let more = json!({
        "last_request_on_the_old": { "median_s": median(&old), "worst_s": worst(&old) },
        "first_request_on_the_new": { "median_s": median(&new), "worst_s": worst(&new) },
        "acknowledged_by_the_edge": { "median_s": median(&acknowledged), "worst_s": worst(&acknowledged) },
        "requests": runs.iter().map(|r| r.seen.requests).sum::<usize>(),
        "runs": runs.len(),
    });
    case(name, median(&old), goal, &more)
}

/// From its beginning in the log until nothing of the old fleet is left.
fn thousand() -> Result<Value> {
    let mut host = BenchHost::start()?;
    host.write(1000, "0s")?;
    host.say("one")?;
    host.deploy()?;
    let mut runs = Vec::new();
    for page in ["two", "three", "four"] {
        host.until_nothing_is_under_way()?;
        host.say(page)?;
        host.deploy()?;
        host.until_nothing_is_under_way()?;
        runs.push(host.last_deploy()?);
    }
    let more = json!({ "median_s": median(&runs), "worst_s": worst(&runs), "runs": runs.len() });
    host.down()?;
    Ok(case("deploy of 1000: provision, health, switch, drain, remove, s", median(&runs), 6.0, &more))
}

fn planning() -> Result<Vec<Value>> {
    let measured: Value = serde_json::from_str(&output(Command::new(example()).arg("plan"))?)?;
    let of = |services: &str| measured[services].as_f64().context("a time");
    let (few, many, more) = (of("100")?, of("1000")?, of("2000")?);
    // Twice the services twice the time is 1.
    let growth = more / many / 2.0;
    Ok(vec![
        case("planning and checking 100,000 instances of 1,000 services, s", many, 0.2, &measured),
        case(
            "… time for each of 2,000 services to that of 1,000",
            growth,
            1.25,
            &json!({ "hundred_s": few }),
        ),
    ])
}

fn example() -> std::path::PathBuf {
    workspace().join("target/release/examples/deploys")
}

/// A host on which ten thousand releases have served beside one on which ten have.
fn long_past() -> Result<Vec<Value>> {
    let (mut short, mut long) = (BenchHost::new()?, BenchHost::new()?);
    let mut starts = Vec::new();
    for (host, count) in [(&mut short, "10"), (&mut long, "10000")] {
        // The state directory is made by a daemon.
        host.serve()?;
        host.down()?;
        let log = host.root().join("log");
        visibly(Command::new(example()).arg("history").arg(log.join("operations.jsonl")).arg(count))?;
    }
    for _ in 0..5 {
        let begun = Instant::now();
        long.serve()?;
        starts.push(begun.elapsed().as_secs_f64());
        long.down()?;
    }
    short.serve()?;
    long.serve()?;
    let (mut of_short, mut of_long) = (Vec::new(), Vec::new());
    for n in 0..15 {
        // One after the other, so that what else the machine does hits both.
        for (host, runs) in [(&short, &mut of_short), (&long, &mut of_long)] {
            host.write(4, "0s")?;
            host.say(&format!("page {n}"))?;
            let begun = Instant::now();
            host.deploy()?;
            runs.push(begun.elapsed().as_secs_f64());
            host.until_nothing_is_under_way()?;
        }
    }
    let ratio = median(&of_long) / median(&of_short);
    let more = json!({ "ten_s": median(&of_short), "ten_thousand_s": median(&of_long) });
    short.down()?;
    long.down()?;
    let start = json!({ "worst_s": worst(&starts), "runs": starts.len() });
    Ok(vec![
        case("a deploy with 10,000 releases in the log to one with 10", ratio, 1.1, &more),
        case("daemon start with 10,000 releases in the log, s", median(&starts), 0.2, &start),
    ])
}

/// How long something is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
