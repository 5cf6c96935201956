//! How long nobody is served when the edge of a real host is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::proxies::Running;
use crate::run::workspace;

const KILLS: usize = 9;

/// From the kill to the first answer of the next edge, in milliseconds: the middle of several.
pub(super) fn measure(dir: &Path) -> Result<f64> {
    let root = dir.join("host");
    let mut serve = Command::new(workspace().join("target/release/kiln"));
    serve.args(["serve", "--listen", "127.0.0.1:0", "--root"]).arg(&root);
    let mut child = Running(serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
    let stdout = BufReader::new(child.0.stdout.take().context("its stdout")?);
    let address = stdout.lines().map_while(Result::ok).find_map(|line| {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix("http://"))?;
        word.trim_end_matches([',', '.']).parse::<SocketAddr>().ok()
    });
    let result =
        address.context("kiln serve says where it listens").and_then(|address| kills(address, &root));
    let mut down = Command::new(workspace().join("target/release/kiln"));
    down.args(["down", "--root"]).arg(&root).stdout(Stdio::null()).status()?;
    result
}

fn kills(address: SocketAddr, root: &Path) -> Result<f64> {
    ask(address).context("the first edge")?;
    let mut all = Vec::new();
    for _ in 0..KILLS {
        let edge = edge_of(root)?;
        let begun = Instant::now();
        ensure!(Command::new("kill").args(["-9", &edge]).status()?.success(), "the edge could not be killed");
        while ask(address).is_err() {
            ensure!(begun.elapsed() < Duration::from_secs(20), "nobody serves any more");
        }
        all.push(begun.elapsed().as_secs_f64() * 1e3);
        while edge_of(root).is_ok_and(|now| now == edge) {
            std::thread::yield_now();
        }
    }
    all.sort_by(f64::total_cmp);
    Ok((all[KILLS / 2] * 100.0).round() / 100.0)
}

/// Any answer of an edge is one: nothing is deployed here.
fn ask(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 "), "no answer");
    Ok(())
}

fn edge_of(root: &Path) -> Result<String> {
    let wanted = format!("edge\0--root\0{}\0", root.display());
    let found = std::fs::read_dir("/proc")?.flatten().find(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&wanted))
    });
    Ok(found.context("no edge runs")?.file_name().to_string_lossy().into_owned())
}
