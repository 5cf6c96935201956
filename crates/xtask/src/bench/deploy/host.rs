//! A host of its own for a row of the table, with an app whose image is one static program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::PATIENCE;
use super::visitors::{Seen, Visitors};
use crate::run::{output, workspace};

const SPEC: &str = r#"app = "hello"
[image.web]
from  = "scratch"
files = [{ src = "busybox", dst = "/bin/busybox", mode = "0755" }, { src = "site/", dst = "/srv" }]
run   = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/srv"]
[service.web]
image     = "web"
port      = 8080
instances = INSTANCES
memory    = "16MiB"
health    = { http = "/", interval = "1s" }
[route.web]
service = "web"
[deploy]
drain     = "5s"
keep_warm = "KEEP_WARM"
"#;

/// The host, its state directory and its app; all of it is gone when it is dropped.
pub(super) struct BenchHost {
    dir: PathBuf,
    child: Option<Child>,
    address: Option<SocketAddr>,
}

/// A rollback in seconds from its command.
pub(super) struct Rollback {
    /// From the arrival of the command until the edge has acknowledged the switch.
    pub(super) acknowledged: f64,
    /// What clients saw, from the moment the command was sent.
    pub(super) seen: Seen,
}

impl BenchHost {
    /// One that does not serve yet.
    pub(super) fn new() -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("kiln-bench-deploy-{}-{number}", std::process::id()));
        std::fs::create_dir_all(dir.join("app/site"))?;
        std::fs::copy("/bin/busybox", dir.join("app/busybox")).context("package busybox-static")?;
        Ok(Self { dir, child: None, address: None })
    }

    pub(super) fn start() -> Result<Self> {
        let mut host = Self::new()?;
        host.serve()?;
        Ok(host)
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn app(&self) -> PathBuf {
        self.dir.join("app")
    }

    /// Starts the daemon; returns when it says where it listens.
    pub(super) fn serve(&mut self) -> Result<()> {
        let mut command = Command::new(kiln());
        command.args(["serve", "--listen", "127.0.0.1:0", "--root"]).arg(self.root());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (out, err) =
            (child.stdout.take().context("its stdout")?, child.stderr.take().context("its stderr")?);
        let (tell, told) = std::sync::mpsc::channel();
        for stream in [Box::new(out) as Box<dyn std::io::Read + Send>, Box::new(err)] {
            let tell = tell.clone();
            // Whatever it says later must not fill the pipe.
            std::thread::spawn(move || {
                BufReader::new(stream).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
            });
        }
        drop(tell);
        self.child = Some(child);
        let mut said = told.iter();
        let listens = said.find_map(|line| Some(line.split_once("http://")?.1.to_owned()));
        let address = listens.context("kiln serve ended")?;
        let address = address.split([' ', '/', ',']).next().unwrap_or_default();
        self.address = Some(address.parse().with_context(|| format!("`{address}` is no address"))?);
        Ok(())
    }

    pub(super) fn write(&self, instances: u32, keep_warm: &str) -> Result<()> {
        let spec = SPEC.replace("INSTANCES", &instances.to_string()).replace("KEEP_WARM", keep_warm);
        Ok(std::fs::write(self.app().join("kiln.toml"), spec)?)
    }

    pub(super) fn say(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(self.app().join("site/index.html"), format!("<h1>{text}</h1>\n"))?)
    }

    pub(super) fn deploy(&self) -> Result<()> {
        let app = self.app();
        self.kiln(&["deploy", path(&app)?]).map(drop)
    }

    /// Goes back while clients ask.
    pub(super) fn rollback(&self) -> Result<Rollback> {
        let visitors = Visitors::come(self.address.context("it serves")?)?;
        // Connections are warm, and it is known who serves before.
        visitors.wait_a_while();
        let mut control = UnixStream::connect(self.root().join("run/control.sock"))?;
        let body = r#"{"command":"rollback","app":null,"release":null}"#;
        let head = format!("POST /v1/commands HTTP/1.0\r\nHost: kiln\r\nContent-Length: {}\r\n", body.len());
        let request = format!("{head}Content-Type: application/json\r\n\r\n{body}");
        let command = Instant::now();
        control.write_all(request.as_bytes())?;
        let mut said = String::new();
        control.read_to_string(&mut said)?;
        visitors.wait_a_while();
        let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let acknowledged = events.filter_map(|event| event["switched_micros"].as_f64()).next_back();
        let acknowledged = acknowledged.with_context(|| format!("it did not go back: {said}"))? / 1e6;
        Ok(Rollback { acknowledged, seen: visitors.leave(command)? })
    }

    fn log(&self) -> Result<Vec<Value>> {
        let log: Value = serde_json::from_str(&self.kiln(&["log", "-n", "4", "--json"])?)?;
        log.as_array().cloned().context("a list")
    }

    /// When it ended is in the log. Whoever asks for it again and again takes the processors from what he waits for.
    pub(super) fn until_nothing_is_under_way(&self) -> Result<()> {
        const PAUSE: Duration = Duration::from_millis(100);
        let begun = Instant::now();
        let (_tell, told) = std::sync::mpsc::channel::<()>();
        while self.log()?.iter().any(|e| e["outcome"] == "under way") {
            ensure!(begun.elapsed() < PATIENCE, "an operation does not end");
            let _ = told.recv_timeout(PAUSE);
        }
        Ok(())
    }

    /// Seconds the last deploy took, from its beginning to its end in the log.
    pub(super) fn last_deploy(&self) -> Result<f64> {
        let log = self.log()?;
        let deploy = log.iter().find(|e| e["what"] == "deploy").context("a deploy")?;
        let at = |key: &str| milliseconds(deploy[key].as_str().unwrap_or_default()).context("a moment");
        Ok((at("ended")? - at("at")?) / 1e3)
    }

    /// Ends the daemon and everything it runs; it can be started again.
    pub(super) fn down(&mut self) -> Result<()> {
        self.kiln(&["down"])?;
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }

    fn kiln(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.root().join("run/control.sock");
        output(Command::new(kiln()).args(arguments).env("KILN_HOST", socket))
    }
}

impl Drop for BenchHost {
    fn drop(&mut self) {
        if self.child.is_some() {
            // The benchmark has failed; that has been told.
            let _ = self.down();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn kiln() -> PathBuf {
    workspace().join("target/release/kiln")
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// Of a moment like `2026-09-21T14:13:20.042Z`, within its day.
fn milliseconds(text: &str) -> Option<f64> {
    let time = text.split_once('T')?.1.trim_end_matches('Z');
    let mut parts = time.split(':').map(|p| p.parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some(((hours * 60.0 + minutes) * 60.0 + seconds) * 1e3)
}
