//! What proxies are put through.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::proxies::{Proxy, Running};
use super::{example, paced};
use crate::run::output;

/// How long each load goes on.
const SECONDS: u32 = 3;
const IDLE: usize = 1000;

/// CPU seconds of a process and its children so far.
fn cpu(pid: u32) -> Result<f64> {
    let mut sum = 0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        let is_it = head.split(' ').next() == Some(&pid.to_string()) || fields[1] == pid.to_string();
        if is_it {
            sum += fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        }
    }
    // In hundredths of a second, on every Linux there is.
    Ok(sum as f64 / 100.0)
}

/// The word after one that begins a line, e.g. `99%`.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.trim_start().starts_with(word))?;
    line.trim_start()[word.len()..].split_whitespace().next()
}

pub(super) fn wrk(proxy: &Proxy, connections: u32) -> Result<Value> {
    let address = format!("http://localhost:{}/", proxy.http.port());
    let load = |seconds: u32| {
        let mut command = Command::new("wrk");
        command.args(["-t2", "--latency", &format!("-c{connections}"), &format!("-d{seconds}s"), &address]);
        output(&mut command)
    };
    load(1)?;
    let before = cpu(proxy.running.0.id())?;
    let said = load(SECONDS)?;
    let spent = cpu(proxy.running.0.id())? - before;
    ensure!(!said.contains("Non-2xx"), "{} answered something else:\n{said}", proxy.name);
    let line = said.lines().find(|l| l.contains("requests in")).context("a number of requests")?;
    let requests: f64 = line.split_whitespace().next().context("a number")?.parse()?;
    let rate: f64 = after(&said, "Requests/sec:").context("a rate")?.parse()?;
    Ok(json!({
        "cpu_us": round(spent * 1e6 / requests),
        "requests_s": rate.round(),
        "p50": after(&said, "50%"),
        "p99": after(&said, "99%"),
    }))
}

pub(super) fn h2load(proxy: &Proxy, how: &[&str]) -> Result<Value> {
    let address = format!("https://localhost:{}/", proxy.https.port());
    let load = |seconds: u32| {
        let mut command = Command::new("h2load");
        command.args(how).args(["-t2", "-D", &seconds.to_string(), &address]);
        output(&mut command)
    };
    load(1)?;
    let before = cpu(proxy.running.0.id())?;
    let said = load(SECONDS)?;
    let spent = cpu(proxy.running.0.id())? - before;
    let counts = said.lines().find(|l| l.starts_with("requests:")).context("a number of requests")?;
    let words: Vec<&str> = counts.split_whitespace().collect();
    let done = words.iter().position(|w| w.starts_with("succeeded")).context("successes")?;
    let requests: f64 = words[done - 1].parse()?;
    ensure!(requests > 0.0, "{} answered nothing:\n{said}", proxy.name);
    Ok(
        json!({ "cpu_us": round(spent * 1e6 / requests), "requests_s": (requests / f64::from(SECONDS)).round() }),
    )
}

fn resident(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(after(&status, "VmRSS:").context("its memory")?.parse()?)
}

/// Memory of a connection that has asked once and rests.
pub(super) fn idle(proxy: &Proxy, scheme: &str) -> Result<Value> {
    let pid = proxy.running.0.id();
    let address = if scheme == "https" { proxy.https } else { proxy.http };
    let before = resident(pid)?;
    let mut holding = Command::new(example("proxy"));
    holding.args(["hold", scheme, &address.to_string(), &IDLE.to_string()]);
    let mut holding = Running(holding.stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    BufReader::new(holding.0.stdout.take().context("its stdout")?).read_line(&mut line)?;
    ensure!(line.trim() == "held", "{} closed a connection", proxy.name);
    Ok(json!({ "kib": round((resident(pid)? - before) / IDLE as f64) }))
}

/// What it adds to the latency of what is behind it, at a pace that is far from the most.
pub(super) fn added(proxy: &Proxy) -> Result<Value> {
    let (rate, span) = (5_000, Duration::from_secs(u64::from(SECONDS)));
    let direct = paced::ask(proxy.backend, rate, span)?;
    let through = paced::ask(proxy.http, rate, span)?;
    let added = |share: f64| round(paced::quantile(&through, share) - paced::quantile(&direct, share));
    Ok(json!({
        "added_p50_us": added(0.5),
        "added_p99_us": added(0.99),
        "p50_us": round(paced::quantile(&through, 0.5)),
        "p99_us": round(paced::quantile(&through, 0.99)),
    }))
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
