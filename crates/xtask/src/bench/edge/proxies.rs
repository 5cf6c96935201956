//! The proxies under load, and the server behind them.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A process that ends with this value.
pub(super) struct Running(pub(super) Child);

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
pub(super) struct Proxy {
    pub(super) name: &'static str,
    pub(super) running: Running,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    /// What is behind it.
    pub(super) backend: SocketAddr,
}

/// The server behind them, and all of them that are installed.
pub(super) fn start(program: &Path, dir: &Path) -> Result<(Running, Vec<Proxy>)> {
    let backend = free()?;
    let serving = Running(Command::new(program).arg("backend").arg(backend.to_string()).spawn()?);
    reachable(backend)?;
    let mut proxies = vec![kiln(program, backend, dir)?];
    for start in [haproxy, nginx, caddy] {
        proxies.extend(start(backend, dir)?);
    }
    Ok((serving, proxies))
}

pub(super) fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
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
    Ok(Proxy { name: "kiln", running, http: http.parse()?, https: https.parse()?, backend })
}

/// Starts a peer with a configuration; none if it is not installed.
fn peer(
    name: &'static str,
    backend: SocketAddr,
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
    Ok(Some(Proxy { name, running, http, https, backend }))
}

fn haproxy(backend: SocketAddr, dir: &Path) -> Result<Option<Proxy>> {
    peer("haproxy", backend, &["-db", "-f"], dir, |http, https| {
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
    peer("nginx", backend, &["-g", "daemon off;", "-c"], dir, |http, https| {
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
    peer("caddy", backend, &["run", "--adapter", "caddyfile", "--config"], dir, |http, https| {
        format!(
            "{{\n  admin off\n  auto_https off\n}}\nhttp://localhost:{} {{\n  reverse_proxy {backend}\n}}\n\
             https://localhost:{} {{\n  tls {dir}/cert.pem {dir}/key.pem\n  reverse_proxy {backend}\n}}\n",
            http.port(),
            https.port(),
            dir = dir.display()
        )
    })
}
