//! A `kiln serve` of its own for each test, and the command line against it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kiln_testkit::load::{Load, LoadHandle, LoadPlan};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;
use tempfile::TempDir;

use crate::project::Project;
use crate::trace::{self, Traces};

/// The program under test.
pub(crate) const KILN: &str = env!("CARGO_BIN_EXE_kiln");

/// A state directory in which the example is baked already: fetching and configuring it again for every test would
/// say nothing new.
static BAKED: LazyLock<Baked> = LazyLock::new(|| {
    let baked = Baked::new();
    let root = &baked.root;
    let project = Project::example("hello");
    let output = Command::new(KILN)
        .args(["bake", "--root"])
        .arg(root)
        .arg(project.dir())
        .output()
        .expect("kiln can be run");
    assert!(output.status.success(), "the example could not be baked:\n{}", said(&output));
    baked
});

/// A directory that is there as long as this process: what is static is never dropped, so somebody else removes it.
struct Baked {
    root: PathBuf,
    /// Its other end is told when this process has ended, in whatever way.
    _lives: ChildStdin,
}

impl Baked {
    #[expect(clippy::zombie_processes, reason = "it outlives this process")]
    fn new() -> Self {
        let root = TempDir::new().expect("a temporary directory").keep();
        let mut remover = Command::new("sh")
            .args(["-c", "cat; rm -rf \"$0\""])
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh can be run");
        Self { root, _lives: remover.stdin.take().expect("a pipe") }
    }
}

/// A port that nobody has at the moment.
pub(crate) fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Everything a program printed, for messages.
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

/// A copy of the state directory in which the example is baked; its files are never edited, so links will do.
pub(crate) fn baked_root() -> TempDir {
    let root = TempDir::new().expect("a temporary directory");
    let from = BAKED.root.join(".");
    let status = Command::new("cp").arg("-al").arg(from).arg(root.path()).status().expect("cp can be run");
    assert!(status.success(), "the baked state directory could not be copied");
    // A lock that hosts share would let the collection of one wait for a bake of another.
    let _ = std::fs::remove_file(root.path().join("run/in-use"));
    root
}

/// A host that serves until it is dropped; then nothing of it may be left.
pub(crate) struct TestHost {
    pub(crate) root: TempDir,
    pub(crate) address: String,
    child: Child,
    traces: Traces,
}

impl TestHost {
    /// Starts a host in which the example is baked and nothing is deployed.
    pub(crate) fn start() -> Self {
        let traces = Traces::before();
        let root = baked_root();
        let (child, address) = serve(root.path());
        Self { root, address, child, traces }
    }

    /// The same with its state directory on another disk, below `dir`.
    pub(crate) fn start_in(dir: &Path) -> Self {
        let traces = Traces::before();
        let root = TempDir::new_in(dir).expect("a directory on that disk");
        let from = BAKED.root.join(".");
        let status = Command::new("cp").arg("-a").arg(from).arg(root.path()).status().expect("cp can be run");
        assert!(status.success(), "the baked state directory could not be copied");
        let (child, address) = serve(root.path());
        Self { root, address, child, traces }
    }

    /// Starts a host that has nothing yet, and no network but its own loopback: only its socket is reached from here.
    pub(crate) fn start_empty_without_network() -> Self {
        let root = TempDir::new().expect("a temporary directory");
        Self::start_unshared(root, "-n", "busybox ip link set lo up")
    }

    /// Starts a host as [`TestHost::start`] does, where nothing is mounted any more at `path`.
    pub(crate) fn start_without_mount(path: &str) -> Self {
        Self::start_unshared(baked_root(), "-m", &format!("umount {path}"))
    }

    /// Starts a host as [`TestHost::start`] does, to which the names of hosts mean what this file says.
    pub(crate) fn start_with_names(hosts: &Path) -> Self {
        Self::start_unshared(baked_root(), "-m", &format!("mount --bind {} /etc/hosts", hosts.display()))
    }

