//! `cargo xtask bench bake`: baking beside mmdebstrap and buildah, in one run, from local packages, everything as a
//! user runs it: whole processes, their children included.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::measure::{Figures, forget_made, measured, median};
use crate::run::{cargo, output, visibly, workspace};
use crate::setup;

/// Runs all cases.
pub(crate) fn run(as_json: bool) -> Result<()> {
    setup::ensure_installed(&setup::BAKE_PEERS)?;
    visibly(cargo().args(["build", "--release", "--package", "kiln"]))?;
    visibly(cargo().args(["build", "--release", "--package", "kiln-bake", "--example", "time_parts"]))?;
    let bench = Bench::new()?;
    let mmdebstrap = bench.mmdebstrap()?;
    let buildah = bench.buildah()?;
    let mut cases = bench.cold(&mmdebstrap)?;
    cases.extend(bench.small_changes(&buildah)?);
    cases.extend(bench.in_process()?);
    let kernel = output(Command::new("uname").arg("-r"))?.trim().to_owned();
    let cores = std::thread::available_parallelism()?.get();
    let machine = json!({ "cores": cores, "kernel": kernel });
    let document = json!({ "area": "bake", "machine": machine, "cases": cases });
    if as_json {
        println!("{document:#}");
    } else {
        for case in &cases {
            println!(
                "{:<52} {} ratio {} goal {} met {}",
                case["name"].as_str().unwrap_or_default(),
                case["kiln"],
                case["ratio"],
                case["goal"],
                case["met"]
            );
        }
    }
    Ok(())
}

/// One case: ours, the peers', and what is to be reached. `goal` bounds the ratio of CPU and wall to the first peer, or
/// without peers the seconds.
fn case(name: &str, ours: &Figures, peers: &[(&str, &Figures)], goal: f64) -> Value {
    let mut case = json!({ "name": name, "kiln": ours.to_json(), "goal": goal, "peers": {}, "ratio": {}, "ratio_cpu": {} });
    for (peer, figures) in peers {
        case["peers"][peer] = figures.to_json();
        case["ratio"][peer] = json!(ours.wall / figures.wall);
        case["ratio_cpu"][peer] = json!(ours.cpu / figures.cpu);
    }
    let reached = peers.first().map_or(ours.wall, |(_, p)| (ours.wall / p.wall).max(ours.cpu / p.cpu));
    case["met"] = json!(reached <= goal);
    case
}

/// A case whose goal is about CPU alone.
fn cpu_case(name: &str, ours: &Figures, peer: (&str, &Figures), goal: f64) -> Value {
    let mut case = case(name, ours, &[peer], goal);
    case["met"] = json!(ours.cpu / peer.1.cpu <= goal);
    case
}

