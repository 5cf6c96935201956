//! The comparison: servers that are changed where they stand, by a plain procedure.
//!
//! Each server is a process of its own with a directory of its own. An upgrade stops it, replaces its program, its
//! configuration and its content, starts it, and asks it which version it is. With the given chance the procedure breaks
//! off at one of these points, or the new process dies in its start, as instances of the other side do.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// The servers; ended and removed when dropped.
pub(super) struct Servers {
    dir: PathBuf,
    member: PathBuf,
    servers: Vec<Option<Child>>,
    version: u64,
}

/// What became of an upgrade.
pub(super) struct Outcome {
    /// Servers wholly of the version before.
    pub(super) old: usize,
    /// Those of no version, or not running.
    pub(super) left_between: usize,
}

/// Points at which the procedure may break off: before each of its steps, and in the start of the new process.
const POINTS: usize = 5;
const PARTS: [&str; 3] = ["program", "config", "content"];

impl Servers {
    /// So many, all of version 0.
    pub(super) fn start(member: &Path, count: usize) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("kiln-in-place-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let servers = (0..count).map(|_| None).collect();
        let mut fleet = Self { dir, member: member.to_owned(), servers, version: 0 };
        fleet.make_whole()?;
        Ok(fleet)
    }

    fn place(&self, n: usize) -> PathBuf {
        self.dir.join(n.to_string())
    }

    /// Puts everything right again, as somebody would by hand: not part of what is measured.
    fn make_whole(&mut self) -> Result<()> {
        for n in 0..self.servers.len() {
            let is_whole = self.ask(n).is_some_and(|told| told == self.version.to_string());
            if !is_whole {
                self.stop(n)?;
                fs::create_dir_all(self.place(n))?;
                for part in PARTS {
                    fs::write(self.place(n).join(part), self.version.to_string())?;
                }
                self.launch(n, 0)?;
            }
        }
        for n in 0..self.servers.len() {
            let deadline = Instant::now() + Duration::from_secs(20);
            while self.ask(n).is_none() {
                ensure!(Instant::now() < deadline, "server {n} does not answer");
            }
        }
        Ok(())
    }

    /// Upgrades all of them, one after the other, and looks what they are then.
    pub(super) fn upgrade(&mut self, of_million: u64) -> Result<Outcome> {
        self.make_whole()?;
        let old = self.version.to_string();
        self.version += 1;
        let new = self.version.to_string();
        for n in 0..self.servers.len() {
            self.upgrade_one(n, of_million)?;
        }
        let mut outcome = Outcome { old: 0, left_between: 0 };
        for n in 0..self.servers.len() {
            match self.settle(n) {
                Some(told) if told == new => {}
                Some(told) if told == old => outcome.old += 1,
                _ => outcome.left_between += 1,
            }
        }
        Ok(outcome)
    }

    fn upgrade_one(&mut self, n: usize, of_million: u64) -> Result<()> {
        let breaks_off = (random()? % 1_000_000 < of_million).then_some(random()? as usize % POINTS);
        let version = self.version.to_string();
        if breaks_off == Some(0) {
            return Ok(());
        }
        self.stop(n)?;
        for (step, part) in PARTS.iter().enumerate() {
            if breaks_off == Some(step + 1) {
                return Ok(());
            }
            fs::write(self.place(n).join(part), &version)?;
        }
        self.launch(n, if breaks_off == Some(POINTS - 1) { 1_000_000 } else { 0 })
    }

    /// What a server says when it has had the time to come up, or to die.
    fn settle(&mut self, n: usize) -> Option<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let runs = self.servers[n].as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
            if !runs {
                return None;
            }
            // The second answer counts: there are those that die after their first.
            if self.ask(n).is_some()
                && let Some(told) = self.ask(n)
            {
                return Some(told);
            }
            if Instant::now() > deadline {
                return None;
            }
        }
    }

    fn ask(&self, n: usize) -> Option<String> {
        let mut stream = UnixStream::connect(self.place(n).join("socket")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut buffer = [0; 512];
        let n = stream.read(&mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        text.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned())
    }

    fn stop(&mut self, n: usize) -> Result<()> {
        if let Some(mut child) = self.servers[n].take() {
            // One that has died already is only waited for.
            let _ = child.kill();
            child.wait()?;
        }
        Ok(())
    }

    fn launch(&mut self, n: usize, of_million: u64) -> Result<()> {
        let child = Command::new(&self.member)
            .arg(self.place(n))
            .env("FAILS_OF_MILLION", of_million.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.servers[n] = Some(child);
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for n in 0..self.servers.len() {
            // What cannot be ended ends with the machine; the measurement is over.
            let _ = self.stop(n);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
