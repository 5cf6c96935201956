//! Bad input and bad luck: a clear message, the right exit code, nothing half-done.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::host::{KILN, TestHost, baked_root, said};
use crate::project::Project;
use crate::trace;

fn bake(project: &Project, root: &std::path::Path) -> Output {
    let mut command = Command::new(KILN);
    command.args(["bake", "--root"]).arg(root).arg(project.dir()).stdin(Stdio::null()).output().unwrap()
}

fn fails(output: &Output, code: i32, says: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for expected in says {
        assert!(text.contains(expected), "`{expected}` is not said:\n{text}");
    }
}

#[test]
fn a_package_that_does_not_exist() {
    let (root, project) = (baked_root(), Project::example("hello"));
    project.edit("kiln.toml", "\"nginx-light\"", "\"nginx-lite\"");
    fails(&bake(&project, root.path()), 4, &["nginx-lite", "nginx-light"]);
}

#[test]
fn files_that_are_missing_or_lead_out_of_the_project() {
    let (root, project) = (baked_root(), Project::example("hello"));
    project.edit("kiln.toml", "src = \"nginx.conf\"", "src = \"nginx.cnf\"");
    fails(&bake(&project, root.path()), 3, &["kiln.toml:9:11", "nginx.cnf", "did you mean `nginx.conf`?"]);
    let project = Project::example("hello");
    project.edit("kiln.toml", "src = \"nginx.conf\"", "src = \"../../etc/passwd\"");
    let output = bake(&project, root.path());
    assert!(matches!(output.status.code(), Some(3 | 4)), "{}", said(&output));
    let project = Project::example("hello");
    std::os::unix::fs::symlink("/etc", format!("{}/out", project.dir())).unwrap();
    project.edit("kiln.toml", "src = \"nginx.conf\"", "src = \"out/passwd\"");
    fails(&bake(&project, root.path()), 4, &["out/passwd"]);
}

#[test]
fn a_mirror_that_is_down_and_a_lock_whose_packages_are_there() {
    let (root, project) = (baked_root(), Project::example("hello"));
    let sources = "\n[sources.debian]\nmirror = \"http://127.0.0.1:1/debian\"\n";
    let spec = std::fs::read_to_string(format!("{}/kiln.toml", project.dir())).unwrap();
    let empty = TempDir::new().unwrap();
    project.write("kiln.toml", &(spec.clone() + sources));
    fails(&bake(&project, empty.path()), 4, &["127.0.0.1:1"]);
    // Locked with the mirror up, baked with the mirror down.
    project.write("kiln.toml", &spec);
    assert!(bake(&project, root.path()).status.success());
    project.write("kiln.toml", &(spec + sources));
    project.say("offline");
    let output = bake(&project, root.path());
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_damaged_lock() {
    let (root, project) = (baked_root(), Project::example("hello"));
    project.write("kiln.lock", "version = 1\n[image.web]\nnonsense = true\n");
    fails(&bake(&project, root.path()), 3, &["kiln.lock"]);
}

#[test]
fn a_package_that_is_not_what_the_lock_says() {
    let (root, project) = (TempDir::new().unwrap(), Project::example("hello"));
    let baked = baked_root();
    assert!(bake(&project, baked.path()).status.success());
    let path = format!("{}/kiln.lock", project.dir());
    let lock = std::fs::read_to_string(&path).unwrap();
    let at = lock.find("name = \"nginx-light\"").unwrap();
    let hash = lock[at..].find("sha256 = \"").unwrap() + at + "sha256 = \"".len();
    let mut forged = lock.clone();
    forged.replace_range(hash..hash + 8, "00000000");
    std::fs::write(&path, forged).unwrap();
    fails(&bake(&project, root.path()), 4, &["nginx-light"]);
}

/// A disk that fills up while an image is baked, wherever it does: the store stays whole, and the bake goes through
/// once there is room.
#[test]
fn a_disk_that_is_full() {
    let project = Project::example("hello");
    let disk = SmallDisk::mount();
    let mut failures = 0;
    for free in (10..).step_by(20) {
        disk.leave(free << 20);
        let output = bake(&project, &disk.path().join("state"));
        if output.status.success() {
            break;
        }
        assert!(matches!(output.status.code(), Some(4 | 9)), "with {free} MiB: {}", said(&output));
        assert!(said(&output).to_lowercase().contains("space"), "with {free} MiB: {}", said(&output));
        failures += 1;
    }
    assert!(failures >= 3, "the disk was full only {failures} times");
}

/// A file system of its own in a file; gone when dropped.
pub(crate) struct SmallDisk {
    mounted: TempDir,
    _image: tempfile::NamedTempFile,
}

pub(crate) fn runs(program: &str, arguments: &[&std::ffi::OsStr]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} failed:\n{}", said(&output));
}

