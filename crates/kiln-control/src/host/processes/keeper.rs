//! The keeper process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_engine::embedded::{Embedded, UpgradeError};
use kiln_engine::{Engine, EngineError};
use kiln_model::{ExitCode, Failure, InstanceStatus};
use kiln_store::Store;

use crate::world::Trouble;

/// The keeper, seen from the control plane it makes instances for.
pub(crate) struct KeeperProcess {
    program: PathBuf,
    root: PathBuf,
    engine: Arc<Embedded>,
    is_new: bool,
}

impl KeeperProcess {
    /// Starts a keeper, or takes over the one that runs already.
    pub(crate) fn start(program: &Path, store: &Store) -> Result<Self, Failure> {
        let (program, root) = (program.to_owned(), store.root().to_owned());
        let found = Found::in_dir(&store.run_dir());
        let started = take_over_or_spawn(&program, &root, &store.run_dir());
        let (engine, is_new) = started.map_err(|trouble| match &found {
            Some(found) if found.is_there() => found.refusal(&UpgradeError::NotUnderstood, &program),
            _ => Failure::new(ExitCode::Host, "could not start the keeper, which makes instances")
                .because(trouble.to_string()),
        })?;
        if !is_new {
            let found = Found::in_dir(&store.run_dir()).or(found).unwrap_or_default();
            engine.upgrade(&program).map_err(|e| found.refusal(&e, &program))?;
        }
        Ok(Self { program, root, engine: Arc::new(engine), is_new })
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    /// Starts another keeper if there is neither one nor a holder that makes the next one. Whether it did.
    pub(crate) fn revive(&self) -> Result<bool, Trouble> {
        if Embedded::connect(&self.root.join("run")).is_ok() {
            return Ok(false);
        }
        spawn(&self.program, &self.root).map(|()| true)
    }

    pub(crate) fn end(&self) -> Result<(), Trouble> {
        self.engine.shutdown().map_err(|e| Trouble::of(&e))
    }

    /// Whether this control plane has started it, and it has found nothing that lives.
    pub(crate) fn is_new(&self) -> bool {
        let runs = |there: Vec<InstanceStatus>| there.iter().any(|status| status.state.pid().is_some());
        self.is_new && !self.engine.list().is_ok_and(runs)
    }

    pub(crate) fn end_if_new(&self) {
        if self.is_new() {
            let _ = self.end();
        }
    }
}

/// A keeper that was there before, as its lock tells of it.
#[derive(Debug, Default)]
struct Found {
    pid: Option<u32>,
    /// What it runs.
    program: Option<PathBuf>,
    run_dir: PathBuf,
}

impl Found {
    fn in_dir(run_dir: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(run_dir.join("keeper.lock")).ok()?;
        let pid = text.trim().parse().ok()?;
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        Some(Self { pid: Some(pid), program: Some(program), run_dir: run_dir.to_owned() })
    }

    fn is_there(&self) -> bool {
        let now = self.pid.and_then(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok());
        now.is_some() && now == self.program
    }

    /// That instances run on is true of every reason; what to do next depends on it.
    fn refusal(&self, why: &UpgradeError, ours: &Path) -> Failure {
        let theirs =
            self.program.as_ref().map_or("the version that started it".into(), |p| p.display().to_string());
        let log = self.run_dir.join("keeper.log");
        let next = match why {
            UpgradeError::NotUnderstood => {
                format!(
                    "start that version (`{theirs} serve`), or end them with it (`{theirs} down`) and start this one"
                )
            }
            UpgradeError::NotExecuted { .. } | UpgradeError::Program { .. } => {
                format!(
                    "{} says why; put {} where root can execute it and start it again",
                    log.display(),
                    ours.display()
                )
            }
            UpgradeError::Refused(_) => "start this version again when that reason is gone".to_owned(),
            UpgradeError::Unreachable { .. } => {
                format!("start this version again; if it stays so, {} may tell why", log.display())
            }
        };
        let whose = self.pid.map_or(String::new(), |pid| format!(" (process {pid}, {theirs})"));
        let message = format!("the keeper that runs{whose} cannot be continued by this version of Kiln");
        let failure = Failure::new(ExitCode::Host, message).because(Trouble::of(why).to_string());
        failure.hint(format!("its instances run on: {next}"))
    }
}

/// The keeper that answers, or a new one; whether it is new. One that was just killed still accepts connections for a
/// moment, and still holds its lock: only an answer counts, and a refusal is not the last word.
fn take_over_or_spawn(program: &Path, root: &Path, run_dir: &Path) -> Result<(Embedded, bool), Trouble> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        if let Ok(engine) = answering(run_dir) {
            return Ok((engine, false));
        }
        let spawned = spawn(program, root).and_then(|()| answering(run_dir).map_err(|e| Trouble::of(&e)));
        match spawned {
            Ok(engine) => return Ok((engine, true)),
            Err(trouble) if Instant::now() >= deadline => return Err(trouble),
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

fn answering(run_dir: &Path) -> Result<Embedded, EngineError> {
    let engine = Embedded::connect(run_dir)?;
    engine.list()?;
    Ok(engine)
}

/// Starts a keeper; returns when it accepts requests. What is started becomes a process of its own, and what it has
/// to say against that comes on its standard error before.
fn spawn(program: &Path, root: &Path) -> Result<(), Trouble> {
    let mut command = Command::new(program);
    command.env_clear().arg("keeper").arg("--root").arg(root);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output =
        command.output().map_err(|e| Trouble(format!("{} could not be run: {e}", program.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Trouble(said.trim().trim_start_matches("error: ").to_owned()))
}
