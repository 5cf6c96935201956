//! How long instances take, as `cargo xtask bench engine` asks: one JSON object of measurements on standard output.
//! As root: `cargo run --release -p kiln-engine --example measure [-- --short]`; short is without the 5000.

mod bare;
mod connect;
mod fleet;
mod rest;
mod steps;
mod usage;

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_engine::Engine;
use kiln_engine::embedded::Embedded;
use kiln_engine::embedded::keeper::{self, Config};
use kiln_model::InstanceOrder;
use kiln_testkit::fixture_image::FixtureImage;
use serde_json::{Value, json};

/// What fails ends the measurement.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let [run_dir, output_dir, times @ ..] = &arguments[..] {
        let (run_dir, output_dir) = (run_dir.into(), output_dir.into());
        let config = Config { run_dir, output_dir, edge_uid: None, times: times.first().map(Into::into) };
        return Ok(keeper::run(&config)?);
    }
    let is_short = arguments.first().is_some_and(|a| a == "--short");
    let dir = std::env::temp_dir().join(format!("kiln-measure-{}", std::process::id()));
    let measured = with_keeper(&dir, None, |run_dir| measure(run_dir, is_short));
    // Apart, because measuring steps takes time itself.
    let times = dir.join("times");
    let steps = with_keeper(&dir, Some(&times), |run_dir| steps::measure(run_dir, &times));
    std::fs::remove_dir_all(&dir)?;
    let (mut measured, steps) = (measured?, steps?);
    measured["steps"] = steps;
    println!("{measured}");
    Ok(())
}

/// Does something while a keeper works, which leaves nothing.
fn with_keeper<T>(dir: &Path, times: Option<&Path>, what: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let run_dir = dir.join("run");
    let mut keeper = Command::new(std::env::current_exe()?);
    if !keeper.arg(&run_dir).arg(dir.join("output")).args(times).status()?.success() {
        return Err("the keeper did not start".into());
    }
    let done = what(&run_dir);
    Embedded::connect(&run_dir)?.shutdown()?;
    done
}

/// Answers every request on port 80.
fn server(image: &FixtureImage, name: &str) -> InstanceOrder {
    image.order(name, &["/bin/httpd", "-f", "-p", "80"])
}

fn measure(run_dir: &Path, is_short: bool) -> Result<Value> {
    let (engine, image) = (Embedded::connect(run_dir)?, FixtureImage::new());
    // Keeps the image's template alive, as a running fleet does.
    engine.create(&[server(&image, "warm")])?;
    let single = one_at_a_time(&engine, &image)?;
    let replaced = replacements(&engine, &image)?;
    let connected = connect::measure(&engine, run_dir, &image)?;
    let fleet = |count| {
        rest::wait()?;
        fleet::measure(&engine, run_dir, &image, count)
    };
    // In turns, so that none has the better memory: what the kernel has never touched costs more.
    let [mut few, mut thousands, mut many, mut bare] = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        few.push(fleet(100)?);
        thousands.push(fleet(1000)?);
        rest::wait()?;
        bare.push(bare::measure(1000)?);
        if !is_short && round < ROUNDS_OF_MANY {
            many.push(fleet(5000)?);
        }
    }
    let fleets = [few, thousands, many].map(medians);
    let bare = medians(bare);
    Ok(json!({
        "first_answer": single, "replaced": replaced, "connected": connected, "fleets": fleets, "bare_1000": bare,
    }))
}

/// How often a thousand are started and ended, and how often five thousand.
const ROUNDS: usize = 5;
const ROUNDS_OF_MANY: usize = 3;

/// The median of each figure.
fn medians(rounds: Vec<Value>) -> Value {
    let mut all = rounds.first().cloned().unwrap_or_default();
    for (key, value) in all.as_object_mut().into_iter().flatten().filter(|(_, v)| v.is_f64() || v.is_u64()) {
        let mut values: Vec<f64> = rounds.iter().filter_map(|round| round[key].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        *value = json!(values[values.len() / 2]);
    }
    all["rounds"] = json!(rounds);
    all
}

/// From the call to the engine until a request is answered.
fn one_at_a_time(engine: &Embedded, image: &FixtureImage) -> Result<Value> {
    let mut times = Vec::new();
    for n in 0..100 {
        let order = server(image, &format!("single-{n}"));
        let begun = Instant::now();
        engine.create(std::slice::from_ref(&order))?;
        fleet::answered(engine, &order.id)?;
        times.push(begun.elapsed());
        engine.kill(&[order.id])?;
    }
    Ok(distribution(times))
}

/// From the death of an instance until another one answers, without whoever decides that it shall.
fn replacements(engine: &Embedded, image: &FixtureImage) -> Result<Value> {
    let mut times = Vec::new();
    let order = |n: usize| server(image, &format!("replaced-{n}"));
    let mut pid = started(engine, &order(0))?;
    while !engine.changes(Duration::ZERO)?.is_empty() {}
    for n in 1..=50 {
        let begun = Instant::now();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        while engine.changes(Duration::from_secs(1))?.iter().all(|s| s.state.pid().is_some()) {}
        pid = started(engine, &order(n))?;
        fleet::answered(engine, &order(n).id)?;
        times.push(begun.elapsed());
    }
    engine.kill(&[order(50).id])?;
    Ok(distribution(times))
}

fn started(engine: &Embedded, order: &InstanceOrder) -> Result<rustix::process::Pid> {
    let status = engine.create(std::slice::from_ref(order))?.remove(0);
    let pid = status.state.pid().and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
    pid.ok_or_else(|| format!("{status:?}").into())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn distribution(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64();
    json!({ "runs": times.len(), "median_s": at(50), "p95_s": at(95) })
}
