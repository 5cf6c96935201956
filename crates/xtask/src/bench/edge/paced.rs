//! A client with a pace of its own: so many requests a second over kept connections, each timed by itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Connections; each has a thread that sleeps most of the time.
const CONNECTIONS: u32 = 16;
/// Answers before the clock runs, on each.
const WARM_UP: u32 = 50;

/// When each request was sent, since the beginning, and how long its answer took.
pub(super) type Times = Vec<(Duration, Duration)>;

/// Asks `rate` times a second for `span`.
pub(super) fn ask(address: SocketAddr, rate: u32, span: Duration) -> Result<Times> {
    let all: Mutex<Times> = Mutex::default();
    let begin = Instant::now() + Duration::from_millis(200);
    let every = Duration::from_secs(1) * CONNECTIONS / rate;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let (all, offset) = (&all, every * number / CONNECTIONS);
                scope.spawn(move || -> Result<()> {
                    let times = one(address, begin, offset, every, span)?;
                    all.lock().unwrap_or_else(|e| e.into_inner()).extend(times);
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    let times = all.into_inner().unwrap_or_else(|e| e.into_inner());
    let expected = f64::from(rate) * span.as_secs_f64();
    ensure!(times.len() as f64 > expected * 0.9, "only {} of {expected} requests were made", times.len());
    Ok(times)
}

fn one(
    address: SocketAddr,
    begin: Instant,
    offset: Duration,
    every: Duration,
    span: Duration,
) -> Result<Times> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    for _ in 0..WARM_UP {
        exchange(&mut stream)?;
    }
    let (mut times, mut due) = (Vec::new(), offset);
    while due < span {
        while let Some(left) =
            (begin + due).checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            std::thread::park_timeout(left);
        }
        let sent = Instant::now();
        exchange(&mut stream)?;
        times.push((sent - begin, sent.elapsed()));
        // One that took longer than its turn is not followed by several at once.
        due = (due + every).max(begin.elapsed());
    }
    Ok(times)
}

fn exchange(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (mut answer, mut have) = ([0; 4096], 0);
    loop {
        let length = stream.read(&mut answer[have..])?;
        ensure!(length > 0, "a connection was closed");
        have += length;
        if let Some(end) = answer[..have].windows(4).position(|w| w == b"\r\n\r\n") {
            let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
            ensure!(head.starts_with("http/1.1 200"), "{head}");
            let length = head.lines().find_map(|l| l.strip_prefix("content-length:")).context("a length")?;
            if have == end + 4 + length.trim().parse::<usize>()? {
                return Ok(());
            }
        }
    }
}

/// What a share of them did not exceed, in microseconds.
pub(super) fn quantile(times: &Times, share: f64) -> f64 {
    let mut all: Vec<f64> = times.iter().map(|(_, took)| took.as_secs_f64() * 1e6).collect();
    all.sort_by(f64::total_cmp);
    let at = (all.len() as f64 * share) as usize;
    all.get(at.min(all.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
