//! The edge beside haproxy, nginx and caddy from Debian: CPU per request, requests a second, latency, memory of idle
//! connections, and what a switch costs. Load generator, proxy and backend share the machine; every case is measured
//! three times, the proxies taking turns, and the middle of each figure is what is told.

mod loads;
mod paced;
mod proxies;
mod restart;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::run::{cargo, output, visibly, workspace};
use crate::setup::{EDGE_PEERS, ensure_installed};
use proxies::Proxy;

const REPEATS: usize = 3;

/// Measures the cases whose name contains `only`, and prints one document.
pub(crate) fn run(only: &str, as_json: bool) -> Result<()> {
    ensure_installed(&EDGE_PEERS)?;
    let examples = ["--example", "proxy", "--example", "switch"];
    visibly(cargo().args(["build", "--release", "--package", "kiln-edge"]).args(examples))?;
    visibly(cargo().args(["build", "--release", "--package", "kiln"]))?;
    let dir = std::env::temp_dir().join(format!("kiln-bench-edge-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = measure(&dir, only);
    let _ = std::fs::remove_dir_all(&dir);
    let cases = result?;
    let kernel = output(Command::new("uname").arg("-r"))?.trim().to_owned();
    let cores = std::thread::available_parallelism()?.get();
    let document = json!({ "area": "edge", "machine": { "cores": cores, "kernel": kernel }, "cases": cases });
    if as_json {
        println!("{document:#}");
    } else {
        for case in &cases {
            println!(
                "{:<26} kiln {} peers {} ratio {}",
                case["name"], case["kiln"], case["peers"], case["ratio"]
            );
        }
    }
    Ok(())
}

/// How a figure is judged.
#[derive(Clone, Copy)]
enum Goal {
    /// At most so much of haproxy's.
    OfHaproxy(f64),
    /// At most so much.
    AtMost(f64),
}

type Load = fn(&Proxy) -> Result<Value>;

/// What every proxy is put through: name, the figure that is judged, and how.
const LOADS: [(&str, &str, Goal, Load); 7] = [
    ("http1-64", "cpu_us", Goal::OfHaproxy(0.85), |p| loads::wrk(p, 64)),
    ("http1-256", "cpu_us", Goal::OfHaproxy(0.75), |p| loads::wrk(p, 256)),
    ("https-h1-64", "cpu_us", Goal::OfHaproxy(1.0), |p| loads::h2load(p, &["--h1", "-c64", "-m1"])),
    ("https-h2-64x4", "cpu_us", Goal::OfHaproxy(1.0), |p| loads::h2load(p, &["-c64", "-m4"])),
    ("added-latency-5000", "added_p99_us", Goal::OfHaproxy(1.0), loads::added),
    ("idle-connection", "kib", Goal::AtMost(4.0), |p| loads::idle(p, "http")),
    ("idle-tls-connection", "kib", Goal::AtMost(24.0), |p| loads::idle(p, "https")),
];

fn measure(dir: &Path, only: &str) -> Result<Vec<Value>> {
    visibly(Command::new(example("proxy")).arg("certificate").arg(dir))?;
    let mut cases = Vec::new();
    for (name, figure, goal, load) in LOADS.into_iter().filter(|(name, ..)| name.contains(only)) {
        cases.push(case(name, figure, goal, beside(name, load, dir)?));
    }
    if SWITCHES.iter().any(|(name, _)| name.contains(only)) {
        cases.extend(switches(dir)?.into_iter().filter(|case| said(case).contains(only)));
    }
    if "edge-killed".contains(only) {
        eprintln!("edge-killed");
        cases.push(alone("edge-killed", json!({ "ms": restart::measure(dir)? }), "ms", 100.0));
    }
    ensure!(!cases.is_empty(), "no case of `bench edge` has `{only}` in its name");
    Ok(cases)
}

fn said(case: &Value) -> &str {
    case["name"].as_str().unwrap_or_default()
}

/// Every proxy under one load, in turns. All are new in each: memory that an earlier load has left would hide what
/// connections cost.
fn beside(name: &str, load: Load, dir: &Path) -> Result<HashMap<&'static str, Value>> {
    let mut runs: HashMap<&str, Vec<Value>> = HashMap::new();
    for turn in 1..=REPEATS {
        eprintln!("{name}, turn {turn} of {REPEATS}");
        let (_backend, proxies) = proxies::start(&example("proxy"), dir)?;
        for proxy in &proxies {
            let measured = load(proxy).with_context(|| format!("{name}, {}", proxy.name))?;
            runs.entry(proxy.name).or_default().push(measured);
        }
    }
    Ok(runs.into_iter().map(|(name, runs)| (name, middle(&runs))).collect())
}

fn example(name: &str) -> PathBuf {
    workspace().join("target/release/examples").join(name)
}

/// Name, and the figure that is judged; all of them are measured in one run.
const SWITCHES: [(&str, &str); 3] = [
    ("switch-last-on-old", "last_ms"),
    ("switch-p999", "p999_during_ms"),
    ("swap-10000-routes", "large_swap_ms"),
];

/// What a switch costs; nobody else's is measured in the same way.
fn switches(dir: &Path) -> Result<Vec<Value>> {
    let turn = |turn| {
        eprintln!("switches, turn {turn} of {REPEATS}");
        Ok(serde_json::from_str(&output(Command::new(example("switch")).arg(dir))?)?)
    };
    let runs: Result<Vec<Value>> = (1..=REPEATS).map(turn).collect();
    let figures = middle(&runs?);
    let goals = [1.0, figures["p999_before_ms"].as_f64().unwrap_or_default(), 10.0];
    let all = SWITCHES.iter().zip(goals);
    Ok(all.map(|((name, figure), goal)| alone(name, figures.clone(), figure, goal)).collect())
}

/// Each figure in the middle of those measured; words as they are.
fn middle(runs: &[Value]) -> Value {
    let Some(first) = runs.first().and_then(Value::as_object) else { return Value::Null };
    let of = |key: &String| -> Value {
        let mut all: Vec<f64> = runs.iter().filter_map(|run| run[key].as_f64()).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).map_or_else(|| first[key].clone(), |value| json!(value))
    };
    Value::Object(first.keys().map(|key| (key.clone(), of(key))).collect())
}

fn case(name: &str, figure: &str, goal: Goal, mut peers: HashMap<&str, Value>) -> Value {
    let ours = peers.remove("kiln").unwrap_or_default();
    let value = ours[figure].as_f64().unwrap_or(f64::NAN);
    let ratio: HashMap<&str, f64> =
        peers.iter().map(|(name, p)| (*name, value / p[figure].as_f64().unwrap_or(f64::NAN))).collect();
    let (goal, judged) = match goal {
        Goal::OfHaproxy(goal) => (goal, ratio.get("haproxy").copied().unwrap_or(f64::NAN)),
        Goal::AtMost(goal) => (goal, value),
    };
    json!({ "name": name, "kiln": ours, "peers": peers, "ratio": ratio, "goal": goal, "met": judged <= goal })
}

fn alone(name: &str, figures: Value, figure: &str, goal: f64) -> Value {
    let met = figures[figure].as_f64().is_some_and(|value| value <= goal);
    json!({ "name": name, "kiln": figures, "peers": {}, "ratio": {}, "goal": goal, "met": met })
}
