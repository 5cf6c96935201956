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

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::run::{cargo, output, visibly, workspace};
use crate::setup::{EDGE_PEERS, ensure_installed};
use proxies::Proxy;

const REPEATS: usize = 3;

/// Measures, and prints one document.
pub(crate) fn run(as_json: bool) -> Result<()> {
    ensure_installed(&EDGE_PEERS)?;
    let examples = ["--example", "proxy", "--example", "switch"];
    visibly(cargo().args(["build", "--release", "--package", "kiln-edge"]).args(examples))?;
    visibly(cargo().args(["build", "--release", "--package", "kiln"]))?;
    let dir = std::env::temp_dir().join(format!("kiln-bench-edge-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = measure(&dir);
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

fn measure(dir: &Path) -> Result<Vec<Value>> {
    let program = example("proxy");
    visibly(Command::new(&program).arg("certificate").arg(dir))?;
    let (_backend, proxies) = proxies::start(&program, dir)?;
    let mut cases = Vec::new();
    for (name, figure, goal, load) in LOADS {
        let mut runs: HashMap<&str, Vec<Value>> = HashMap::new();
        for _ in 0..REPEATS {
            for proxy in &proxies {
                let measured = load(proxy).with_context(|| format!("{name}, {}", proxy.name))?;
                runs.entry(proxy.name).or_default().push(measured);
            }
        }
        cases.push(case(
            name,
            figure,
            goal,
            runs.into_iter().map(|(name, runs)| (name, middle(&runs))).collect(),
        ));
    }
    drop(proxies);
    cases.extend(switches(dir)?);
    cases.push(alone("edge-killed", json!({ "ms": restart::measure(dir)? }), "ms", 100.0));
    Ok(cases)
}

fn example(name: &str) -> PathBuf {
    workspace().join("target/release/examples").join(name)
}

/// What a switch costs; nobody else's is measured in the same way.
fn switches(dir: &Path) -> Result<Vec<Value>> {
    let runs: Result<Vec<Value>> = (0..REPEATS)
        .map(|_| Ok(serde_json::from_str(&output(Command::new(example("switch")).arg(dir))?)?))
        .collect();
    let figures = middle(&runs?);
    let before = figures["p999_before_ms"].as_f64().unwrap_or_default();
    Ok(vec![
        alone("switch-last-on-old", figures.clone(), "last_ms", 1.0),
        alone("switch-p999", figures.clone(), "p999_during_ms", before),
        alone("swap-10000-routes", figures, "large_swap_ms", 10.0),
    ])
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
