//! What others take for the same: crun and runc with an OCI bundle of one static program, podman with an image of it.
//!
//! Those that are not installed, or do not run here, are left out and say why. They answer no request: what is timed
//! is less than what is timed of Kiln.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::run::output;

/// How many are started at the same time: with more, all of them only become slower.
const AT_ONCE: usize = 4;

/// Where the v2 tree is beside v1 controllers.
const BESIDE_V1: &str = "/sys/fs/cgroup/unified";

/// Measures them in a mount namespace without the v2 tree if there are v1 controllers beside it: crun refuses such hosts.
pub(super) fn measure(count: usize) -> Result<Value> {
    let this = std::env::current_exe()?;
    let mut apart = Command::new("unshare");
    apart.arg("--mount").arg(this).args(["bench", "engine-peers", &count.to_string()]);
    Ok(serde_json::from_str(&output(&mut apart)?)?)
}

/// The same, inside of it.
pub(crate) fn run(count: usize) -> Result<()> {
    let mounts_of = |process: u32| fs::read_link(format!("/proc/{process}/ns/mnt"));
    let (this, parent) = (std::process::id(), std::os::unix::process::parent_id());
    ensure!(
        mounts_of(this)? != mounts_of(parent)?,
        "it unmounts things, and must not do so on the host itself"
    );
    if Path::new(BESIDE_V1).exists() {
        quietly(Command::new("umount").arg(BESIDE_V1))?;
    }
    let dir = std::env::temp_dir().join(format!("kiln-peers-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let mut peers = json!({});
    for name in ["crun", "runc"] {
        peers[name] = told(runtime(name, &dir, count));
    }
    peers["podman"] = told(podman(&dir, count.min(20)));
    fs::remove_dir_all(&dir)?;
    println!("{peers}");
    Ok(())
}

fn told(measured: Result<Value>) -> Value {
    measured.unwrap_or_else(|error| json!({ "left_out": format!("{error:#}") }))
}

/// A root directory with one program in it.
fn root(dir: &Path) -> Result<PathBuf> {
    let root = dir.join("rootfs");
    for sub in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(sub))?;
    }
    for name in ["busybox", "sleep"] {
        fs::copy("/bin/busybox", root.join("bin").join(name)).context("the package busybox-static")?;
    }
    Ok(root)
}

/// What it complains of goes to a file: a container that stays would hold a pipe open.
fn quietly(command: &mut Command) -> Result<()> {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("kiln-peers-said-{}-{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let complaints = fs::File::create(&path)?;
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints).status();
    let said = fs::read_to_string(&path)?;
    fs::remove_file(&path)?;
    ensure!(status?.success(), "{command:?}: {}", said.trim());
    Ok(())
}

fn runtime(name: &str, dir: &Path, count: usize) -> Result<Value> {
    let (bundle, state) = (dir.join(name), dir.join(format!("{name}-state")));
    fs::create_dir_all(&bundle)?;
    root(&bundle)?;
    fs::write(bundle.join("config.json"), config(name)?)?;
    let call = |arguments: &[&str]| {
        let mut command = Command::new(name);
        command.arg("--root").arg(&state);
        command.args(arguments);
        command
    };
    let bundle = bundle.to_str().context("a path in UTF-8")?.to_owned();
    let start = |id: String| quietly(&mut call(&["run", "--detach", "--bundle", &bundle, &id]));
    let delete = |id: String| quietly(&mut call(&["delete", "--force", &id]));
    timed(name, count, &start, &delete)
}

/// What the runtime itself proposes, with a program that stays.
fn config(name: &str) -> Result<String> {
    let dir = std::env::temp_dir().join(format!("kiln-peers-spec-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let made = quietly(Command::new(name).arg("spec").current_dir(&dir));
    let text = made.and_then(|()| Ok(fs::read_to_string(dir.join("config.json"))?));
    fs::remove_dir_all(&dir)?;
    let mut config: Value = serde_json::from_str(&text?)?;
    config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    config["process"]["terminal"] = json!(false);
    Ok(config.to_string())
}

fn podman(dir: &Path, count: usize) -> Result<Value> {
    let root = root(dir)?;
    let archive = dir.join("image.tar");
    quietly(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."))?;
    let image = format!("kiln-bench-{}", std::process::id());
    quietly(Command::new("podman").arg("import").arg(&archive).arg(&image))?;
    // Limits of open files and processes as they are: podman would raise them to what a host may not allow.
    let as_it_is = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "none"];
    let call = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--cgroup-manager", "cgroupfs"]).args(arguments);
        command
    };
    let start = |id: String| {
        let mut run = call(&["run", "--detach", "--name", &id]);
        quietly(run.args(as_it_is).args([&image, "/bin/sleep", "1000"]))
    };
    let delete = |id: String| quietly(&mut call(&["rm", "--force", "--time", "0", &id]));
    let measured = timed("podman", count, &start, &delete);
    quietly(Command::new("podman").args(["rmi", "--force", &image]))?;
    measured
}

type Act<'a> = &'a (dyn Fn(String) -> Result<()> + Sync);

/// One after the other, then some at a time; then all are deleted.
fn timed(name: &str, count: usize, start: Act<'_>, delete: Act<'_>) -> Result<Value> {
    let id = |part: &str, n: usize| format!("kiln-{name}-{}-{part}-{n}", std::process::id());
    let cpu = children_cpu()?;
    let begun = Instant::now();
    let first = (0..count / 2).try_for_each(|n| start(id("single", n)));
    let single = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let second = first.and_then(|()| {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..AT_ONCE)
                .map(|part| {
                    scope.spawn(move || {
                        (part..count / 2).step_by(AT_ONCE).try_for_each(|n| start(id("more", n)))
                    })
                })
                .collect();
            all.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
        })
    });
    let parallel = begun.elapsed().as_secs_f64();
    // Whatever was started goes, also after a failure.
    let deleted: Vec<Result<()>> =
        (0..count / 2).flat_map(|n| [id("single", n), id("more", n)]).map(delete).collect();
    second?;
    deleted.into_iter().collect::<Result<()>>()?;
    let half = (count / 2) as f64;
    Ok(json!({
        "containers": count / 2 * 2,
        "start_each_s": single / half,
        "start_parallel_each_s": parallel / half,
        "cpu_each_s": (children_cpu()? - cpu) / (2.0 * half),
    }))
}

/// Processor seconds of all children of this process that were waited for, from its own entry in /proc.
fn children_cpu() -> Result<f64> {
    let stat = output(Command::new("cat").arg(format!("/proc/{}/stat", std::process::id())))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = fields.iter().skip(13).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}
