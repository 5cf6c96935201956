//! Kiln's side: a real host, whose fleet is replaced again and again under load.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::load::Load;
use super::{Cell, LEAST, MOST};
use crate::run::output;

/// How many deploys without failures tell what one takes.
const WITHOUT: usize = 3;

/// A host with an app called `fleet`; all of it goes when it is ended.
pub(super) struct Host {
    kiln: PathBuf,
    dir: PathBuf,
    address: String,
    child: Child,
}

impl Host {
    pub(super) fn start(kiln: &Path, member: &Path) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("kiln-fleet-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("app"))?;
        fs::copy(member, dir.join("app/member"))?;
        let mut child = Command::new(kiln)
            .args(["serve", "--listen", "127.0.0.1:0", "--root"])
            .arg(dir.join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("its stdout")?).lines();
        let address = loop {
            let Some(line) = lines.next() else { bail!("kiln serve ended: {}", child.wait()?) };
            let line = line?;
            if let Some(url) = line.split_whitespace().find(|w| w.starts_with("http://")) {
                break url.trim_start_matches("http://").trim_end_matches(['/', '.', ',']).to_owned();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { kiln: kiln.to_owned(), dir, address, child })
    }

    /// Replaces the fleet without failures a few times, then with them until there were enough or it is time.
    pub(super) fn measure(&self, cell: &mut Cell, until: Instant) -> Result<()> {
        let mut version = 0;
        let mut next = || {
            version += 1;
            format!("{}-{}-{version}", cell.servers, cell.of_million)
        };
        ensure!(self.deploy(&next(), cell.servers, 0)?.is_ok(), "a fleet without failures did not come up");
        let load = Load::start(&self.address);
        for _ in 0..WITHOUT {
            self.rest(cell.servers)?;
            let deploy = self.deploy(&next(), cell.servers, 0)?.map_err(anyhow::Error::msg)?;
            cell.seconds_without.push(deploy.seconds);
        }
        while cell.deploys < MOST && (cell.deploys < LEAST || Instant::now() < until) {
            self.rest(cell.servers)?;
            let version = next();
            cell.deploys += 1;
            match self.deploy(&version, cell.servers, cell.of_million)? {
                Ok(deploy) => {
                    let running = running(&version)?;
                    let whole = running == cell.servers;
                    if !whole {
                        cell.causes.push(format!("{running} of {} run after the deploy", cell.servers));
                    }
                    cell.deployed_whole += usize::from(whole);
                    cell.made_again += deploy.lost;
                    cell.most_made_again = cell.most_made_again.max(deploy.lost);
                    cell.seconds.push(deploy.seconds);
                }
                Err(cause) => cell.causes.push(cause),
            }
        }
        (cell.requests, cell.failed_requests) = load.stop();
        Ok(())
    }

    /// Nothing of the fleet before is left.
    fn rest(&self, servers: usize) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let instances: Value = serde_json::from_str(&self.client(&["instances", "--json"])?)?;
            if instances.as_array().is_some_and(|all| all.len() == servers) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the fleet before is still there");
        }
    }

    /// The outcome, or why it did not come about.
    fn deploy(&self, version: &str, servers: usize, of_million: u64) -> Result<Result<Deploy, String>> {
        fs::write(self.dir.join("app/kiln.toml"), spec(version, servers, of_million))?;
        let mut command = Command::new(&self.kiln);
        command.args(["deploy", "--json"]).arg(self.dir.join("app")).env("KILN_HOST", self.socket());
        let begun = Instant::now();
        let done = command.stdin(Stdio::null()).output()?;
        let seconds = begun.elapsed().as_secs_f64();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let lost = events.iter().filter(|e| e["event"] == "instance_lost").count();
        if done.status.success() {
            return Ok(Ok(Deploy { seconds, lost }));
        }
        let failed = events.iter().rfind(|e| e["event"] == "failed");
        let cause = failed.and_then(|e| e["cause"].as_str()).map(str::to_owned);
        Ok(Err(cause.unwrap_or_else(|| String::from_utf8_lossy(&done.stderr).into_owned())))
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("state/run/control.sock")
    }

    fn client(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new(&self.kiln).args(arguments).env("KILN_HOST", self.socket()))
    }

    pub(super) fn end(mut self) -> Result<()> {
        self.client(&["down"])?;
        ensure!(self.child.wait()?.success(), "kiln serve did not end well");
        Ok(fs::remove_dir_all(&self.dir)?)
    }
}

impl Drop for Host {
    /// If something went wrong: nothing is left running.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.client(&["down"]);
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A deploy that came out.
struct Deploy {
    seconds: f64,
    lost: usize,
}

fn spec(version: &str, servers: usize, of_million: u64) -> String {
    format!(
        "app = \"fleet\"\n\n[image.member]\nfrom = \"scratch\"\nfiles = [{{ src = \"member\", dst = \"/member\", mode = \
         \"0755\" }}]\nrun = [\"/member\"]\n\n[service.member]\nimage = \"member\"\nport = 8080\ninstances = \
         {servers}\nmemory = \"16MiB\"\ncpu = 0.5\nhealth = {{ http = \"/\", interval = \"100ms\", healthy_after = 2, \
         start_timeout = \"60s\" }}\nenv = {{ VERSION = \"{version}\", FAILS_OF_MILLION = \"{of_million}\" \
         }}\n\n[route.member]\nservice = \"member\"\n\n[deploy]\ndrain = \"10s\"\nkeep_warm = \"0s\"\n"
    )
}

/// How many processes really run as this version, whatever Kiln says.
fn running(version: &str) -> Result<usize> {
    let wanted = format!("VERSION={version}");
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path().join("environ");
        // One that ends while it is looked at does not run.
        let Ok(environ) = fs::read(path) else { continue };
        count += usize::from(environ.split(|b| *b == 0).any(|variable| variable == wanted.as_bytes()));
    }
    Ok(count)
}
