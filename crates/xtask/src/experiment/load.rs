//! People who ask all the time: every one of their requests counts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often each of them asks: together 100 times a second.
const PACE: Duration = Duration::from_millis(40);
const PEOPLE: usize = 4;

/// Load that goes on until it is stopped.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    /// Half of them keep their connection, the others make one for each request.
    pub(super) fn start(address: &str) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let ask = |n: usize| {
            let (stop, counts, address) = (stop.clone(), counts.clone(), address.to_owned());
            std::thread::spawn(move || ask(&address, n.is_multiple_of(2), &stop, &counts))
        };
        let threads = (0..PEOPLE).map(ask).collect();
        Self { stop, counts, threads }
    }

    /// How many requests there were, and how many of them failed.
    pub(super) fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            // One that panicked has asked nothing any more, which is a failure to be seen.
            if thread.join().is_err() {
                self.counts.failed.fetch_add(1, Ordering::SeqCst);
            }
        }
        (self.counts.requests.load(Ordering::SeqCst), self.counts.failed.load(Ordering::SeqCst))
    }
}

#[expect(clippy::disallowed_methods, reason = "a load has a pace")]
fn ask(address: &str, keeps: bool, stop: &AtomicBool, counts: &Counts) {
    let mut kept: Option<BufReader<TcpStream>> = None;
    while !stop.load(Ordering::SeqCst) {
        let due = Instant::now() + PACE;
        counts.requests.fetch_add(1, Ordering::SeqCst);
        if once(address, keeps, &mut kept).is_none() {
            counts.failed.fetch_add(1, Ordering::SeqCst);
            kept = None;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// One request; nothing if it was not answered with 200 and a whole body. A connection that was closed between two
/// requests, as HTTP allows, is made anew.
fn once(address: &str, keeps: bool, kept: &mut Option<BufReader<TcpStream>>) -> Option<()> {
    let mut reader = match kept.take() {
        Some(reader) if !is_closed(&reader) => reader,
        _ => {
            let stream = TcpStream::connect(address).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
            BufReader::new(stream)
        }
    };
    let connection = if keeps { "keep-alive" } else { "close" };
    write!(reader.get_mut(), "GET / HTTP/1.1\r\nHost: fleet\r\nConnection: {connection}\r\n\r\n").ok()?;
    let (mut status, mut length, mut closes) = (String::new(), None, !keeps);
    reader.read_line(&mut status).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        closes |= line == "connection: close";
        length = line.strip_prefix("content-length:").and_then(|n| n.trim().parse().ok()).or(length);
    }
    let mut body = vec![0; length?];
    reader.read_exact(&mut body).ok()?;
    if !closes {
        *kept = Some(reader);
    }
    (status.starts_with("HTTP/1.1 200") && !body.is_empty()).then_some(())
}

/// Whether the other side has closed it while nothing was asked.
fn is_closed(reader: &BufReader<TcpStream>) -> bool {
    let stream = reader.get_ref();
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let blocks = stream.set_nonblocking(false);
    blocks.is_err() || !looked.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
}