    /// Starts a host as a process that did something first, such as giving up rights; where it does not start, its state
    /// directory, exit code and words.
    pub(crate) fn try_start<F>(root: TempDir, first: F) -> Result<Self, (TempDir, Option<i32>, String)>
    where
        F: FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    {
        let traces = Traces::before();
        match try_serve(root.path(), first) {
            Ok((child, address)) => Ok(Self { root, address, child, traces }),
            Err((code, said)) => Err((root, code, said)),
        }
    }

    /// Starts another control plane as a process that did something first; its exit code and words where it does not start.
    pub(crate) fn try_restart_control<F>(&mut self, first: F) -> Result<(), (Option<i32>, String)>
    where
        F: FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    {
        (self.child, self.address) = try_serve(self.root.path(), first)?;
        Ok(())
    }

    /// In namespaces of its own, after something was done there.
    fn start_unshared(root: TempDir, namespaces: &str, first: &str) -> Self {
        let traces = Traces::before();
        let mut unshared = Command::new("unshare");
        unshared.args([namespaces, "sh", "-c", &format!("{first} && exec {KILN} \"$@\""), "sh"]);
        let (child, address) = serve_as(unshared, root.path(), &[], None);
        let address = address.expect("a host that says where it listens");
        Self { root, address, child, traces }
    }

    /// Runs `kiln` against this host.
    pub(crate) fn kiln(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("kiln can be run")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(KILN);
        command.args(arguments).env("KILN_HOST", self.socket()).stdin(Stdio::null());
        command
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root.path().join("run/control.sock")
    }

    /// Runs `kiln` against this host, which must succeed, and returns its JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        let output = self.kiln(&all);
        assert!(output.status.success(), "kiln {} failed:\n{}", arguments.join(" "), said(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("no JSON ({e}):\n{}", said(&output)))
    }

