//! One host: the core, the processes beside it, and the commands people give.

mod audit;
mod board;
mod busy;
mod cancel;
mod certificate_names;
mod checks;
mod commit;
mod deploy;
mod diff;
mod driver;
mod exec;
pub(crate) mod failure;
mod gc;
mod history;
mod logs;
mod memory;
mod offline;
mod old_output;
mod output_files;
mod pause;
mod pins;
mod places;
mod plan;
mod portable;
mod preflight;
mod processes;
mod queries;
mod releases;
mod renewals;
mod rollback;
mod room;
mod secrets;
mod serve;
mod successors;
mod told_secrets;
pub(crate) mod verify;
mod wait;
mod what_runs;
pub(crate) mod without_history;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_engine::Engine;
use kiln_model::{
    Answer, AppName, Command, ExecRequest, ExitCode, Failure, LogVerifiedAnswer, Millis, Record, Timestamp,
};
use kiln_store::boundary::between;
use kiln_store::{HostLock, Store};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::contract::{Caller, EventSink, Host, Session};
use crate::core::{Core, News, Past, Precedence, Refusal, Request, Will};
use crate::health::Prober;
use crate::shelf::{StoredHistory, SystemClock};
use crate::sync::lock;
use crate::world::{Clock, Trouble, World};
use busy::Busy;
use driver::{Driver, Waker};
pub use offline::Offline;
use places::Places;
pub use processes::EdgeOptions;
use processes::Processes;
pub use renewals::AcmeOptions;
use renewals::Renewals;
pub use secrets::LostKey;

/// What a host is started with.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// The state directory.
    pub root: PathBuf,
    /// Where the edge listens.
    pub listen: SocketAddr,
    /// What the edge is to do beside that; what it does already, if absent.
    pub edge: Option<EdgeOptions>,
    /// Where certificates come from, if it gets any itself.
    pub acme: Option<AcmeOptions>,
    /// The program whose `keeper` and `edge` subcommands are the processes beside control.
    pub program: PathBuf,
}

/// A host on this machine.
pub struct LocalHost {
    pub(crate) store: Store,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) driver: Arc<Driver>,
    pub(crate) busy: Busy,
    pub(crate) clock: SystemClock,
    history: StoredHistory,
    listen: SocketAddr,
    processes: Arc<Processes>,
    pub(crate) renewals: Option<Arc<Renewals>>,
    places: Arc<Places>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    ended: Mutex<Option<Result<Option<Failure>, Failure>>>,
    _lock: HostLock,
}

impl LocalHost {
    /// Starts a host on a state directory, or goes on with the one that runs there without its control plane: its
    /// keeper and edge are taken over, and with them every instance.
    ///
    /// # Errors
    /// If another host runs there, the address is in use, the operation log is damaged, or this machine lacks what
    /// instances need.
    pub fn start(config: HostConfig) -> Result<Self, Failure> {
        keep_out_of_dumps();
        let store = Store::open(&config.root).map_err(|e| failure::store(&e))?;
        failure::refuse_memory_disk(&store)?;
        let held = HostLock::take(&store).map_err(|e| failure::store(&e))?;
        let (log, past) = told_secrets::open_log(&store, &held)?;
        what_runs::is_described(&store, &past)?;
        let history = StoredHistory::of(log);
        let waker = Arc::new(Waker::default());
        let processes = Arc::new(Processes::start(&config, &store, waker.clone())?);
        let started = Self::drive_with(config, (store, held), (history, past), waker, processes.clone());
        started.inspect_err(|_| processes.withdraw())
    }

