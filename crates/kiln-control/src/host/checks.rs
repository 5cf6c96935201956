//! The gate between baked and releasable: checks of an image in throwaway instances of that very image.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kiln_engine::Engine;
use kiln_model::{
    AppName, ByteSize, Check, Event, Exit, ExitCode, Failure, ImageName, ImageRecord, InstanceId,
    InstanceOrder, InstanceState, Limits, Millis, Probe,
};
use serde::{Deserialize, Serialize};

use super::LocalHost;
use super::serve::Asker;
use crate::health::one_socket;
use crate::probe;
use crate::world::Clock;

/// What a throwaway instance may use; generous, for a check is no place to run out of memory.
const LIMITS: Limits = Limits { memory: ByteSize(1 << 30), cpu_millis: 2000, pids: 512, io: None };

/// How often an instance that is starting is asked.
const EAGER: Duration = Duration::from_millis(15);

/// What is kept of a check that an image has passed.
#[derive(Debug, Serialize, Deserialize)]
struct Passed {
    check: String,
    millis: u64,
}

/// A check that failed: why, and the instance it failed in, if it took one.
struct Verdict {
    cause: String,
    instance: Option<InstanceId>,
}

impl From<String> for Verdict {
    fn from(cause: String) -> Self {
        Self { cause, instance: None }
    }
}

impl LocalHost {
    /// Runs the checks an image has not passed before.
    pub(crate) fn check_image(
        &self,
        app: &AppName,
        name: &ImageName,
        image: &ImageRecord,
        checks: &[Check],
        asker: &Asker<'_>,
    ) -> Result<(), Failure> {
        for check in checks {
            asker.stop_if_gone()?;
            let key = check.key();
            let passed: Option<Passed> =
                self.store.check_result(&image.digest, &key).map_err(|e| super::failure::store(&e))?;
            let cached = passed.is_some();
            let begun = Instant::now();
            if !cached {
                self.check(app, image, check, asker).map_err(|v| self.refusal(name, check, v))?;
                let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                let passed = Passed { check: check.to_string(), millis };
                self.store
                    .put_check_result(&image.digest, &key, &passed)
                    .map_err(|e| super::failure::store(&e))?;
            }
            let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            asker.tell(Event::Checked { image: name.to_string(), check: check.to_string(), cached, millis });
        }
        Ok(())
    }

    fn refusal(&self, name: &ImageName, check: &Check, verdict: Verdict) -> Failure {
        let message = format!("image {name} failed its check `{check}`; nothing was deployed");
        let mut failure = Failure::new(ExitCode::Check, message).because(verdict.cause);
        let Some(instance) = verdict.instance else { return failure };
        let tail = self.tail(&instance, 12);
        if !tail.is_empty() {
            failure = failure.because(format!("its output ends with:\n{}", tail.join("\n")));
        }
        failure.hint(format!("`kiln logs --instance {instance}` shows all of its output"))
    }

    fn check(
        &self,
        app: &AppName,
        image: &ImageRecord,
        check: &Check,
        asker: &Asker<'_>,
    ) -> Result<(), Verdict> {
        match check {
            Check::Run { argv, timeout } => self.run_check(app, image, argv, *timeout, asker),
            Check::Http { probe, port, timeout } => {
                self.probe_check(app, image, &Probe::Http(probe.clone()), *port, *timeout, asker)
            }
            Check::Port { port, timeout } => {
                self.probe_check(app, image, &Probe::Tcp, *port, *timeout, asker)
            }
            Check::File { path, mode, owner, contains } => {
                let handle = self.store.handle(&image.digest).map_err(|e| e.to_string())?;
                let asked = kiln_bake::inspect::FileCheck {
                    path,
                    mode: *mode,
                    owner: owner.as_deref(),
                    contains: contains.as_deref(),
                };
                kiln_bake::inspect::check_file(&handle, &asked).map_err(Verdict::from)
            }
            Check::Package { name, version } => {
                package(image, name, version.as_deref()).map_err(Verdict::from)
            }
        }
    }

    /// A name nothing had before: the moment tells control planes apart, the number instances of one.
    fn throwaway_id(&self, image: &ImageRecord) -> InstanceId {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (moment, number) = (self.clock.now().0, MADE.fetch_add(1, Ordering::Relaxed));
        format!("check-{}-{moment}-{number}", image.digest.short())
            .parse()
            .expect("letters, digits and dashes")
    }