    /// Deploys, which must succeed; returns the release.
    pub(crate) fn deploy(&self, project: &Project) -> String {
        let output = self.kiln(&["deploy", "--json", project.dir()]);
        assert!(output.status.success(), "the deploy failed:\n{}", said(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let last: Value = serde_json::from_str(text.lines().last().expect("events")).expect("an event");
        assert_eq!(last["event"], "deployed", "{text}");
        last["release"].as_str().expect("a release").to_owned()
    }

    /// The live release.
    pub(crate) fn live(&self) -> String {
        self.json(&["status"])["live"].as_str().expect("a live release").to_owned()
    }

    /// Begins a steady load of 550 requests a second, over kept and new connections.
    pub(crate) fn load(&self) -> LoadHandle {
        let address = self.address.trim_start_matches("http://").parse().expect("an address");
        Load::start(LoadPlan::of(address))
    }

    /// What the app answers on `/`.
    pub(crate) fn page(&self) -> String {
        let body = ureq::get(&self.address).call().expect("an answer").into_body().read_to_string();
        body.expect("a page")
    }

    /// Asks again and again until it is so. Each question is a whole command, which paces the asking.
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + END;
        while !is_so() {
            assert!(std::time::Instant::now() < deadline, "waited a minute in vain until {what}");
        }
    }

    /// The process beside control that is called so.
    pub(crate) fn process(&self, name: &str) -> Pid {
        self.find_process(name).unwrap_or_else(|| panic!("no {name} runs"))
    }

    /// The process beside control that is called so, if it runs.
    pub(crate) fn find_process(&self, name: &str) -> Option<Pid> {
        let root = self.root.path().to_str().expect("a path in UTF-8");
        let wanted = format!(" {name} --root {root}");
        let found = trace::processes().into_iter().find(|(_, line)| line.contains(&wanted));
        found.and_then(|(pid, _)| Pid::from_raw(pid))
    }

    /// The keeper, which has a holder that is called the same.
    pub(crate) fn keeper(&self) -> Pid {
        let noted = std::fs::read_to_string(self.root.path().join("run/keeper.lock")).expect("its lock");
        noted.trim().parse().ok().and_then(Pid::from_raw).expect("the number of the keeper")
    }

    /// The process that makes another keeper when this one is gone.
    pub(crate) fn holder(&self) -> Pid {
        let keeper = self.keeper();
        let status = std::fs::read_to_string(format!("/proc/{keeper}/status")).expect("the keeper runs");
        let parent = status.lines().find_map(|l| l.strip_prefix("PPid:")).expect("its parent");
        parent.trim().parse().ok().and_then(Pid::from_raw).expect("a number")
    }

    /// Sends the control plane a signal.
    pub(crate) fn signal_control(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }

    /// Starts another control plane with these arguments, too.
    pub(crate) fn restart_control_with(&mut self, arguments: &[&str]) {
        self.restart_control_as_with(Path::new(KILN), arguments);
    }

    /// Starts the control plane of another version with these arguments, too.
    pub(crate) fn restart_control_as_with(&mut self, program: &Path, arguments: &[&str]) {
        let (child, address) = serve_as(Command::new(program), self.root.path(), arguments, None);
        (self.child, self.address) = (child, address.expect("kiln serve says where it listens"));
    }

    /// Kills the control plane and nothing else.
    pub(crate) fn kill_control(&mut self) {
        self.child.kill().expect("control can be killed");
        self.child.wait().expect("control ends");
    }

    /// The process of the control plane.
    pub(crate) fn control(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for the end of a control plane that was told to end; how it did.
    pub(crate) fn wait_for_control(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("control ends")
    }

    /// Asks the control plane to end, which must not take long.
    pub(crate) fn leave_control(&mut self) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        assert!(self.child.wait().expect("control ends").success());
    }

    /// Starts a control plane where nothing runs any more; the address is another one.
    pub(crate) fn restart_elsewhere(&mut self) {
        (self.child, self.address) = serve(self.root.path());
    }

    /// Starts another control plane on the same state directory.
    pub(crate) fn restart_control(&mut self) {
        self.restart_control_as(Path::new(KILN));
    }

    /// Starts the control plane of another version where one has ended.
    pub(crate) fn restart_control_as(&mut self, program: &Path) {
        self.restart(program, None);
    }

    /// Starts a control plane that meets its end, or a broken disk, at a place that `KILN_TEST_BOUNDARY` names.
    pub(crate) fn restart_control_until(&mut self, boundary: &str) {
        self.restart(Path::new(KILN), Some(boundary));
    }

    /// Leaves nothing behind that other tests would meet, whatever does not end.
    fn end_by_force(&mut self) {
        let _ = self.child.kill();
        let mut without_control = Command::new(KILN);
        without_control.args(["down", "--root"]).arg(self.root.path()).stdin(Stdio::null());
        if !in_time(without_control).status.success() {
            trace::kill(self.root.path());
        }
    }

    fn restart(&mut self, program: &Path, boundary: Option<&str>) {
        let (child, address) = serve_as(Command::new(program), self.root.path(), &[], boundary);
        // One that is to die may do so before it says where it listens.
        assert!(address.is_some() || boundary.is_some(), "kiln serve ended");
        assert_eq!(address.as_ref().unwrap_or(&self.address), &self.address, "the edge was taken over");
        self.child = child;
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        let down = in_time(self.command(&["down"]));
        // A test may have taken it down itself; then nobody is there to ask, and it is about to end.
        let was_down = down.status.code() == Some(9);
        let has_ended = (down.status.success() || was_down) && ends_in_time(&self.child);
        // A test that failed may have left them without their control plane.
        let is_left = || self.find_process("edge").or(self.find_process("keeper")).is_some();
        if !has_ended || std::thread::panicking() && is_left() {
            self.end_by_force();
        }
        let ended = self.child.wait();
        if std::thread::panicking() {
            eprintln!("kiln down:\n{}", said(&down));
            return;
        }
        assert!(down.status.success() || was_down, "kiln down failed:\n{}", said(&down));
        assert!(has_ended, "kiln serve did not end");
        assert!(ended.is_ok_and(|s| s.success()), "kiln serve did not end well");
        self.traces.assert_none(self.root.path());
        trace::assert_nothing_half_written(self.root.path());
    }
}

/// A command that must not take long: one that ends a host, or is refused.
pub(crate) fn in_time(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("kiln can be run");
    if !ends_in_time(&child) {
        child.kill().expect("it can be killed");
        eprintln!("it was given up after {END:?}: {command:?}");
    }
    child.wait_with_output().expect("what it said")
}

/// How long whoever ends may take.
const END: Duration = Duration::from_secs(60);

/// Waits for the end of a process, but not for ever. Whether it has ended.
fn ends_in_time(child: &Child) -> bool {
    let Ok(process) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else { return true };
    let limit = Timespec::try_from(END).expect("a short time");
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).is_ok_and(|ended| ended == 1)
}

