//! Clients that ask the whole time a host is benchmarked, each over a connection it keeps, and note which release answered
//! when.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

/// How many there are: each waits for its answers, and none of them takes the processors from what is measured.
const VISITORS: usize = 4;
/// From one answer to the next request; four of them ask about once in half a millisecond.
const PAUSE: Duration = Duration::from_millis(2);

/// One request that was answered.
pub(super) struct Visit {
    /// When it was begun.
    begun: Instant,
    /// What the page said.
    page: String,
}

/// The clients, until they are called off.
pub(super) struct Visitors {
    stop: Vec<Sender<()>>,
    threads: Vec<JoinHandle<Result<Vec<Visit>>>>,
}

/// What clients saw of a switch.
pub(super) struct Seen {
    /// From the command until the last request was begun that the old release answered.
    pub(super) last_on_old: f64,
    /// From the command until the first request was begun that the new release answered: the switch was before it was
    /// answered.
    pub(super) first_on_new: f64,
    /// How many requests there were.
    pub(super) requests: usize,
}

impl Visitors {
    pub(super) fn come(address: SocketAddr) -> Result<Self> {
        let (mut stop, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..VISITORS {
            let (tell, told) = channel();
            let connection = BufReader::new(TcpStream::connect(address)?);
            connection.get_ref().set_nodelay(true)?;
            stop.push(tell);
            threads.push(std::thread::spawn(move || visit(connection, &told)));
        }
        Ok(Self { stop, threads })
    }

    /// Lets them ask for a while: a hundred times or so.
    pub(super) fn wait_a_while(&self) {
        let (_tell, told) = channel::<()>();
        let _ = told.recv_timeout(25 * PAUSE);
    }

    /// What they saw since `command`, when they all have seen the new release.
    ///
    /// # Errors
    /// If one of them got no proper answer, or none saw both releases.
    pub(super) fn leave(self, command: Instant) -> Result<Seen> {
        drop(self.stop);
        let mut visits = Vec::new();
        for thread in self.threads {
            visits.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        seen(&visits, command)
    }
}

fn seen(visits: &[Visit], command: Instant) -> Result<Seen> {
    let before = visits.iter().filter(|v| v.begun < command);
    let old = &before.max_by_key(|v| v.begun).context("nobody asked before the command")?.page;
    let since = |visit: &Visit| visit.begun.saturating_duration_since(command).as_secs_f64();
    let (on_old, on_new): (Vec<&Visit>, Vec<&Visit>) = visits.iter().partition(|v| v.page == *old);
    let last_on_old = on_old.into_iter().map(since).fold(0.0, f64::max);
    let first_on_new = on_new.into_iter().map(since).min_by(f64::total_cmp);
    let first_on_new = first_on_new.context("nobody was served by the new release")?;
    Ok(Seen { last_on_old, first_on_new, requests: visits.len() })
}

fn visit(mut connection: BufReader<TcpStream>, stop: &Receiver<()>) -> Result<Vec<Visit>> {
    let mut visits = Vec::new();
    while stop.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        let begun = Instant::now();
        connection.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: hello\r\n\r\n")?;
        visits.push(Visit { begun, page: page(&mut connection)? });
    }
    Ok(visits)
}

/// The body of one answer.
fn page(connection: &mut BufReader<TcpStream>) -> Result<String> {
    let (mut length, mut line) = (None, String::new());
    while line != "\r\n" {
        line.clear();
        ensure!(connection.read_line(&mut line)? > 0, "the connection was closed");
        ensure!(!line.starts_with("HTTP/") || line.contains(" 200 "), "it was answered {line}");
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(value.trim().parse()?);
        }
    }
    let mut body = vec![0; length.context("an answer of unknown length")?];
    connection.read_exact(&mut body)?;
    Ok(String::from_utf8(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_release_is_the_one_that_answered_before_the_command() {
        let command = Instant::now() + Duration::from_secs(1);
        let visit = |micros: i64, page: &str| {
            let away = Duration::from_micros(micros.unsigned_abs());
            let begun = if micros < 0 { command - away } else { command + away };
            Visit { begun, page: page.into() }
        };
        let visits =
            [visit(-5, "a"), visit(900, "a"), visit(1_200, "b"), visit(1_100, "a"), visit(2_000, "b")];
        let seen = seen(&visits, command).unwrap();
        assert_eq!((seen.last_on_old, seen.first_on_new, seen.requests), (0.001_1, 0.001_2, 5));
        assert!(super::seen(&visits[..2], command).is_err(), "nobody saw the new one");
        assert!(super::seen(&visits[1..], command).is_err(), "nobody knows which was the old one");
    }
}
