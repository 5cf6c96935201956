//! The keeper process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_engine::embedded::{Beat, Embedded, Pulse, UpgradeError};
use kiln_engine::{Engine, EngineError};
use kiln_model::{ExitCode, Failure, InstanceStatus};
use kiln_store::Store;

use super::Origin;
use super::program::Program;
use crate::host::failure as failures;
use crate::sync::lock;
use crate::world::Trouble;

/// The keeper, seen from the control plane it makes instances for.
pub(crate) struct KeeperProcess {
    program: Program,
    root: PathBuf,
    engine: Arc<Embedded>,
    pulse: Mutex<Pulse>,
    origin: Origin,
}

/// How long a keeper may be silent before people are told.
const SILENCE: Duration = Duration::from_secs(5);
/// How long one that was found may be silent before it is not waited for any more.
const FIRST_WORD: Duration = Duration::from_secs(10);

impl KeeperProcess {
    /// Starts a keeper, or takes over the one that runs already.
    pub(crate) fn start(program: &Path, store: &Store) -> Result<Self, Failure> {
        let (program, root) = (Program::at(program), store.root().to_owned());
        let found = Found::in_dir(&store.run_dir());
        let mut pulse = Pulse::in_dir(&store.run_dir());
        found.iter().try_for_each(|found| found.has_spoken(&mut pulse))?;
        let started = take_over_or_spawn(&program, &root, &store.run_dir());
        let (engine, is_new) = started.map_err(|why| match &found {
            Some(found) if found.is_there() => found.refusal(&UpgradeError::NotUnderstood, program.path()),
            _ => not_started(why),
        })?;
        if !is_new {
            let found = Found::in_dir(&store.run_dir()).or(found).unwrap_or_default();
            found.upgrade(&engine, program.path())?;
        }
        let runs = |there: Vec<InstanceStatus>| there.iter().any(|status| status.state.pid().is_some());
        // A new one that has found instances is not ours to end: they are not.
        let is_ours = is_new && !engine.list().is_ok_and(runs);
        let origin = if is_ours { Origin::Ours } else { Origin::Found };
        Ok(Self { program, root, engine: Arc::new(engine), pulse: Mutex::new(pulse), origin })
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    /// Starts another keeper if there is neither one nor a holder that makes the next one. Whether it did.
    pub(crate) fn revive(&self) -> Result<bool, Failure> {
        match lock(&self.pulse).feel() {
            Beat::Answers | Beat::Silent(_) => Ok(false),
            Beat::Gone => spawn(&self.program, &self.root).map(|()| true),
        }
    }

    /// What people should know of one that does not answer.
    pub(crate) fn silence(&self) -> Option<String> {
        match lock(&self.pulse).feel() {
            Beat::Silent(span) if span >= SILENCE => Some(self.words(span)),
            _ => None,
        }
    }

    /// The same of one that something is to be begun with, and that is asked for one word first.
    pub(crate) fn cannot_answer(&self) -> Option<String> {
        loop {
            // The lock is free while this waits.
            let beat = lock(&self.pulse).feel();
            match beat {
                Beat::Answers | Beat::Gone => return None,
                Beat::Silent(span) if span >= SILENCE => return Some(self.words(span)),
                Beat::Silent(_) => std::thread::park_timeout(Duration::from_millis(5)),
            }
        }
    }

    /// The same of one that is stopped, which alone keeps anybody from being ended: one that has no descriptor left for another
    /// question has some when control has left.
    pub(crate) fn is_stopped(&self) -> Option<String> {
        let keeper = Found::in_dir(&self.root.join("run"))?.pid?;
        (field_of(keeper, STATE)? == STOPPED)
            .then(|| format!("the keeper (process {keeper}) is stopped; `kill -CONT {keeper}` lets it go on"))
    }

    fn words(&self, span: Duration) -> String {
        let (whose, next) = Found::in_dir(&self.root.join("run")).unwrap_or_default().standing_still();
        format!(
            "the keeper{whose} has not answered for {} s; instances run on; until it does none is made, ended or \
             replaced, and nobody connects to them anew; {next}",
            span.as_secs()
        )
    }

    /// What people should know of a holder that stands still: there would be no other keeper.
    pub(crate) fn warning_of_holder(&self) -> Option<String> {
        let holder = Found::in_dir(&self.root.join("run"))?.stopped_holder()?;
        Some(format!(
            "the holder of the keeper (process {holder}) is stopped: if the keeper ends no other one is made until \
             `kill -CONT {holder}` lets it go on"
        ))
    }

    pub(crate) fn end(&self) -> Result<(), Trouble> {
        self.engine.shutdown().map_err(|e| Trouble::of(&e))
    }

    /// Ends it, and all that it has made, if this control plane has started it.
    pub(crate) fn withdraw(&self) {
        if self.origin == Origin::Ours {
            let _ = self.end();
        }
    }
}

/// Whatever the program itself had to say.
fn not_started(why: Failure) -> Failure {
    let why = Failure { code: ExitCode::Host, ..why };
    failures::attempted("could not start the keeper, which makes instances", why)
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

    /// Its holder, which makes the next keeper, if it stands still.
    fn stopped_holder(&self) -> Option<u32> {
        let holder = field_of(self.pid?, PARENT)?.parse::<u32>().ok()?;
        (field_of(holder, STATE)? == STOPPED).then_some(holder)
    }

    /// Has the keeper go over to `program`, if it runs another one.
    fn upgrade(&self, engine: &Embedded, program: &Path) -> Result<(), Failure> {
        let refused = |e: UpgradeError| self.refusal(&e, program);
        if engine.is_program(program).map_err(refused)? {
            return Ok(());
        }
        if let Some(holder) = self.stopped_holder() {
            let message = "the keeper that runs cannot be continued by this version of Kiln";
            let cause = format!("its holder (process {holder}), which would start this one, is stopped");
            return Err(Failure::new(ExitCode::Host, message).because(cause).hint(format!(
                "its instances run on: `kill -CONT {holder}` lets it go on; then start this again"
            )));
        }
        engine.upgrade(program).map(drop).map_err(refused)
    }

    /// Waits for its first word.
    ///
    /// # Errors
    /// If there is none: whoever asks it for anything would wait as well.
    fn has_spoken(&self, pulse: &mut Pulse) -> Result<(), Failure> {
        loop {
            match pulse.feel() {
                Beat::Silent(span) if span >= FIRST_WORD => break,
                Beat::Silent(_) => std::thread::park_timeout(Duration::from_millis(10)),
                Beat::Answers | Beat::Gone => return Ok(()),
            }
        }
        let (whose, next) = self.standing_still();
        let message = format!("the keeper that runs{whose} does not answer");
        let failure = Failure::new(ExitCode::Host, message)
            .because(format!("it was asked for a word, and {} s went by", FIRST_WORD.as_secs()));
        Err(failure.hint(format!("its instances run on: {next}")))
    }

    /// Of one that does not answer: which it is, and what to do.
    fn standing_still(&self) -> (String, String) {
        let Some(pid) = self.pid else { return (String::new(), "its log may tell why".to_owned()) };
        match field_of(pid, STATE).as_deref() {
            Some(STOPPED) => {
                (format!(" (process {pid}, which is stopped)"), format!("`kill -CONT {pid}` lets it go on"))
            }
            _ => (
                format!(" (process {pid})"),
                format!("if it stays so, `kill -9 {pid}` ends it, and the next one adopts all instances"),
            ),
        }
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

/// Fields of /proc/PID/stat, counted from behind the name of the program.
const STATE: usize = 0;
const PARENT: usize = 1;
/// The state of a process that SIGSTOP has stopped.
const STOPPED: &str = "T";

/// One of them. The name may hold anything, spaces and brackets as well.
fn field_of(pid: u32, field: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(") ")?;
    behind.split(' ').nth(field).map(str::to_owned)
}

/// The keeper that answers, or a new one; whether it is new. One that was just killed still accepts connections for a
/// moment, and still holds its lock: only an answer counts, and a refusal is not the last word.
fn take_over_or_spawn(program: &Program, root: &Path, run_dir: &Path) -> Result<(Embedded, bool), Failure> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        if let Ok(engine) = answering(run_dir) {
            return Ok((engine, false));
        }
        let why = match spawn(program, root).map(|()| answering(run_dir)) {
            Ok(Ok(engine)) => return Ok((engine, true)),
            Ok(Err(e)) => Failure::from_error(ExitCode::Busy, &e),
            Err(why) => why,
        };
        // Whatever else it says will be the same in a moment.
        if why.code != ExitCode::Busy || Instant::now() >= deadline {
            return Err(why);
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn answering(run_dir: &Path) -> Result<Embedded, EngineError> {
    let engine = Embedded::connect(run_dir)?;
    engine.list()?;
    Ok(engine)
}

/// Starts a keeper; returns when it accepts requests. What is started becomes a process of its own, and what it has
/// to say against that comes on its standard output before, as a document, and on its standard error.
fn spawn(program: &Program, root: &Path) -> Result<(), Failure> {
    let mut command = program.command();
    command.env_clear().arg("keeper").arg("--root").arg(root).arg("--json");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = || format!("run {}", program.path().display());
    let output = command.output().map_err(|e| failures::system(&run(), &e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(told(&output.stdout).unwrap_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        Failure::new(ExitCode::Host, format!("{} is no program of this host", program.path().display()))
            .because(format!("it ended ({}): {}", output.status, said.trim()))
            .hint(format!("put this version of Kiln back to {}", program.path().display()))
    }))
}

/// The failure in a document `{"failure": …}`.
fn told(document: &[u8]) -> Option<Failure> {
    #[derive(serde::Deserialize)]
    struct Told {
        failure: Failure,
    }
    serde_json::from_slice::<Told>(document).ok().map(|told| told.failure)
}