    /// A host with processes, which it goes on with where the `past` ends.
    fn drive_with(
        config: HostConfig,
        (store, held): (Store, HostLock),
        (history, past): (StoredHistory, Past),
        waker: Arc<Waker>,
        processes: Arc<Processes>,
    ) -> Result<Self, Failure> {
        let engine = processes.engine();
        what_runs::is_in_the_log(&store, &*engine, &past)?;
        let (wake, clock) = (waker.clone(), SystemClock);
        let prober = Prober::start(engine.clone(), Arc::new(clock), move || wake.wake())
            .map_err(|e| failure::system("start the thread that asks instances how they are", &e))?;
        let world = World {
            engine: engine.clone(),
            edge: Box::new(processes.edge()),
            health: Box::new(prober),
            history: Box::new(history.clone()),
            shelf: Box::new(store.clone()),
            clock: Box::new(clock),
        };
        let core = Core::new(world, past).map_err(|trouble| failure::cannot_go_on(&trouble))?;
        let driver = Driver::new(core, waker);
        let host = Self {
            listen: processes.address(),
            renewals: config.acme.map(|options| Arc::new(Renewals::new(options, store.clone()))),
            store,
            places: Arc::new(Places::new(engine.clone())),
            engine,
            driver,
            busy: Busy::default(),
            clock,
            history,
            processes,
            threads: Mutex::default(),
            ended: Mutex::default(),
            _lock: held,
        };
        host.drive()?;
        Ok(host)
    }

    fn drive(&self) -> Result<(), Failure> {
        let (turning, listening, supervising) =
            (self.driver.clone(), self.driver.clone(), self.driver.clone());
        let (engine, processes) = (self.engine.clone(), self.processes.clone());
        let mut threads: Vec<(&str, Body)> = vec![
            ("engine", Box::new(move || listening.listen(&*engine))),
            ("processes", Box::new(move || processes.supervise(&supervising))),
        ];
        let (driver, places) = (self.driver.clone(), self.places.clone());
        threads.push(("places", Box::new(move || places.run(&driver))));
        let (driver, store) = (self.driver.clone(), self.store.clone());
        threads.push(("old output", Box::new(move || old_output::run(&store, &driver))));
        if let Some(renewals) = self.renewals.clone() {
            let (driver, processes, clock) = (self.driver.clone(), self.processes.clone(), self.clock);
            threads.push(("certificates", Box::new(move || renewals.run(&driver, &processes, &clock))));
        }
        // Nothing is done before all that it takes is there.
        threads.push(("core", Box::new(move || turning.turn())));
        for (name, body) in threads {
            let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
            let thread = spawned.map_err(|e| failure::system(&format!("start the thread `{name}`"), &e))?;
            lock(&self.threads).push(thread);
        }
        Ok(())
    }

