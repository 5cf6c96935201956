//! Having the core make a release serve, and telling whoever asked how it goes.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use kiln_model::{
    Answer, AppName, DeployedAnswer, Event, ExitCode, Failure, Generation, OperationKind, Release, ReleaseId,
    Stamped,
};

use super::{LocalHost, failure, preflight};
use crate::contract::{Caller, EventSink};
use crate::core::{News, Refusal, Request};
use crate::sync::lock;
use crate::world::Clock;

/// Whoever asked for something and may have left meanwhile.
pub(crate) struct Asker<'a> {
    pub(crate) events: &'a dyn EventSink,
    pub(crate) clock: &'a dyn Clock,
}

impl Asker<'_> {
    pub(crate) fn tell(&self, event: Event) {
        self.events.event(Stamped { at: self.clock.now(), event });
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.events.gone()
    }

    pub(crate) fn stop_if_gone(&self) -> Result<(), Failure> {
        if self.is_gone() { Err(failure::cancelled()) } else { Ok(()) }
    }
}

/// How far a deploy came before it failed, for the event that says so.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) step: String,
    pub(super) release: Option<ReleaseId>,
    pub(super) app: Option<AppName>,
}

impl LocalHost {
    /// Has the core make a release serve, and waits until it does.
    pub(super) fn serve(
        &self,
        release: Release,
        (kind, schema): (OperationKind, Option<u32>),
        by: &Caller,
        asker: &Asker<'_>,
        stage: &mut Stage,
        begun: Instant,
    ) -> Result<Answer, Failure> {
        stage.step = "plan".into();
        let (app, id) = (release.app.clone(), release.id());
        let state = lock(&self.driver.core).apps().get(&app).cloned().unwrap_or_default();
        preflight::check(&release, &state, &self.store)?;
        let news = self.request(&app, Request::Serve { release: Box::new(release), kind, schema }, by);
        let unchanged = self.follow(&news, asker, stage, &id)?;
        let address = self.address();
        asker.tell(Event::Deployed { release: id.clone(), address: address.clone(), unchanged });
        let switched_millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Answer::Deployed(DeployedAnswer { release: id, address, unchanged, switched_millis }))
    }

    /// Asks the core for something.
    pub(crate) fn request(&self, app: &AppName, request: Request, by: &Caller) -> Receiver<News> {
        let (to, news) = channel();
        lock(&self.driver.core).request(app.clone(), request, by.name.clone(), to);
        self.driver.waker.wake();
        news
    }

    /// Passes news on until the release serves; whether it did before.
    fn follow(
        &self,
        news: &Receiver<News>,
        asker: &Asker<'_>,
        stage: &mut Stage,
        release: &ReleaseId,
    ) -> Result<bool, Failure> {
        const LOOK_UP: Duration = Duration::from_millis(100);
        let mut generation = None;
        loop {
            match news.recv_timeout(LOOK_UP) {
                Ok(News::Begun(begun)) => generation = Some(begun),
                Ok(News::Event(stamped)) => {
                    if let Event::StepBegun { step } = &stamped.event {
                        stage.step.clone_from(step);
                    }
                    asker.events.event(stamped);
                }
                Ok(News::Serves { unchanged, .. }) => return Ok(unchanged),
                Ok(News::Ended) => return Ok(false),
                Ok(News::Failed { step, cause }) => {
                    stage.step = step;
                    return Err(failure::not_deployed(release, cause));
                }
                Ok(News::Refused(refusal)) => return Err(refused(refusal)),
                Err(RecvTimeoutError::Timeout) if self.driver.is_stopped() => {
                    return Err(failure::shutting_down());
                }
                Err(RecvTimeoutError::Timeout) => self.cancel_if_gone(generation, asker),
                Err(RecvTimeoutError::Disconnected) => return Err(failure::shutting_down()),
            }
        }
    }

    fn cancel_if_gone(&self, generation: Option<Generation>, asker: &Asker<'_>) {
        if let (Some(generation), true) = (generation, asker.is_gone()) {
            lock(&self.driver.core).cancel(generation, "it was cancelled by whoever asked for it".into());
            self.driver.waker.wake();
        }
    }

    /// Says what still serves, and tells whoever listens that it went wrong.
    pub(super) fn report(&self, mut failure: Failure, asker: &Asker<'_>, stage: Stage) -> Failure {
        let core = lock(&self.driver.core);
        let serving = stage.app.as_ref().and_then(|app| core.apps().get(app)?.traffic.live().cloned());
        drop(core);
        let serves = match (&serving, &stage.app) {
            (Some(release), Some(app)) => format!("{app} is served by {} as before", release.short()),
            (None, Some(app)) => format!("nothing serves {app}: it was not deployed before"),
            (_, None) => "what serves is as it was".into(),
        };
        failure.hint = Some(match failure.hint.take() {
            Some(hint) => format!("{hint}; {serves}"),
            None => serves,
        });
        let cause =
            std::iter::once(&failure.message).chain(&failure.causes).cloned().collect::<Vec<_>>().join(": ");
        let (release, step) = (stage.release, stage.step);
        asker.tell(Event::Failed { release, serving, step, cause, failure: failure.clone() });
        failure
    }
}

pub(super) fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Busy { .. } => Failure::new(ExitCode::Busy, refusal.to_string())
            .hint("`kiln status` shows how far it is; try again when it has ended"),
        Refusal::Conflict(_) => Failure::new(ExitCode::Spec, refusal.to_string())
            .hint("give the route another host or path in kiln.toml"),
        Refusal::Schema(wrong) => Failure::new(ExitCode::Policy, wrong.to_string()).hint(wrong.hint()),
        Refusal::NothingThere => Failure::new(ExitCode::Usage, refusal.to_string()),
        Refusal::Unsound(_) => Failure::new(ExitCode::Bug, refusal.to_string()),
        Refusal::Unrecorded(_) => Failure::new(ExitCode::Host, refusal.to_string())
            .hint("is there space on the disk of the state directory?"),
    }
}