struct Bench {
    kiln: PathBuf,
    dir: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A benchmark that failed has said why; what it leaves is in a temporary directory.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

struct Buildah {
    one_file: Figures,
    one_package: Figures,
}

impl Bench {
    /// Everything is downloaded once, and laid out as a repository for the peers.
    fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("kiln-bench-bake-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let bench = Self { kiln: workspace().join("target/release/kiln"), dir };
        for (name, packages) in [
            ("all", r#""nginx", "curl", "apt""#),
            ("other", ""),
            ("web", r#""nginx""#),
            ("more", r#""nginx", "curl""#),
        ] {
            bench.project(name, packages)?;
            if name == "more" {
                // A package is added to what is locked, so that it comes behind the others.
                fs::copy(bench.dir.join("web/kiln.lock"), bench.dir.join("more/kiln.lock"))?;
            }
            bench.bake(name)?;
        }
        let lock = fs::read_to_string(bench.dir.join("all/kiln.lock"))?;
        let repository = bench.repository();
        fs::create_dir_all(&repository)?;
        for hash in lock.lines().filter_map(|l| l.strip_prefix("sha256 = \"")?.strip_suffix('"')) {
            let from = bench.store().join("packages").join(format!("{hash}.deb"));
            if from.is_file() {
                fs::copy(from, repository.join(format!("{hash}.deb")))?;
            }
        }
        let mut scan = Command::new("dpkg-scanpackages");
        let index = output(scan.args(["-m", "."]).current_dir(&repository))?;
        fs::write(repository.join("Packages"), index)?;
        Ok(bench)
    }

    fn project(&self, name: &str, packages: &str) -> Result<()> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("page.html"), "<h1>hello</h1>\n")?;
        let spec = format!(
            "app = \"bench\"\n[image.web]\nfrom = \"debian:bookworm\"\npackages = [{packages}]\n\
             files = [{{ src = \"page.html\", dst = \"/srv/page.html\" }}]\nrun = [\"/bin/true\"]\n"
        );
        Ok(fs::write(dir.join("kiln.toml"), spec)?)
    }

    fn store(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn repository(&self) -> PathBuf {
        self.dir.join("repository")
    }

    fn bake(&self, project: &str) -> Result<Figures> {
        let mut command = Command::new(&self.kiln);
        measured(command.args(["bake", "--locked", "--root"]).arg(self.store()).arg(self.dir.join(project)))
            .or_else(|_| {
                let mut command = Command::new(&self.kiln);
                measured(command.args(["bake", "--root"]).arg(self.store()).arg(self.dir.join(project)))
            })
    }

    /// Nothing but the downloads is there any more.
    fn forget(&self) -> Result<()> {
        forget_made(&self.store(), &self.dir.join("aside"))
    }

    fn mmdebstrap(&self) -> Result<Figures> {
        let source = format!("deb [trusted=yes] copy:{} ./", self.repository().display());
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=apt", "--include=nginx", "--mode=root", "--quiet"]);
        command.arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr");
        command.arg("bookworm").arg(self.dir.join("mmdebstrap.tar")).arg(source);
        measured(&mut command)
    }

    fn cold(&self, mmdebstrap: &Figures) -> Result<Vec<Value>> {
        let peers = [("mmdebstrap", mmdebstrap)];
        let (mut cold, mut over_base) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            self.forget()?;
            cold.push(self.bake("web")?);
            self.forget()?;
            self.bake("other")?;
            over_base.push(self.bake("web")?);
        }
        let cold = median(cold);
        let memory = json!({ "name": "peak memory, cold", "kiln": { "peak_mb": cold.peak_mb }, "goal": 200, "met": cold.peak_mb <= 200.0 });
        Ok(vec![
            case("cold: nginx on bookworm, nothing but the downloads", &cold, &peers, 1.0 / 3.0),
            case("cold, the configured base is there", &median(over_base), &peers, 1.0 / 8.0),
            memory,
        ])
    }

    fn small_changes(&self, buildah: &Buildah) -> Result<Vec<Value>> {
        let unchanged = (0..21).map(|_| self.bake("web")).collect::<Result<Vec<_>>>()?;
        let mut one_file = Vec::new();
        for n in 0..21 {
            fs::write(self.dir.join("web/page.html"), format!("<h1>hello {n}</h1>\n"))?;
            one_file.push(self.bake("web")?);
        }
        let (mut one_package, mut in_parts) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            self.forget()?;
            self.bake("web")?;
            one_package.push(self.bake("more")?);
            self.forget()?;
            self.bake("web")?;
            in_parts.push(self.one_package_in_parts()?);
        }
        let rest = |case: &Value| case["kiln"]["rest_s"].as_f64().unwrap_or(f64::MAX);
        in_parts.sort_by(|a, b| rest(a).total_cmp(&rest(b)));
        let one_file = median(one_file);
        Ok(vec![
            case("nothing changed, whole process", &median(unchanged), &[], 0.010),
            case("one file changed, durable and mountable", &one_file, &[], 0.020),
            cpu_case("one file changed, CPU beside buildah", &one_file, ("buildah", &buildah.one_file), 0.1),
            case(
                "one package more (curl: its xz and scripts included)",
                &median(one_package),
                &[("buildah", &buildah.one_package)],
                1.0,
            ),
            in_parts.swap_remove(1),
        ])
    }