    /// Where the edge listens, as a URL.
    pub fn address(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// Where the edge serves HTTPS, as a URL, if it does.
    pub fn https_address(&self) -> Option<String> {
        self.processes.https_address().map(|address| format!("https://{address}"))
    }

    /// Gives the edge a successor: the program as it is on the disk now. Nobody who is connected notices.
    ///
    /// # Errors
    /// If the successor could not be started; then the edge serves on as before.
    pub fn renew_edge(&self) -> Result<(), Failure> {
        self.has_keeper()?;
        self.processes.renew_edge().map_err(|trouble| failure::no_edge(&trouble))
    }

    /// The socket the API is served on.
    pub fn socket(&self) -> PathBuf {
        self.store.run_dir().join("control.sock")
    }

    /// The state directory.
    pub fn root(&self) -> &std::path::Path {
        self.store.root()
    }

    /// Whether `down` has been carried out, or is being.
    pub fn is_stopping(&self) -> bool {
        self.driver.is_stopped()
    }

    /// Undoes a start that is of no use to anybody: the control plane ends, and with it what it has started. What it found
    /// goes on.
    pub fn withdraw(&self) {
        self.leave();
        self.processes.withdraw();
    }

    /// Ends the control plane and leaves everything else as it is: instances run on, the edge serves on.
    pub fn leave(&self) {
        self.driver.stop();
        self.engine.call_back();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }

    /// Ends every app, instance, and process of this host, and the control plane. What is in flight may go on for
    /// `drain` at most. Who asks again is told how it went the first time. Why the log does not tell of it, if so: nothing
    /// may be left that no command can end.
    ///
    /// # Errors
    /// If something could not be ended; the rest was.
    pub fn down(&self, drain: Millis, by: &Caller) -> Result<Option<Failure>, Failure> {
        let mut ended = lock(&self.ended);
        if let Some(result) = &*ended {
            return result.clone();
        }
        let apps: Vec<AppName> = lock(&self.driver.core).apps().keys().cloned().collect();
        // Before another edge could do what a stuck one did not.
        apps.iter().for_each(|app| self.give_up(app));
        // No route can be taken from one, and it is to end anyway.
        self.processes.end_edge_if_stuck();
        let mut all = Ok(None);
        for app in &apps {
            let down = self.app_down(app, drain, by);
            all = all.and_then(|before| down.map(|unrecorded| before.or(unrecorded)));
        }
        self.leave();
        let processes = self.processes.end().map_err(|trouble| failure::cannot_end(&trouble));
        // What stays of it is found by whoever opens the store next.
        let _ = self.store.write_no_more();
        ended.insert(all.and_then(|unrecorded| processes.map(|()| unrecorded))).clone()
    }

    /// Takes one app off this host. Whatever is under way for it is given up first. Nothing is done to one of which that cannot
    /// be written down; why not.
    fn app_down(&self, app: &AppName, drain: Millis, by: &Caller) -> Result<Option<Failure>, Failure> {
        while !self.driver.is_stopped() {
            let news = self.request(app, Request::Down { drain }, by, &Will::default());
            match self.end_of(&news) {
                Some(News::Refused(Refusal::Busy { .. })) => self.give_up(app),
                Some(News::Refused(Refusal::NothingThere) | News::Ended) | None => return Ok(None),
                Some(News::Refused(refusal @ Refusal::Unrecorded(_))) => {
                    return Ok(Some(Failure::new(ExitCode::Host, refusal.to_string())));
                }
                Some(News::Refused(refusal)) => return Err(serve::refused(refusal)),
                Some(news) => {
                    let trouble = Trouble(format!("{app} could not be taken down: {news:?}"));
                    return Err(failure::cannot_end(&trouble));
                }
            }
            self.driver.pause();
        }
        Ok(None)
    }

    /// The last news of a request; none if nobody will tell any more.
    fn end_of(&self, news: &Receiver<News>) -> Option<News> {
        const LOOK_UP: Duration = Duration::from_millis(100);
        loop {
            match news.recv_timeout(LOOK_UP) {
                Ok(News::Begun(_) | News::Follows(_) | News::Event(_)) => {}
                Ok(last) => return Some(last),
                Err(RecvTimeoutError::Timeout) if !self.driver.is_stopped() => {}
                Err(_) => return None,
            }
        }
    }

    /// Cancels what is under way for an app.
    fn give_up(&self, app: &AppName) {
        let mut core = lock(&self.driver.core);
        let under_way = core.apps().get(app).and_then(|s| s.under_way.as_ref()).map(|u| u.plan.generation);
        if let Some(generation) = under_way {
            core.cancel(generation, "the host was told to end".into());
        }
        drop(core);
        self.driver.waker.wake();
    }

    /// Writes down what is no operation of the core's.
    pub(crate) fn note(&self, record: &Record) -> Result<(), Failure> {
        between("append", || self.history.put(record)).map_err(|e| failure::store(&e))
    }

    fn log_verify(&self) -> Result<Answer, Failure> {
        let (entries, head) = self.history.verify().map_err(|e| failure::store(&e))?;
        Ok(Answer::LogVerified(LogVerifiedAnswer { entries, head }))
    }

    /// Whoever wants something from a keeper that stands still is told so, and does not wait with it; nor does whoever wants
    /// something from the core while that waits for it.
    fn can_do(&self, command: &Command) -> Result<(), Failure> {
        match command {
            Command::Deploy { .. }
            | Command::Rollback { .. }
            | Command::Diff { .. }
            | Command::Commit { .. }
            | Command::Gc { .. } => self.has_keeper(),
            Command::Down => {
                self.processes.keeper_is_stopped().map_or(Ok(()), |why| Err(failure::needs_keeper(why)))
            }
            // The edge tells its figures by itself.
            Command::Metrics => Ok(()),
            _ => match self.processes.silence_of_keeper() {
                Some(silence) if !self.driver.is_free() => Err(failure::waits_for_keeper(silence)),
                _ => Ok(()),
            },
        }
    }

    /// Whether there is a keeper to begin something with: it is asked for a word.
    fn has_keeper(&self) -> Result<(), Failure> {
        let silence = self.processes.keeper_cannot_answer();
        silence.map_or(Ok(()), |silence| Err(failure::needs_keeper(silence)))
    }

    /// Hands out all that was ever written down, oldest first. It may be more than is good to hold in memory.
    pub(crate) fn each_record(&self, each: &mut dyn FnMut(Record)) -> Result<(), Failure> {
        self.history.read(each).map_err(|e| failure::store(&e))
    }
}

/// What a thread does.
type Body = Box<dyn FnOnce() + Send>;

/// How long what is in flight may go on when a host is told to end.
const DOWN_DRAIN: Millis = Millis(5_000);

/// Secrets pass through this process; keys of certificates do through the edge, which inherits the limit.
fn keep_out_of_dumps() {
    // Neither can fail but on a kernel without the call, which Kiln does not run on.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Not 0: of that the kernel takes no notice where dumps are handed to a program (core(5)).
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) });
}

