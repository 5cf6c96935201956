//! One server of the fleet experiment: it answers with the version it is, and fails at a random point of its start as
//! often as it is told to.
//!
//! ```text
//! fleet-member                   VERSION and FAILS_OF_MILLION in the environment; answers on port 8080
//! fleet-member DIR               a server that is changed in place: reads DIR/{program,config,content}; answers on DIR/socket
//! ```

use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io, process, thread};

/// Where in its start it fails, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    Nowhere,
    /// Before it has done anything.
    AtOnce,
    /// When it has read what it needs.
    Ready,
    /// When its socket is there, and nobody has been answered.
    Listening,
    /// When it has answered once.
    Answered,
}

fn drawn() -> u64 {
    RandomState::new().hash_one(process::id())
}

/// Fails so many times of a million.
fn point(fails_of_million: u64) -> Point {
    if drawn() % 1_000_000 >= fails_of_million {
        return Point::Nowhere;
    }
    match drawn() % 4 {
        0 => Point::AtOnce,
        1 => Point::Ready,
        2 => Point::Listening,
        _ => Point::Answered,
    }
}

fn fail_if(is_here: bool) {
    if is_here {
        // As a program that has met a bug.
        process::abort();
    }
}

fn main() -> io::Result<()> {
    let of_million = std::env::var("FAILS_OF_MILLION").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let point = point(of_million);
    fail_if(point == Point::AtOnce);
    match std::env::args_os().nth(1) {
        None => {
            let version = std::env::var("VERSION").unwrap_or_default();
            fail_if(point == Point::Ready);
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080))?;
            fail_if(point == Point::Listening);
            serve(|| Ok(listener.accept()?.0), &version, point)
        }
        Some(dir) => {
            let dir = Path::new(&dir);
            let part = |name: &str| fs::read_to_string(dir.join(name));
            // What it is follows from all its parts: one that is of two versions is of none.
            let parts = [part("program")?, part("config")?, part("content")?];
            let version =
                if parts.iter().all(|p| *p == parts[0]) { parts[0].clone() } else { parts.join("+") };
            fail_if(point == Point::Ready);
            let _ = fs::remove_file(dir.join("socket"));
            let listener = UnixListener::bind(dir.join("socket"))?;
            fail_if(point == Point::Listening);
            serve(|| Ok(listener.accept()?.0), &version, point)
        }
    }
}

fn serve<S: Read + Write + Send + 'static>(
    accept: impl Fn() -> io::Result<S>,
    version: &str,
    point: Point,
) -> io::Result<()> {
    static ANSWERED: AtomicU64 = AtomicU64::new(0);
    let body = format!("{version}\n");
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    loop {
        let mut stream = accept()?;
        let answer = answer.clone();
        let talk = move || {
            let mut buffer = [0; 4096];
            let mut held = Vec::new();
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                held.extend_from_slice(&buffer[..n]);
                while let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") {
                    held.drain(..end + 4);
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    if ANSWERED.fetch_add(1, Ordering::SeqCst) == 0 {
                        fail_if(point == Point::Answered);
                    }
                }
            }
        };
        thread::Builder::new().stack_size(64 << 10).spawn(talk)?;
    }
}
