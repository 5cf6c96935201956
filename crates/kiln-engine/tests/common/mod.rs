//! A keeper of its own for each test, and what to ask about it. Each test program uses some of this.
#![allow(dead_code, unreachable_pub)]

pub mod private_group;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_engine::Engine;
use kiln_engine::embedded::Embedded;
use kiln_model::{
    Exit, InstanceId, InstanceOrder, InstanceState, OutputLine, OutputStream, Sha256, WholeLine, WholeLines,
};
use kiln_testkit::fixture_image::FixtureImage;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process, pidfd_open, setrlimit};
use tempfile::TempDir;

/// The longest that anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running keeper in a directory of its own, and an image. Both go with this value.
pub struct Bench {
    pub engine: Embedded,
    pub image: FixtureImage,
    pub dir: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self::for_edge(None)
    }

    pub fn for_edge(uid: Option<u32>) -> Self {
        Self::with(uid, None, FixtureImage::new())
    }

    /// With a keeper that may have so many descriptors.
    pub fn with_few_descriptors(most: u64) -> Self {
        Self::with(None, Some(most), FixtureImage::new())
    }

    /// With a keeper that is started after something was done in its process.
    pub fn prepared(image: FixtureImage, prepare: impl FnOnce(&mut Command)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = keeper(&dir, None);
        prepare(&mut command);
        start(command);
        let engine = Embedded::connect(&dir.path().join("run")).unwrap();
        Self { engine, image, dir }
    }

    /// With a program of this host in the image, and the libraries it needs.
    pub fn with_program(program: &str, at: &str) -> Self {
        Self::with(None, None, FixtureImage::with_program(Path::new(program), at))
    }

    fn with(edge_uid: Option<u32>, most_descriptors: Option<u64>, image: FixtureImage) -> Self {
        let dir = tempfile::tempdir().unwrap();
        start_keeper(&dir, edge_uid, most_descriptors);
        let engine = Embedded::connect(&dir.path().join("run")).unwrap();
        Self { engine, image, dir }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Kills the keeper, and returns when it is gone. Its holder makes another one.
    pub fn kill_keeper(&self) {
        kill(self.keeper_pid());
    }

    /// The process that makes another keeper when this one is gone.
    pub fn holder_pid(&self) -> i32 {
        status_of(self.keeper_pid() as u32, "PPid").unwrap().parse().unwrap()
    }

    /// The next keeper than `before` that works.
    pub fn next_keeper(&self, before: i32) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.engine.list().unwrap();
            let now = self.keeper_pid();
            if now != before {
                return now;
            }
            assert!(Instant::now() < deadline, "{before} still is the keeper");
        }
    }

    /// Kills keeper and holder, neither of which has the time to notice.
    pub fn kill_keeper_and_holder(&self) {
        let (keeper, holder) = (self.keeper_pid(), self.holder_pid());
        signal(keeper, Signal::STOP);
        kill(holder);
        kill(keeper);
    }

    /// Starts another keeper where there was one.
    pub fn restart(&mut self) {
        start_keeper(&self.dir, None, None);
        self.engine = Embedded::connect(&self.run_dir()).unwrap();
    }

    pub fn keeper_pid(&self) -> i32 {
        fs::read_to_string(self.run_dir().join("keeper.lock")).unwrap().trim().parse().unwrap()
    }

    /// Makes an instance that must run; its process on the host.
    pub fn run(&self, order: &InstanceOrder) -> u32 {
        let status = self.engine.create(std::slice::from_ref(order)).unwrap().remove(0);
        match status.state {
            InstanceState::Running { pid } => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Runs a script to its end: how it ended, and what it printed.
    pub fn script(&self, id: &str, script: &str) -> (Exit, String) {
        self.to_end(&self.image.shell(id, script))
    }

    /// Runs an order to its end: how it ended, and what it printed.
    pub fn to_end(&self, order: &InstanceOrder) -> (Exit, String) {
        self.engine.create(std::slice::from_ref(order)).unwrap();
        let exit = self.ending(&order.id);
        (exit, self.output(&order.id))
    }

    pub fn ending(&self, id: &InstanceId) -> Exit {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let list = self.engine.list().unwrap();
            let state = list.into_iter().find(|s| s.id == *id).map(|s| s.state);
            if let Some(InstanceState::Ended { exit }) = state {
                return exit;
            }
            assert!(Instant::now() < deadline, "{id} is still {state:?}, and wrote: {}", self.output(id));
            self.engine.changes(Duration::from_secs(1)).unwrap();
        }
    }

    /// Waits until an instance has printed this.
    pub fn wait_for_output(&self, id: &InstanceId, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.output(id).contains(text) {
            assert!(Instant::now() < deadline, "{id} did not print {text:?} but {:?}", self.output(id));
            self.engine.changes(Duration::from_millis(5)).unwrap();
        }
    }

    /// Everything an instance has written, both streams.
    pub fn output(&self, id: &InstanceId) -> String {
        self.written(id, |_| true)
    }

    /// The lines an instance has ended on one stream.
    pub fn output_of(&self, id: &InstanceId, stream: OutputStream) -> String {
        self.written(id, |line| line.stream == stream && !line.is_partial)
    }

    fn written(&self, id: &InstanceId, wanted: impl Fn(&WholeLine) -> bool) -> String {
        let kept = [".log.1", ".log"]
            .map(|part| fs::read(self.dir.path().join(format!("output/{id}{part}"))).unwrap_or_default());
        let mut lines = WholeLines::default();
        let parts = kept.iter().flat_map(|k| k.split(|b| *b == b'\n')).filter_map(OutputLine::parse);
        let mut whole: Vec<WholeLine> = parts.filter_map(|line| lines.take(&line)).collect();
        whole.extend(lines.rest());
        whole
            .into_iter()
            .filter(wanted)
            .map(|line| format!("{}\n", String::from_utf8_lossy(&line.text)))
            .collect()
    }

    /// The control groups of this keeper that are there.
    pub fn groups(&self) -> Vec<PathBuf> {
        let path = self.run_dir().canonicalize().unwrap();
        let name = format!("kiln-{}", &Sha256::of(path.as_os_str().as_encoded_bytes()).hex()[..12]);
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|e| e.unwrap().path());
        let ours = hierarchies.chain(["/sys/fs/cgroup".into()]).map(|h| h.join(&name)).filter(|p| p.is_dir());
        let mut found: Vec<PathBuf> = ours.flat_map(|dir| [groups_in(&dir), vec![dir]].concat()).collect();
        found.sort();
        found
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A test that ended the keeper itself has none to end.
        let _ = self.engine.shutdown();
    }
}