fn precedence(supersede: bool) -> Precedence {
    if supersede { Precedence::Supersedes } else { Precedence::Yields }
}

impl Host for LocalHost {
    fn run(&self, command: Command, by: Caller, events: &dyn EventSink) -> Result<Answer, Failure> {
        self.can_do(&command)?;
        match command {
            Command::Deploy { dir, locked, supersede } => {
                self.deploy(&dir, (locked, precedence(supersede)), &by, events)
            }
            Command::Plan { dir } => self.plan(&dir, events),
            Command::Rollback { app, release, schema, supersede } => {
                self.rollback(app, release.as_deref(), (schema, precedence(supersede)), &by, events)
            }
            Command::Wait { app, operation } => self.wait(app, operation, events),
            Command::Cancel { app } => self.cancel(app, &by),
            Command::Pause { app, wait } => self.pause(app, wait, &by),
            Command::Resume { app } => self.resume(app, &by),
            Command::Status { app } => self.status(app),
            Command::Releases { app } => self.releases(app),
            Command::ReleaseShow { app, release } => self.release_show(app, &release),
            Command::ReleaseDiff { app, from, to } => self.release_diff(app, &from, &to),
            Command::Instances { app, all } => self.instances(app, all),
            Command::Diff { instance } => self.diff(&instance),
            Command::Commit { instance, name } => self.commit(&instance, name, &by),
            Command::Log { app, limit } => self.log(app, limit),
            Command::Export { app, release, file, secrets_to } => {
                self.export(app, &release, &file, &secrets_to)
            }
            Command::Import { file, identity, without_secrets } => {
                self.import(&file, identity.as_ref(), without_secrets, (&by, events))
            }
            Command::Pin { app, release } => self.pin(app, &release, pins::Pin::Pinned, &by),
            Command::Unpin { app, release } => self.pin(app, &release, pins::Pin::Unpinned, &by),
            Command::Gc { keep, older_than, bytes, images_older_than, caches, dry_run } => {
                let before = older_than.map(|span| Timestamp(self.clock.now().0.saturating_sub(span.0)));
                self.gc(&gc::Wanted { keep, before, bytes, images_older_than, caches, dry_run }, &by)
            }
            Command::LogVerify => self.log_verify(),
            Command::SecretSet { app, name, value, new_key } => {
                self.secret_set(app, name, &value, secrets::LostKey::of(new_key), &by)
            }
            Command::SecretList { app } => self.secret_list(app, events),
            Command::SecretRemove { app, name, version } => self.secret_remove(app, name, version, &by),
            Command::Logs { app, service, instance, follow, tail } => {
                self.logs(&logs::Wanted { app, service, instance, follow, tail }, events)
            }
            Command::Metrics => {
                self.processes.metrics().map(Answer::Metrics).map_err(|trouble| failure::no_figures(&trouble))
            }
            Command::Audit { app, package } => self.audit(app, package),
            Command::Verify { repair } => self.verify(repair),
            Command::Down => self
                .down(DOWN_DRAIN, &by)
                .map(|unrecorded| unrecorded.map_or(Answer::Done, Answer::Unrecorded)),
        }
    }

    fn exec(&self, request: &ExecRequest, by: Caller) -> Result<Session, Failure> {
        self.has_keeper()?;
        LocalHost::exec(self, request, &by)
    }
}

impl Drop for LocalHost {
    fn drop(&mut self) {
        self.leave();
    }
}