impl SmallDisk {
    pub(crate) fn mount() -> Self {
        let (mounted, image) = (TempDir::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        image.as_file().set_len(1 << 30).unwrap();
        // Nothing is set apart for root: these tests are root.
        runs(
            "mkfs.ext4",
            &["-q".as_ref(), "-F".as_ref(), "-m".as_ref(), "0".as_ref(), image.path().as_ref()],
        );
        runs("mount", &["-o".as_ref(), "loop".as_ref(), image.path().as_ref(), mounted.path().as_ref()]);
        Self { mounted, _image: image }
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.mounted.path()
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.path().join("ballast")
    }

    /// Fills it up to the last byte, until what is given back is dropped.
    pub(crate) fn fill(&self) -> Full<'_> {
        let full = Full(self);
        self.leave(1 << 20);
        let mut ballast = std::fs::OpenOptions::new().append(true).open(self.ballast()).unwrap();
        let refused = std::io::copy(&mut std::io::repeat(0), &mut ballast).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
        full
    }

    /// Fills the disk up, but for so much.
    fn leave(&self, free: u64) {
        let _ = std::fs::remove_file(self.ballast());
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let length = (stat.f_bavail * stat.f_frsize).saturating_sub(free);
        runs("fallocate", &["-l".as_ref(), length.to_string().as_ref(), self.ballast().as_ref()]);
    }
}

/// A disk without room.
pub(crate) struct Full<'a>(&'a SmallDisk);

impl Drop for Full<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0.ballast());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[test]
fn a_second_daemon_on_the_same_state_directory() {
    let host = TestHost::start();
    let output = Command::new(KILN)
        .args(["serve", "--listen", "127.0.0.1:0", "--root"])
        .arg(host.root.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    fails(&output, 9, &["process"]);
}

#[test]
fn without_root() {
    let project = Project::example("hello");
    // Where nobody may read and run it.
    let dir = TempDir::new().unwrap();
    let program = dir.path().join("kiln");
    kiln_testkit::program::program(&program, &std::fs::read(KILN).unwrap());
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for arguments in [["up", project.dir()], ["bake", project.dir()]] {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        fails(&output, 9, &["root"]);
    }
}

/// The control plane is killed under load: instances and traffic go on, and the next one takes everything over.
#[test]
fn control_may_die_at_any_time() {
    let mut host = TestHost::start();
    let project = Project::example("hello");
    let release = host.deploy(&project);
    let instances = host.json(&["instances"]);
    let load = host.load();
    host.kill_control();
    let without = host.kiln(&["status"]);
    assert_eq!(without.status.code(), Some(9), "{}", said(&without));
    assert!(host.page().contains("hello"));
    host.restart_control();
    assert_eq!(host.live(), release);
    let pids =
        |v: &serde_json::Value| v.as_array().unwrap().iter().map(|i| i["pid"].clone()).collect::<Vec<_>>();
    let now = host.json(&["instances"]);
    assert_eq!(pids(&now), pids(&instances), "not one instance was touched");
    let since = |v: &serde_json::Value| v[0]["since"].as_str().unwrap().to_owned();
    assert!(since(&now) <= since(&instances), "it has been ready since then, not since now: {now}");
    project.say("after all");
    host.deploy(&project);
    assert_eq!(load.stop().failures, []);
}

/// The edge is killed: another one takes its listening sockets over, and nothing else happens.
#[test]
fn the_edge_may_die() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let instances = host.json(&["instances"]);
    let edge = host.process("edge");
    rustix::process::kill_process(edge, rustix::process::Signal::KILL).unwrap();
    host.wait_until("another edge runs", || host.find_process("edge").is_some_and(|now| now != edge));
    assert!(host.page().contains("hello"));
    assert_eq!(host.json(&["instances"]), instances, "not one instance was touched");
}