/// Everything a program says from now on, line by line, on whichever stream.
pub(crate) fn lines(child: &mut Child) -> Receiver<String> {
    let (tell, lines) = channel();
    let streams: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().expect("its stdout")),
        Box::new(child.stderr.take().expect("its stderr")),
    ];
    for stream in streams {
        let tell = tell.clone();
        std::thread::spawn(move || {
            // When nobody listens any more it must still be read, so that the pipe never fills.
            BufReader::new(stream).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
        });
    }
    lines
}

/// The address a line names, if it does.
pub(crate) fn address(line: &str) -> Option<String> {
    let address = line.split_whitespace().find(|w| w.starts_with("http://"))?;
    Some(address.trim_end_matches([',', '.']).to_owned())
}

/// Starts `kiln serve` and waits until it says where it listens.
fn serve(root: &Path) -> (Child, String) {
    let (mut child, address) = serve_as(Command::new(KILN), root, &[], None);
    let address = address.unwrap_or_else(|| panic!("kiln serve ended ({:?})", child.wait()));
    (child, address)
}

/// Starts `kiln serve` as a process that did something first, and waits until it says where it listens, or ends.
fn try_serve<F>(root: &Path, first: F) -> Result<(Child, String), (Option<i32>, String)>
where
    F: FnMut() -> std::io::Result<()> + Send + Sync + 'static,
{
    let mut command = Command::new(KILN);
    command.args(["serve", "--listen", "127.0.0.1:0", "--root"]).arg(root);
    // SAFETY: a few system calls in the copy of this process; nothing in it waits for a lock another thread has.
    unsafe { command.pre_exec(first) };
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.expect("kiln can be run");
    let (told, mut said) = (lines(&mut child), String::new());
    while let Ok(line) = told.recv() {
        if let Some(address) = address(&line) {
            std::thread::spawn(move || told.iter().for_each(drop));
            return Ok((child, address));
        }
        said.push_str(&line);
        said.push('\n');
    }
    Err((child.wait().expect("it has ended").code(), said))
}

fn serve_as(
    mut program: Command,
    root: &Path,
    arguments: &[&str],
    boundary: Option<&str>,
) -> (Child, Option<String>) {
    let mut child = program
        .envs(boundary.map(|boundary| ("KILN_TEST_BOUNDARY", boundary)))
        .args(["serve", "--listen", "127.0.0.1:0", "--root"])
        .arg(root)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kiln can be run");
    let mut said = String::new();
    let told = lines(&mut child);
    for line in &told {
        if let Some(address) = address(&line) {
            // What it has to say later is for whoever looks into a failure.
            std::thread::spawn(move || told.iter().for_each(|line| eprintln!("kiln serve: {line}")));
            return (child, Some(address));
        }
        said.push_str(&line);
        said.push('\n');
    }
    eprintln!("kiln serve ended:\n{said}");
    (child, None)
}
