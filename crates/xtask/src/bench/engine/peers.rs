//! What others take for the same: crun and runc with an OCI bundle of one static program, podman with an image of it.
//!
//! Those that are not installed, or do not run here, are left out and say why. They answer no request: what is timed
//! is less than what is timed of Kiln.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::run::output;

/// How many are started at the same time: with more, all of them only become slower.
const AT_ONCE: usize = 4;

pub(super) fn measure(count: usize) -> Result<Value> {
    let dir = std::env::temp_dir().join(format!("kiln-peers-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let mut peers = json!({});
    for name in ["crun", "runc"] {
        peers[name] = told(runtime(name, &dir, count));
    }
    peers["podman"] = told(podman(&dir, count.min(20)));
    fs::remove_dir_all(&dir)?;
    Ok(peers)
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

fn quietly(command: &mut Command) -> Result<()> {
    let said = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    ensure!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr).trim());
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
        if name == "crun" {
            // It refuses hosts that have v1 controllers beside a v2 tree.
            command.args(["--cgroup-manager", "disabled"]);
        }
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
    let start = |id: String| {
        let arguments = ["run", "--detach", "--network", "none", "--cgroups", "disabled", "--name"];
        quietly(Command::new("podman").args(arguments).args([&id, &image, "/bin/sleep", "1000"]))
    };
    let delete = |id: String| quietly(Command::new("podman").args(["rm", "--force", "--time", "0", &id]));
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
