//! Benchmarks: Kiln as a user runs it, whole processes, medians over several runs.

pub(crate) mod bake;
pub(crate) mod deploy;
pub(crate) mod edge;
pub(crate) mod engine;
mod measure;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::measure::forget_made;
use crate::run::{cargo, output, visibly, workspace};

/// Times the main job of this version, step by step.
pub(crate) fn run(as_json: bool) -> Result<()> {
    visibly(cargo().args(["build", "--release", "--package", "kiln"]))?;
    let bench = Bench::new()?;
    let cases = vec![
        bench.cold_bake()?,
        bench.warm_bake()?,
        bench.changed_bake()?,
        bench.second_up()?,
        bench.deploys()?,
        bench.first_answer()?,
    ];
    let kernel = output(Command::new("uname").arg("-r"))?.trim().to_owned();
    let cores = std::thread::available_parallelism()?.get();
    let document =
        json!({ "area": "spine", "machine": { "cores": cores, "kernel": kernel }, "cases": cases });
    if as_json {
        println!("{document:#}");
    } else {
        for case in &cases {
            println!("{:<44} {}", case["name"].as_str().unwrap_or_default(), case["kiln"]);
        }
    }
    Ok(())
}

struct Bench {
    kiln: PathBuf,
    /// Everything of this run; removed at its end.
    dir: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A benchmark that failed has said why; what it leaves is in a temporary directory.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn case(name: &str, runs: &[Duration], goal: Option<f64>) -> Value {
    let seconds = median(runs.iter().map(Duration::as_secs_f64).collect());
    let mut case = json!({ "name": name, "kiln": { "wall_s": seconds, "runs": runs.len() } });
    if let Some(goal) = goal {
        case["goal"] = json!(goal);
        case["met"] = json!(seconds <= goal);
    }
    case
}

impl Bench {
    fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("kiln-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let bench = Self { kiln: workspace().join("target/release/kiln"), dir };
        let from = workspace().join("examples/hello");
        visibly(Command::new("cp").arg("-r").arg(from).arg(bench.project()))?;
        let _ = std::fs::remove_file(bench.project().join("kiln.lock"));
        Ok(bench)
    }

    fn project(&self) -> PathBuf {
        self.dir.join("hello")
    }

    fn root(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn bake(&self) -> Result<Duration> {
        let begun = Instant::now();
        output(Command::new(&self.kiln).args(["bake", "--root"]).arg(self.root()).arg(self.project()))?;
        Ok(begun.elapsed())
    }

    /// Everything from nothing but the downloads: packages and indexes are there, nothing made of them is.
    fn cold_bake(&self) -> Result<Value> {
        self.bake()?;
        let mut runs = Vec::new();
        for _ in 0..3 {
            forget_made(&self.root(), &self.dir.join("aside"))?;
            runs.push(self.bake()?);
        }
        Ok(case("cold bake, nginx on bookworm, downloaded", &runs, None))
    }

    fn warm_bake(&self) -> Result<Value> {
        let runs = (0..21).map(|_| self.bake()).collect::<Result<Vec<_>>>()?;
        Ok(case("warm bake, nothing changed, whole process", &runs, None))
    }

    fn say(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(self.project().join("site/index.html"), format!("<h1>hello {text}</h1>\n"))?)
    }

    fn changed_bake(&self) -> Result<Value> {
        let mut runs = Vec::new();
        for n in 0..11 {
            self.say(&format!("bake {n}"))?;
            runs.push(self.bake()?);
        }
        Ok(case("bake, one page changed, whole process", &runs, None))
    }

    /// From the start of the program until it says that it serves.
    fn second_up(&self) -> Result<Value> {
        let mut runs = Vec::new();
        for run in 0..6 {
            let begun = Instant::now();
            let (mut child, address) = self.host("up", &[path(&self.project())?])?;
            get(&address)?;
            let took = begun.elapsed();
            interrupt(&child)?;
            ensure!(child.wait()?.success(), "kiln up did not end well");
            if run > 0 {
                runs.push(took);
            }
        }
        Ok(case("second up, start to first answered request", &runs, Some(1.0)))
    }

    /// From the command until all new requests go to the new release, four instances, one page changed.
    fn deploys(&self) -> Result<Value> {
        let (mut child, _) = self.host("serve", &[])?;
        let mut runs = Vec::new();
        for n in 0..8 {
            self.say(&format!("deploy {n}"))?;
            let begun = Instant::now();
            self.client(&["deploy", path(&self.project())?])?;
            if n > 0 {
                runs.push(begun.elapsed());
            }
        }
        self.client(&["down"])?;
        child.wait()?;
        Ok(case("deploy, one page changed, 4 instances", &runs, None))
    }

    /// From the death of the only instance until its successor answers.
    fn first_answer(&self) -> Result<Value> {
        let spec = self.project().join("kiln.toml");
        let text = std::fs::read_to_string(&spec)?.replace("instances = 4", "instances = 1");
        std::fs::write(&spec, text)?;
        let (mut child, address) = self.host("serve", &[])?;
        self.client(&["deploy", path(&self.project())?])?;
        let mut runs = Vec::new();
        for _ in 0..11 {
            let pid = self.main_process()?;
            let begun = Instant::now();
            visibly_not(Command::new("kill").args(["-9", &pid.to_string()]))?;
            while get(&address).is_err() {}
            runs.push(begun.elapsed());
            // A fleet that loses its members as fast as they are made is made to wait; that is not what is timed.
            while self.main_process().is_ok_and(|now| now == pid) || !self.is_ready()? {}
        }
        self.client(&["down"])?;
        child.wait()?;
        Ok(case("an instance dies: its successor answers", &runs, None))
    }

    fn is_ready(&self) -> Result<bool> {
        let instances: Value = serde_json::from_str(&self.client(&["instances", "--json"])?)?;
        Ok(instances[0]["state"] == "ready")
    }

    fn main_process(&self) -> Result<u64> {
        let instances: Value = serde_json::from_str(&self.client(&["instances", "--json"])?)?;
        instances[0]["pid"].as_u64().context("no instance")
    }

    fn client(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.root().join("run/control.sock");
        output(Command::new(&self.kiln).args(arguments).env("KILN_HOST", socket))
    }

    /// Starts a host and returns when it says where it listens.
    fn host(&self, command: &str, arguments: &[&str]) -> Result<(Child, String)> {
        let mut child = Command::new(&self.kiln)
            .args([command, "--listen", "127.0.0.1:0", "--root"])
            .arg(self.root())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("its stdout")?).lines();
        for line in lines.by_ref() {
            let line = line?;
            if let Some(address) = line.split_whitespace().find(|w| w.starts_with("http://")) {
                let address = address.trim_end_matches([',', '.']).to_owned();
                // Whatever it says from now on must not fill the pipe.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok((child, address));
            }
        }
        anyhow::bail!("kiln {command} ended: {}", child.wait()?)
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn visibly_not(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

fn interrupt(child: &Child) -> Result<()> {
    visibly_not(Command::new("kill").args(["-INT", &child.id().to_string()]))
}

/// One request, by hand: a benchmark of starting things needs no HTTP client.
fn get(address: &str) -> Result<()> {
    use std::io::{Read, Write};
    let host = address.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = std::net::TcpStream::connect(host)?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "it answered {}", answer.lines().next().unwrap_or_default());
    Ok(())
}
