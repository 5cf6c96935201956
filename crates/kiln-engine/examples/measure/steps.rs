//! What each step of a launch takes, one instance at a time and in the middle of a fleet.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kiln_engine::Engine;
use kiln_engine::embedded::Embedded;
use kiln_model::{InstanceId, InstanceOrder};
use kiln_testkit::fixture_image::FixtureImage;
use serde_json::{Value, json};

use super::{Result, server};

/// With a keeper that writes times to a file.
pub(super) fn measure(run_dir: &Path, times: &Path) -> Result<Value> {
    let (engine, image) = (Embedded::connect(run_dir)?, FixtureImage::new());
    engine.create(&[server(&image, "warm")])?;
    let mut all = json!({});
    for (name, at_once, rounds) in [("alone", 1, 100), ("of_200", 200, 2)] {
        fs::write(times, "")?;
        for round in 0..rounds {
            let order = |n| server(&image, &format!("{}-{round}-{n}", name.replace('_', "-")));
            let orders: Vec<InstanceOrder> = (0..at_once).map(order).collect();
            engine.create(&orders)?;
            let ids: Vec<InstanceId> = orders.into_iter().map(|o| o.id).collect();
            engine.kill(&ids)?;
            engine.forget(&ids)?;
        }
        all[name] = medians(&fs::read_to_string(times)?)?;
    }
    Ok(all)
}

/// The median of each step in microseconds.
fn medians(lines: &str) -> Result<Value> {
    let mut steps: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in lines.lines() {
        for (step, nanoseconds) in serde_json::from_str::<BTreeMap<String, u64>>(line)? {
            steps.entry(step).or_default().push(nanoseconds);
        }
    }
    let median = |mut values: Vec<u64>| {
        values.sort_unstable();
        values[values.len() / 2] as f64 / 1000.0
    };
    let steps: Vec<Value> = steps
        .into_iter()
        .map(|(step, taken)| json!({ "step": step, "launches": taken.len(), "median_us": median(taken) }))
        .collect();
    Ok(json!(steps))
}
