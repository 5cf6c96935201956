//! The gate between baked and releasable: checks of an image in throwaway instances of that very image.

mod throwaway;

use std::time::{Duration, Instant};

use kiln_engine::Engine;
use kiln_model::{
    AppName, Check, Event, Exit, ExitCode, Failure, ImageName, ImageRecord, InstanceId, Millis, Probe,
};
use kiln_store::boundary::stored;
use serde::{Deserialize, Serialize};

use super::LocalHost;
use super::serve::Asker;
use crate::health::one_socket;
use crate::probe;
pub(in crate::host) use throwaway::is_throwaway;

/// How often an instance that is starting is asked.
const EAGER: Duration = Duration::from_millis(15);

/// What is kept of a check that an image has passed.
#[derive(Debug, Serialize, Deserialize)]
struct Passed {
    check: String,
    millis: u64,
}

/// How often a check is begun whose instance was lost for a reason that says nothing of the image.
const ATTEMPTS: u32 = 3;

/// Why an image has not passed a check.
enum Verdict {
    /// It is not what the check expects: why, and the instance it showed in, if it took one.
    Failed { cause: String, instance: Option<InstanceId> },
    /// Nothing was learnt of the image: its instance, or who makes them, was lost.
    Unlearnt { why: String },
    /// There is nothing an instance could be made of.
    Lacking(Failure),
}

impl Verdict {
    fn failed(cause: String) -> Self {
        Self::Failed { cause, instance: None }
    }

    /// Of an instance that ended too early, or not well.
    fn of(exit: &Exit, cause: String, instance: &InstanceId) -> Self {
        match exit {
            // Its keeper was killed, and nobody saw the end.
            Exit::Unknown => Self::Unlearnt { why: format!("{instance} {exit}") },
            _ => Self::Failed { cause, instance: Some(instance.clone()) },
        }
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
                self.check_until_learnt(app, name, image, check, asker)?;
                let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                let passed = Passed { check: check.to_string(), millis };
                let put = || self.store.put_check_result(&image.digest, &key, &passed);
                stored(|| self.store.root().join("images"), put).map_err(|e| super::failure::store(&e))?;
            }
            let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            asker.tell(Event::Checked { image: name.to_string(), check: check.to_string(), cached, millis });
        }
        Ok(())
    }

    /// Runs a check until something is known of the image.
    fn check_until_learnt(
        &self,
        app: &AppName,
        name: &ImageName,
        image: &ImageRecord,
        check: &Check,
        asker: &Asker<'_>,
    ) -> Result<(), Failure> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let Err(verdict) = self.check(app, image, check, asker) else { return Ok(()) };
            // Whoever has called it off has no use for a verdict.
            asker.stop_if_gone()?;
            match verdict {
                Verdict::Failed { cause, instance } => {
                    return Err(self.refusal(name, check, cause, instance));
                }
                Verdict::Lacking(failure) => return Err(failure),
                Verdict::Unlearnt { .. } if attempts < ATTEMPTS && !self.driver.is_stopped() => {}
                Verdict::Unlearnt { why } => return Err(unlearnt(name, check, why)),
            }
        }
    }

    fn refusal(
        &self,
        name: &ImageName,
        check: &Check,
        cause: String,
        instance: Option<InstanceId>,
    ) -> Failure {
        let message = format!("image {name} failed its check `{check}`; nothing was deployed");
        let mut failure = Failure::new(ExitCode::Check, message).because(cause);
        let Some(instance) = instance else { return failure };
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
                let handle = self.store.handle(&image.digest);
                let handle = handle.map_err(|e| Verdict::Lacking(super::failure::store(&e)))?;
                let asked = kiln_bake::inspect::FileCheck {
                    path,
                    mode: *mode,
                    owner: owner.as_deref(),
                    contains: contains.as_deref(),
                };
                kiln_bake::inspect::check_file(&handle, &asked).map_err(Verdict::failed)
            }
            Check::Package { name, version } => {
                package(image, name, version.as_deref()).map_err(Verdict::failed)
            }
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
        let throwaway = self.throwaway(app, image, Some(argv))?;
        let deadline = Instant::now() + timeout.duration();
        match throwaway.wait(deadline, asker)? {
            Some(exit) if exit.is_success() => Ok(()),
            Some(exit) => Err(Verdict::of(&exit, format!("it {exit}"), throwaway.id())),
            None => Err(throwaway.verdict(format!("it had not ended after {timeout}"))),
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
        let throwaway = self.throwaway(app, image, None)?;
        let deadline = Instant::now() + timeout.duration();
        loop {
            let Err(problem) = ask_once(&*self.engine, throwaway.id(), port, question, deadline) else {
                return Ok(());
            };
            // Its end is also what paces the questions.
            let next = (Instant::now() + EAGER).min(deadline);
            if let Some(exit) = throwaway.wait(next, asker)? {
                let cause = format!("the instance {exit} before it answered");
                return Err(Verdict::of(&exit, cause, throwaway.id()));
            }
            if asker.is_gone() || Instant::now() >= deadline {
                throwaway.is_still_there()?;
                let cause = format!("no such answer within {timeout}; the last one: {problem}");
                return Err(throwaway.verdict(cause));
            }
        }
    }
}

fn unlearnt(name: &ImageName, check: &Check, why: String) -> Failure {
    let message = format!("whether image {name} passes its check `{check}` could not be found out");
    Failure::new(ExitCode::Host, message).because(why).hint(
        "this says nothing of the image: deploy again; run/keeper.log of the state directory may tell more",
    )
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
