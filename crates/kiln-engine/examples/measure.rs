//! How long instances take: `cargo run --release -p kiln-engine --example measure`, as root.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_engine::Engine;
use kiln_engine::embedded::Embedded;
use kiln_engine::embedded::keeper::{self, Config};
use kiln_model::{InstanceId, InstanceOrder, InstanceState};
use kiln_testkit::fixture_image::FixtureImage;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let [run_dir, output_dir] = &arguments[..] {
        let config = Config { run_dir: run_dir.into(), output_dir: output_dir.into(), edge_uid: None };
        return Ok(keeper::run(&config)?);
    }
    let dir = std::env::temp_dir().join(format!("kiln-measure-{}", std::process::id()));
    let run_dir = dir.join("run");
    let started = Command::new(std::env::current_exe()?).arg(&run_dir).arg(dir.join("output")).status()?;
    if !started.success() {
        return Err("the keeper did not start".into());
    }
    let measured = measure(&run_dir);
    Embedded::connect(&run_dir)?.shutdown()?;
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn measure(run_dir: &Path) -> Result<(), Box<dyn Error>> {
    let (engine, image) = (Embedded::connect(run_dir)?, FixtureImage::new());
    let order = |name: String| image.order(&name, &["/bin/sleep", "1000"]);
    // Keeps the image's template alive, as a running fleet does.
    running(&engine, &[order("warm".into())])?;
    one_at_a_time(&engine, &order)?;
    for count in [100, 1000] {
        fleet(&engine, run_dir, count, &order)?;
    }
    Ok(())
}

fn one_at_a_time(engine: &Embedded, order: &impl Fn(String) -> InstanceOrder) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::new();
    for n in 0..200 {
        let order = order(format!("single-{n}"));
        let begun = Instant::now();
        running(engine, std::slice::from_ref(&order))?;
        times.push(begun.elapsed());
        engine.kill(&[order.id])?;
    }
    times.sort_unstable();
    println!("one at a time, call to running: median {:?}, 95% {:?}", times[100], times[190]);
    Ok(())
}

fn fleet(
    engine: &Embedded,
    run_dir: &Path,
    count: usize,
    order: &impl Fn(String) -> InstanceOrder,
) -> Result<(), Box<dyn Error>> {
    let orders: Vec<InstanceOrder> = (0..count).map(|n| order(format!("fleet-{count}-{n}"))).collect();
    let ids: Vec<InstanceId> = orders.iter().map(|o| o.id.clone()).collect();
    let begun = Instant::now();
    running(engine, &orders)?;
    let started = begun.elapsed();
    let memory = keeper_memory(run_dir)?;
    let begun = Instant::now();
    engine.kill(&ids)?;
    let stopped = begun.elapsed();
    engine.forget(&ids)?;
    println!(
        "{count}: started in {started:?} ({:?} each), killed in {stopped:?}; the keeper held {memory}",
        each(started, count)
    );
    Ok(())
}

fn keeper_memory(run_dir: &Path) -> Result<String, Box<dyn Error>> {
    let pid = std::fs::read_to_string(run_dir.join("keeper.lock"))?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(resident.trim().to_owned())
}

fn each(whole: Duration, count: usize) -> Duration {
    whole / u32::try_from(count).unwrap_or(u32::MAX)
}

fn running(engine: &Embedded, orders: &[InstanceOrder]) -> Result<(), Box<dyn Error>> {
    for status in engine.create(orders)? {
        if !matches!(status.state, InstanceState::Running { .. }) {
            return Err(format!("{status:?}").into());
        }
    }
    Ok(())
}