fn groups_in(dir: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.filter(|p| p.is_dir()).collect()
}

fn keeper(dir: &TempDir, edge_uid: Option<u32>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keeper-for-tests"));
    command.arg(dir.path().join("run")).arg(dir.path().join("output"));
    command.args(edge_uid.map(|uid| uid.to_string()));
    command
}

fn start_keeper(dir: &TempDir, edge_uid: Option<u32>, most_descriptors: Option<u64>) {
    let mut command = keeper(dir, edge_uid);
    if let Some(most) = most_descriptors {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        // SAFETY: one system call, which touches no memory of the copy it is made in.
        unsafe { command.pre_exec(move || Ok(setrlimit(Resource::Nofile, limit)?)) };
    }
    start(command);
}

fn start(mut command: Command) {
    let said = command.output().unwrap();
    assert!(said.status.success(), "these tests need root: {}", String::from_utf8_lossy(&said.stderr));
}

pub fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Waits for the end of a process that is there now.
pub fn end_of(pid: i32) -> impl FnOnce() {
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    move || {
        let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, None).unwrap();
    }
}

/// Kills a process, and returns when it has ended.
pub fn kill(pid: i32) {
    let end = end_of(pid);
    signal(pid, Signal::KILL);
    end();
}

/// A field of /proc/PID/status, if the process is there.
pub fn status_of(pid: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| Some(l.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}
