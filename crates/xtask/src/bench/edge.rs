//! The edge beside haproxy, nginx and caddy from Debian: CPU per request, requests a second, latency, memory of idle
//! connections. Load generator, proxy and backend share the machine, in turn and under the same load.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::run::{cargo, output, visibly, workspace};

/// How long each load goes on.
const SECONDS: u32 = 4;
const IDLE: usize = 1000;

/// Measures, and prints one document.
pub(crate) fn run(as_json: bool) -> Result<()> {
    let build = ["build", "--release", "--package", "kiln-edge", "--example", "proxy"];
    visibly(cargo().args(build))?;
    let dir = tempfile_dir()?;
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

fn tempfile_dir() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("kiln-bench-edge-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Asked, not killed: one with workers of its own has to end them.
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// A proxy under load.
struct Proxy {
    name: &'static str,
    running: Running,
    http: SocketAddr,
    https: SocketAddr,
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn measure(dir: &Path) -> Result<Vec<Value>> {
    let program = workspace().join("target/release/examples/proxy");
    visibly(Command::new(&program).arg("certificate").arg(dir))?;
    let backend = free()?;
    let serving = Command::new(&program).arg("backend").arg(backend.to_string()).spawn()?;
    let _backend = Running(serving);
    reachable(backend)?;
    let mut proxies = vec![kiln(&program, backend, dir)?];
    for start in [haproxy, nginx, caddy] {
        proxies.extend(start(backend, dir)?);
    }
    let mut cases = Vec::new();
    type Load = fn(&Proxy) -> Result<Value>;
    let loads: [(&str, &str, f64, Load); 5] = [
        ("http1-64", "cpu_us", 0.85, |p| wrk(p, 64)),
        ("http1-256", "cpu_us", 0.75, |p| wrk(p, 256)),
        ("https-h1-64", "cpu_us", 1.0, |p| h2load(p, &["--h1", "-c64", "-m1"])),
        ("https-h2-64x4", "cpu_us", 1.0, |p| h2load(p, &["-c64", "-m4"])),
        ("idle-connection", "kib", 4.0, idle),
    ];
    for (name, figure, goal, load) in loads {
        let figures: Result<Vec<(&str, Value)>> = proxies.iter().map(|p| Ok((p.name, load(p)?))).collect();
        cases.push(case(name, figure, goal, figures?));
    }
    Ok(cases)
}

fn case(name: &str, figure: &str, goal: f64, figures: Vec<(&str, Value)>) -> Value {
    let mut peers: HashMap<&str, Value> = figures.into_iter().collect();
    let ours = peers.remove("kiln").unwrap_or_default();
    let value = ours[figure].as_f64().unwrap_or_default();
    let ratio: HashMap<&str, f64> =
        peers.iter().map(|(name, p)| (*name, value / p[figure].as_f64().unwrap_or(f64::NAN))).collect();
    // Against haproxy, but for memory, whose goal is a number.
    let judged = if figure == "kib" { value } else { ratio.get("haproxy").copied().unwrap_or(f64::NAN) };
    json!({ "name": name, "kiln": ours, "peers": peers, "ratio": ratio, "goal": goal, "met": judged <= goal })
}

fn reachable(address: SocketAddr) -> Result<()> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        ensure!(std::time::Instant::now() < deadline, "nobody listens on {address}");
        std::thread::yield_now();
    }
    Ok(())
}

fn kiln(program: &Path, backend: SocketAddr, dir: &Path) -> Result<Proxy> {
    let mut command = Command::new(program);
    let mut child = command.arg("edge").arg(backend.to_string()).arg(dir).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("its stdout")?;
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let (http, https) = line.trim().split_once(' ').context("two addresses")?;
    Ok(Proxy { name: "kiln", running, http: http.parse()?, https: https.parse()? })
}

/// Starts a peer with a configuration; none if it is not installed.
fn peer(
    name: &'static str,
    arguments: &[&str],
    dir: &Path,
    configure: impl Fn(SocketAddr, SocketAddr) -> String,
) -> Result<Option<Proxy>> {
    let (http, https) = (free()?, free()?);
    let path = dir.join(format!("{name}.conf"));
    std::fs::write(&path, configure(http, https))?;
    let mut command = Command::new(name);
    command.args(arguments).arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = command.env("HOME", dir).spawn() else {
        eprintln!("note: {name} is not installed, it is left out (apt-get install {name})");
        return Ok(None);
    };
    let running = Running(child);
    reachable(http).with_context(|| format!("{name} does not serve"))?;
    Ok(Some(Proxy { name, running, http, https }))
}

fn haproxy(backend: SocketAddr, dir: &Path) -> Result<Option<Proxy>> {
    peer("haproxy", &["-db", "-f"], dir, |http, https| {
        format!(
            "global\n  nbthread 2\n  maxconn 5000\ndefaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  \
             timeout connect 5s\n  http-reuse always\nfrontend f\n  bind {http}\n  bind {https} ssl crt {}/both.pem alpn \
             h2,http/1.1\n  default_backend b\nbackend b\n  server s {backend}\n",
            dir.display()
        )
    })
}

fn nginx(backend: SocketAddr, dir: &Path) -> Result<Option<Proxy>> {
    let dir_name = dir.display();
    peer("nginx", &["-g", "daemon off;", "-c"], dir, |http, https| {
        format!(
            "worker_processes 2; pid {dir_name}/nginx.pid; error_log /dev/null;\nevents {{ worker_connections 8192; }}\n\
             http {{ access_log off; keepalive_requests 100000000;\nupstream b {{ server {backend}; keepalive 256; }}\n\
             server {{ listen {http} reuseport; listen {https} ssl http2 reuseport;\nssl_certificate {dir_name}/cert.pem; \
             ssl_certificate_key {dir_name}/key.pem;\nlocation / {{ proxy_pass http://b; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; }} }} }}\n"
        )
    })
}

fn caddy(backend: SocketAddr, dir: &Path) -> Result<Option<Proxy>> {
    peer("caddy", &["run", "--adapter", "caddyfile", "--config"], dir, |http, https| {
        format!(
            "{{\n  admin off\n  auto_https off\n}}\nhttp://localhost:{} {{\n  reverse_proxy {backend}\n}}\n\
             https://localhost:{} {{\n  tls {dir}/cert.pem {dir}/key.pem\n  reverse_proxy {backend}\n}}\n",
            http.port(),
            https.port(),
            dir = dir.display()
        )
    })
}

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

fn wrk(proxy: &Proxy, connections: u32) -> Result<Value> {
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

fn h2load(proxy: &Proxy, how: &[&str]) -> Result<Value> {
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
fn idle(proxy: &Proxy) -> Result<Value> {
    let pid = proxy.running.0.id();
    let before = resident(pid)?;
    let mut kept = Vec::new();
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(proxy.http)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        ensure!(stream.read(&mut [0; 1024])? > 0, "{} closed a connection", proxy.name);
        kept.push(stream);
    }
    let after = resident(pid)?;
    Ok(json!({ "kib": round((after - before) / IDLE as f64) }))
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
