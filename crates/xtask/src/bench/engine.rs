//! The embedded engine beside crun, runc and podman from Debian, and beside what the kernel takes for the same namespaces
//! and limits.

pub(crate) mod peers;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::run::{cargo, output, visibly, workspace};
use crate::setup;

/// How many containers the peers are timed with; they are compared by what one takes.
const CONTAINERS: usize = 100;

/// Times instances: one, a thousand, five thousand.
pub(crate) fn run(as_json: bool) -> Result<()> {
    setup::ensure_installed(&setup::ENGINE_PEERS)?;
    let program = ["--release", "--package", "kiln-engine", "--example", "measure"];
    visibly(cargo().arg("build").args(program))?;
    let measured =
        output(&mut std::process::Command::new(workspace().join("target/release/examples/measure")))?;
    let measured: Value = serde_json::from_str(&measured).context("what the measuring program said")?;
    let peers = peers::measure(CONTAINERS)?;
    let cases = cases(&measured, &peers);
    let kernel = output(std::process::Command::new("uname").arg("-r"))?.trim().to_owned();
    let cores = std::thread::available_parallelism()?.get();
    let document = json!({
        "area": "engine", "machine": { "cores": cores, "kernel": kernel }, "cases": cases,
        "measured": measured, "peers": peers,
    });
    if as_json {
        println!("{document:#}");
    } else {
        print_cases(&cases);
        print_steps(&measured["steps"]);
    }
    Ok(())
}

fn print_cases(cases: &[Value]) {
    for case in cases {
        let met = match case["met"].as_bool() {
            Some(true) => "met",
            Some(false) => "NOT met",
            None => "-",
        };
        let name = case["name"].as_str().unwrap_or_default();
        let value = case["value"].as_f64().unwrap_or(f64::NAN);
        println!("{name:<52} {value:>10.4} goal {:>8} {met}", case["goal"]);
    }
}

/// What each step of a launch takes in microseconds, one instance at a time and in the middle of a fleet.
fn print_steps(steps: &Value) {
    for (name, steps) in steps.as_object().into_iter().flatten() {
        println!("\nmicroseconds of each step, {}:", name.replace('_', " "));
        for step in steps.as_array().into_iter().flatten() {
            let median = step["median_us"].as_f64().unwrap_or(f64::NAN);
            println!("{:<52} {median:>10.1}", step["step"].as_str().unwrap_or_default());
        }
    }
}

fn number(value: &Value, path: &str) -> Option<f64> {
    value.pointer(path)?.as_f64()
}

/// One row of the table of goals; a value that could not be had is `null` and met by nothing.
fn case(name: &str, value: Option<f64>, goal: f64) -> Value {
    json!({ "name": name, "value": value, "goal": goal, "met": value.is_some_and(|v| v <= goal) })
}

fn cases(measured: &Value, peers: &Value) -> Vec<Value> {
    let kiln = |path: &str| number(measured, path);
    let peer = |path: &str| number(peers, path);
    let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let (single, start, stop) =
        (kiln("/first_answer/median_s"), kiln("/fleets/1/start_s"), kiln("/fleets/1/stop_s"));
    let cpu = kiln("/fleets/1/cpu_s");
    let times = |value: Option<f64>, n: f64| value.map(|v| v * n);
    let each = |path: &str, n: f64| kiln(path).map(|v| v / n);
    vec![
        case("one instance to its first answer, s", single, 0.002),
        case("… to crun's start alone", ratio(single, peer("/crun/start_each_s")), 1.0 / 3.0),
        case("1000 started, each has answered, s", start, 1.2),
        case("… to crun's wall", ratio(start, times(peer("/crun/start_parallel_each_s"), 1000.0)), 0.25),
        case("… CPU to crun's, start and delete", ratio(cpu, times(peer("/crun/cpu_each_s"), 1000.0)), 0.2),
        case("… to runc's wall", ratio(start, times(peer("/runc/start_parallel_each_s"), 1000.0)), 0.25),
        case("… to podman's wall", ratio(start, times(peer("/podman/start_each_s"), 1000.0)), 0.02),
        case("… CPU to the bare kernel's", ratio(cpu, kiln("/bare_1000/cpu_s")), 1.5),
        case("1000 stopped and cleaned up, s", stop, 0.4),
        case(
            "5000: time of each to that at 1000",
            ratio(each("/fleets/2/start_s", 5000.0), each("/fleets/1/start_s", 1000.0)),
            2.0,
        ),
        case("memory of Kiln's processes for each, bytes", kiln("/fleets/1/kiln_bytes_each"), 16384.0),
        // As cheap as that, within what two runs of the same differ by.
        case(
            "connection by the broker's sockets to a plain one",
            ratio(kiln("/connected/connect_s"), kiln("/connected/plain_connect_s")),
            1.1,
        ),
        case("death to another one's answer, engine alone, s", kiln("/replaced/median_s"), 0.010),
    ]
}