/// The keeper is killed under load, and its holder after it: nobody notices, and no instance is touched.
#[test]
fn the_keeper_may_die() {
    let host = TestHost::start();
    let project = Project::example("hello");
    let release = host.deploy(&project);
    let before = host.json(&["instances"]);
    let load = host.load();
    let keeper = host.keeper();
    rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
    host.wait_until("another keeper works", || host.keeper() != keeper);
    let (holder, keeper) = (host.holder(), host.keeper());
    rustix::process::kill_process(holder, rustix::process::Signal::KILL).unwrap();
    host.wait_until("the keeper has become the holder of another one", || host.holder() == keeper);
    assert_eq!(host.json(&["instances"]), before, "not one instance was touched");
    project.say("after all");
    assert_ne!(host.deploy(&project), release);
    assert_eq!(load.stop().failures, []);
}

/// Keeper and holder are killed when the check of an image is about to be run: the next keeper makes its instance, and
/// nothing of it is left.
#[test]
fn an_image_is_checked_by_the_next_keeper() {
    use std::io::{BufRead, BufReader};
    let host = TestHost::start();
    let project = Project::example("hello");
    project.say("checked by the next keeper");
    let signal = |pid, signal| rustix::process::kill_process(pid, signal).unwrap();
    let (holder, keeper) = (host.holder(), host.keeper());
    // A deploy that has begun, and waits in its bake.
    let wait = format!("sleep 9{}", std::process::id());
    project.edit("kiln.toml", "[image.web]\n", &format!("[image.web]\nbuild = [\"{wait} || true\"]\n"));
    let mut deploy = host.command(&["deploy", "--json", project.dir()]);
    let mut deploy = deploy.stdout(Stdio::piped()).spawn().unwrap();
    let find = || trace::processes().into_iter().find(|(_, line)| line.trim_end() == wait);
    host.wait_until("it bakes", || find().is_some());
    // What it is asked from now on it never answers.
    signal(keeper, rustix::process::Signal::STOP);
    signal(rustix::process::Pid::from_raw(find().unwrap().0).unwrap(), rustix::process::Signal::TERM);
    let mut told = BufReader::new(deploy.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(told.any(|line| line.contains("\"baked\"")), "an image is baked, and then checked");
    signal(holder, rustix::process::Signal::KILL);
    signal(keeper, rustix::process::Signal::KILL);
    let last = told.last().unwrap();
    assert!(deploy.wait().unwrap().success(), "{last}");
    assert!(last.contains("deployed"), "{last}");
    assert_ne!(host.keeper(), keeper);
    assert!(host.page().contains("checked by the next keeper"));
}

/// Control and keeper are killed, holder included; instances and edge live on. The next control plane takes all over.
#[test]
fn control_and_keeper_may_die_together() {
    let mut host = TestHost::start();
    let release = host.deploy(&Project::example("hello"));
    let before = host.json(&["instances"]);
    let (holder, keeper) = (host.holder(), host.keeper());
    host.kill_control();
    // Neither has the time to notice that the other is gone.
    rustix::process::kill_process(keeper, rustix::process::Signal::STOP).unwrap();
    for pid in [holder, keeper] {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    host.restart_control();
    host.wait_until("the fleet is whole", || {
        host.json(&["status"])["services"]["web"]["instances"]["ready"] == 4
    });
    let pids =
        |v: &serde_json::Value| v.as_array().unwrap().iter().map(|i| i["pid"].clone()).collect::<Vec<_>>();
    assert_eq!(pids(&host.json(&["instances"])), pids(&before), "not one instance was touched");
    assert_eq!(host.live(), release);
    assert!(host.page().contains("hello"));
}

/// A newer version takes the host over: keeper and holder run it, and no instance notices.
#[test]
fn a_newer_version_takes_the_keeper_over() {
    let mut host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let before = host.json(&["instances"]);
    let load = host.load();
    host.leave_control();
    let dir = TempDir::new().unwrap();
    let newer = dir.path().canonicalize().unwrap().join("kiln-newer");
    kiln_testkit::program::program(&newer, &std::fs::read(KILN).unwrap());
    host.restart_control_as(&newer);
    let runs = |pid: rustix::process::Pid| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!([runs(host.keeper()), runs(host.holder())], [newer.clone(), newer]);
    let pids =
        |v: &serde_json::Value| v.as_array().unwrap().iter().map(|i| i["pid"].clone()).collect::<Vec<_>>();
    assert_eq!(pids(&host.json(&["instances"])), pids(&before));
    assert_eq!(load.stop().failures, []);
}

/// What is found is a keeper that speaks another language: who it is, that nothing is lost, and what to do.
#[test]
fn a_keeper_of_another_language_is_named_with_the_next_step() {
    let root = baked_root();
    let run = root.path().join("run");
    std::fs::create_dir_all(&run).unwrap();
    // It is this process: it holds the lock, and ends every conversation.
    let me = std::process::id();
    std::fs::write(run.join("keeper.lock"), format!("{me}\n")).unwrap();
    let lock = std::fs::File::options().write(true).open(run.join("keeper.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(run.join("keeper.sock")).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let root = root.path().to_str().unwrap();
    let serve =
        Command::new(KILN).args(["serve", "--listen", "127.0.0.1:0", "--root", root]).output().unwrap();
    let said = String::from_utf8(serve.stderr).unwrap();
    let this = std::env::current_exe().unwrap();
    assert_eq!(serve.status.code(), Some(9), "{said}");
    let keeper = format!("the keeper that runs (process {me}, {})", this.display());
    assert!(said.contains(&format!("{keeper} cannot be continued by this version of Kiln")), "{said}");
    assert!(said.contains("it does not understand what it is asked"), "{said}");
    let next = format!("its instances run on: start that version (`{} serve`)", this.display());
    assert!(said.contains(&next), "{said}");
}

/// Whoever asks a second time to take everything down is told the same.
#[test]
fn down_may_be_asked_for_while_a_deploy_waits() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let sick = Project::example("sick");
    sick.edit("kiln.toml", "start_timeout = \"3s\"", "start_timeout = \"10m\"");
    let mut deploy = host.command(&["deploy", sick.dir()]).stderr(Stdio::null()).spawn().unwrap();
    host.wait_until("the deploy waits", || !host.json(&["status"])["waiting"].as_array().unwrap().is_empty());
    let down = host.kiln(&["down"]);
    assert!(down.status.success(), "{}", said(&down));
    assert!(!deploy.wait().unwrap().success());
}

/// A control plane that was killed for good: `kiln down` ends what it has left behind, named by its state directory.
#[test]
fn down_ends_what_a_dead_control_plane_left_behind() {
    let mut host = TestHost::start();
    host.deploy(&Project::example("hello"));
    host.kill_control();
    assert!(host.page().contains("hello"));
    let root = host.root.path().to_str().unwrap().to_owned();
    let down = Command::new(KILN).args(["down", "--root", &root]).stdin(Stdio::null()).output().unwrap();
    assert!(down.status.success(), "{}", said(&down));
    assert!(host.find_process("edge").is_none() && host.find_process("keeper").is_none());
    host.restart_elsewhere();
}

/// Ending only the control plane never hangs, whatever is under way; the deploy goes on when the next one starts.
#[test]
fn control_may_be_told_to_leave_during_a_deploy() {
    let mut host = TestHost::start();
    let good = host.deploy(&Project::example("hello"));
    let sick = Project::example("sick");
    let mut deploy = host.command(&["deploy", sick.dir()]).stderr(Stdio::null()).spawn().unwrap();
    host.wait_until("the deploy waits", || !host.json(&["status"])["waiting"].as_array().unwrap().is_empty());
    host.leave_control();
    assert!(!deploy.wait().unwrap().success());
    host.restart_control();
    host.wait_until("the sick release is given up", || host.json(&["status"])["last_failure"].is_string());
    assert_eq!(host.live(), good);
}

#[test]
fn a_state_directory_in_memory_is_refused_before_anything_is_fetched() {
    let root = TempDir::new_in("/dev/shm").unwrap();
    fails(&bake(&Project::example("hello"), root.path()), 9, &["tmpfs", "--root"]);
}

#[test]
fn limits_of_reading_where_there_is_no_controller_for_them_are_refused_before_anything_is_made() {
    let controller = "/sys/fs/cgroup/blkio";
    if !std::path::Path::new(controller).join("tasks").exists() {
        return eprintln!(
            "NOT TESTED here: a host without limits of reading. It has no v1 hierarchy to be without."
        );
    }
    let host = TestHost::start_without_mount(controller);
    let project = Project::example("hello");
    project.edit("kiln.toml", "health    = {", "io = { read = \"20MiB\" }\nhealth    = {");
    let refused = host.kiln(&["deploy", project.dir()]);
    let why = [
        "the limits of service web cannot be kept on this host",
        "nor is a v1 hierarchy with `blkio` mounted",
    ];
    fails(&refused, 9, &[why[0], why[1], "leave `io` of the service out"]);
    assert_eq!(host.json(&["instances", "--all"]), serde_json::json!([]));
    host.deploy(&Project::example("hello"));
}