    /// The same bake, and how much of it is the new packages' own: unpacking them, and their scripts.
    fn one_package_in_parts(&self) -> Result<Value> {
        let example = workspace().join("target/release/examples/time_parts");
        let mut command = Command::new(example);
        let text = output(command.arg("one-package").arg(self.store()).arg(self.dir.join("more")))?;
        let parts: Value = serde_json::from_str(text.trim())?;
        let goal = 0.1;
        let met = parts["rest_s"].as_f64().is_some_and(|rest| rest <= goal);
        let name = "one package more, without its own xz and scripts (rest_s)";
        Ok(json!({ "name": name, "kiln": parts, "goal": goal, "met": met }))
    }

    /// Its base is imported once and not counted; then a file is copied in, and a package installed.
    fn buildah(&self) -> Result<Buildah> {
        let storage = self.dir.join("buildah");
        let buildah = |arguments: &[&str]| {
            let mut command = Command::new("buildah");
            command.args(["--root"]).arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
            command.args(["--storage-driver", "overlay"]).args(arguments);
            command
        };
        let context = self.dir.join("context");
        fs::create_dir_all(&context)?;
        let write = |name: &str, text: &str| fs::write(context.join(name), text);
        fs::rename(self.dir.join("mmdebstrap.tar"), context.join("root.tar"))?;
        write("Base", "FROM scratch\nADD root.tar /\n")?;
        write("File", "FROM base\nCOPY page.html /srv/page.html\n")?;
        write(
            "Package",
            "FROM base\nRUN apt-get -o Dir::Etc::SourceList=/repository/sources -o Dir::Etc::SourceParts=/none -o APT::Sandbox::User=root update && \
             apt-get -o Dir::Etc::SourceList=/repository/sources -o Dir::Etc::SourceParts=/none -o APT::Sandbox::User=root install -y --no-install-recommends curl\n",
        )?;
        fs::write(self.repository().join("sources"), "deb [trusted=yes] file:/repository ./\n")?;
        let volume = format!("{}:/repository:ro", self.repository().display());
        let directory = context.to_str().context("a path in UTF-8")?.to_owned();
        let build = |file: &str, tag: &str| -> Result<Figures> {
            let file = context.join(file);
            let file = file.to_str().context("a path in UTF-8")?;
            let arguments = [
                "bud",
                "--layers",
                "--isolation",
                "chroot",
                "-q",
                "-v",
                &volume,
                "-f",
                file,
                "-t",
                tag,
                &directory,
            ];
            measured(&mut buildah(&arguments))
        };
        build("Base", "base")?;
        fs::remove_file(context.join("root.tar"))?;
        let mut one_file = Vec::new();
        for n in 0..5 {
            write("page.html", &format!("<h1>hello {n}</h1>\n"))?;
            one_file.push(build("File", "file")?);
        }
        let one_package = build("Package", "package")?;
        Ok(Buildah { one_file: median(one_file), one_package })
    }

    /// What only a process that has the library can time.
    fn in_process(&self) -> Result<Vec<Value>> {
        let example = workspace().join("target/release/examples/time_parts");
        let text = output(Command::new(example).arg(self.store()).arg(self.dir.join("other/kiln.lock")))?;
        let mut cases = Vec::new();
        for line in text.lines() {
            let figures: Value = serde_json::from_str(line)?;
            let (name, wall, goal) = (&figures["name"], figures["wall_s"].as_f64(), figures["goal"].as_f64());
            let met = goal.zip(wall).map(|(goal, wall)| wall <= goal);
            cases.push(json!({ "name": name, "kiln": { "wall_s": wall }, "goal": goal, "met": met }));
        }
        Ok(cases)
    }
}