    fn order(&self, app: &AppName, image: &ImageRecord) -> Result<InstanceOrder, Verdict> {
        let handle = self.store.handle(&image.digest).map_err(|e| e.to_string())?;
        Ok(InstanceOrder {
            id: self.throwaway_id(image),
            app: app.clone(),
            service: None,
            release: None,
            image: handle,
            run: image.run.clone(),
            env: image.run.env.clone(),
            limits: LIMITS,
            volatile: image.volatile.clone(),
            capabilities: Default::default(),
            secrets: Vec::new(),
            needs: Vec::new(),
        })
    }

    /// Starts a throwaway instance; it is thrown away when the value is dropped.
    fn throwaway(&self, order: InstanceOrder) -> Result<Throwaway<'_>, Verdict> {
        let id = order.id.clone();
        self.driver.board.expect(&id);
        let throwaway = Throwaway { host: self, id: id.clone() };
        let made = self.engine.create(&[order]).map_err(|e| e.to_string())?;
        self.driver.board.post(&made);
        match made.into_iter().next().map(|s| s.state) {
            Some(InstanceState::Ended { exit: exit @ Exit::NotStarted { .. } }) => {
                Err(Verdict { cause: exit.to_string(), instance: None })
            }
            _ => Ok(throwaway),
        }
    }

    fn run_check(
        &self,
        app: &AppName,
        image: &ImageRecord,
        argv: &[String],
        timeout: Millis,
        asker: &Asker<'_>,
    ) -> Result<(), Verdict> {
        let mut order = self.order(app, image)?;
        order.run.argv = argv.to_vec();
        let throwaway = self.throwaway(order)?;
        let deadline = Instant::now() + timeout.duration();
        let exit = self.driver.board.wait(&throwaway.id, deadline, &|| asker.is_gone());
        let instance = Some(throwaway.id.clone());
        match exit {
            Some(exit) if exit.is_success() => Ok(()),
            Some(exit) => Err(Verdict { cause: format!("it {exit}"), instance }),
            None => Err(Verdict { cause: format!("it had not ended after {timeout}"), instance }),
        }
    }

    fn probe_check(
        &self,
        app: &AppName,
        image: &ImageRecord,
        question: &Probe,
        port: u16,
        timeout: Millis,
        asker: &Asker<'_>,
    ) -> Result<(), Verdict> {
        let throwaway = self.throwaway(self.order(app, image)?)?;
        let deadline = Instant::now() + timeout.duration();
        let verdict = |cause| Verdict { cause, instance: Some(throwaway.id.clone()) };
        loop {
            let Err(problem) = ask_once(&*self.engine, &throwaway.id, port, question, deadline) else {
                return Ok(());
            };
            // Its end is also what paces the questions.
            let next = (Instant::now() + EAGER).min(deadline);
            if let Some(exit) = self.driver.board.wait(&throwaway.id, next, &|| asker.is_gone()) {
                return Err(verdict(format!("the instance {exit} before it answered")));
            }
            if asker.is_gone() || Instant::now() >= deadline {
                return Err(verdict(format!("no such answer within {timeout}; the last one: {problem}")));
            }
        }
    }
}

fn ask_once(
    engine: &dyn Engine,
    id: &InstanceId,
    port: u16,
    question: &Probe,
    deadline: Instant,
) -> probe::Answered {
    let socket = one_socket(engine, id)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let left = deadline.saturating_duration_since(Instant::now());
    tokio::task::LocalSet::new().block_on(&runtime, async {
        match tokio::time::timeout(left, probe::ask(socket, port, question)).await {
            Ok(answered) => answered,
            Err(_) => Err("no answer".into()),
        }
    })
}

fn package(image: &ImageRecord, name: &str, version: Option<&str>) -> Result<(), String> {
    let Some(package) = image.packages.iter().find(|p| p.name == name) else {
        return Err(format!("package {name} is not in the image"));
    };
    let fits = |wanted: &str| match wanted.strip_suffix('*') {
        Some(prefix) => package.version.starts_with(prefix),
        None => package.version == wanted,
    };
    match version {
        Some(wanted) if !fits(wanted) => {
            Err(format!("package {name} is {}, expected {wanted}", package.version))
        }
        _ => Ok(()),
    }
}

/// An instance that exists for one check.
struct Throwaway<'a> {
    host: &'a LocalHost,
    id: InstanceId,
}

impl Drop for Throwaway<'_> {
    fn drop(&mut self) {
        let ids = std::slice::from_ref(&self.id);
        // If the keeper is gone, so is the instance; a later start of control removes what is left over.
        let _ = self.host.engine.kill(ids);
        let _ = self.host.engine.forget(ids);
        self.host.driver.board.forget(&self.id);
    }
}
