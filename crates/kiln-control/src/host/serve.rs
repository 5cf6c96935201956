//! Having the core make a release serve, and telling whoever asked how it goes.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use kiln_model::{
    Answer, AppName, AppState, DeployedAnswer, Event, ExitCode, Failure, InstanceId, OperationKind, Release,
    ReleaseId, RouteConflict, Stamped, Traffic,
};

use super::{LocalHost, failure, preflight, secrets};
use crate::contract::{Caller, EventSink, Presence};
use crate::core::{News, Precedence, Refusal, Request, Will};
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

/// How a release is to serve.
pub(super) struct Wish {
    pub(super) kind: OperationKind,
    /// The version of the schema the data has, if it is not the one the live release left it at.
    pub(super) schema: Option<u32>,
    pub(super) precedence: Precedence,
    /// As long as it is wanted.
    pub(super) will: Will,
}

/// How something that was followed ended, if it ended well.
pub(super) struct Followed {
    /// Whether it was so before.
    pub(super) unchanged: bool,
    /// What did not go well after the switch.
    pub(super) warnings: Vec<String>,
}

/// What somebody has to do with an operation.
#[derive(Clone, Copy)]
enum Part {
    /// It has not begun yet.
    Waits,
    /// It is done for them.
    Leads,
    /// It is done for somebody else.
    Follows,
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
        wish: Wish,
        by: &Caller,
        asker: &Asker<'_>,
        stage: &mut Stage,
        begun: Instant,
    ) -> Result<Answer, Failure> {
        stage.step = "plan".into();
        let (app, id) = (release.app.clone(), release.id());
        if let Some(warning) = super::room::warning(&self.store) {
            asker.tell(Event::Warned { warning });
        }
        let Wish { kind, schema, precedence, will } = wish;
        // Whoever has left meanwhile wants nothing to be begun.
        self.look_after(Part::Waits, asker, &will)?;
        let request = Request::Serve { release: Box::new(release), kind, schema, precedence };
        let news = self.request(&app, request, by, &will);
        let Followed { unchanged, warnings } = self.follow(&news, asker, stage, Some(&id), &will)?;
        let (took, address) = (begun.elapsed(), self.address());
        let event = Event::Deployed {
            release: id.clone(),
            address: address.clone(),
            unchanged,
            switched_micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            warnings: warnings.clone(),
        };
        asker.tell(event);
        let switched_millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Ok(Answer::Deployed(DeployedAnswer { release: id, address, unchanged, switched_millis, warnings }))
    }

    /// Refuses what may not serve, or cannot, before anything of it is kept: its routes are another app's, the data is of
    /// another schema, this host cannot carry it. What is doubtful about it.
    pub(super) fn admit(
        &self,
        release: &Release,
        kind: OperationKind,
        schema: Option<u32>,
    ) -> Result<Vec<String>, Failure> {
        let core = lock(&self.driver.core);
        core.conflict(release).map_err(|e| conflict(e, kind))?;
        let apps = core.apps().clone();
        let limits = preflight::limits(core.apps(), |id| core.release(id));
        drop(core);
        let state = apps.get(&release.app).cloned().unwrap_or_default();
        release.works_with(schema.or(state.schema)).map_err(|e| refused(Refusal::Schema(e)))?;
        let mut doubts = preflight::certificates::doubts(release, self.processes.names_of_certificates());
        doubts.extend(preflight::needs::doubts(release));
        doubts.extend(self.processes.doubt(release));
        if state.traffic.live() != Some(&release.id()) {
            doubts.extend(self.preflight(release, &state, limits, kind)?);
        }
        Ok(doubts)
    }

    /// Refuses what cannot succeed beside instances with these `limits` together; what is doubtful.
    fn preflight(
        &self,
        release: &Release,
        state: &AppState,
        limits: u64,
        kind: OperationKind,
    ) -> Result<Option<String>, Failure> {
        // Whoever goes back to what is still up needs no key for it.
        secrets::open(
            &self.store,
            release,
            preflight::new_services(release, state).map(|(_, service)| service),
        )?;
        preflight::images::check(release, state, &self.store)?;
        let doubt = preflight::check(release, state, limits, &self.store, &*self.engine)?;
        let ports = preflight::ports::check(release, &self.ports_held(), self.listen.ip());
        ports.map_err(|taken| match kind {
            // Nothing in kiln.toml changes what is gone back to.
            OperationKind::Rollback => taken.hint(
                "`ss -ltnp` shows who listens there: have it end, or go back to a release without that route (`kiln releases`)",
            ),
            _ => taken,
        })?;
        // What served over its stores before may do so again; whoever goes back has no time to lose.
        match kind {
            OperationKind::Deploy => {
                preflight::stores::check(release, |host, address| self.places.settle(host, address))?;
            }
            _ => self.places.learn(release),
        }
        Ok(doubt)
    }

    /// The ports the edge listens on for routes of releases that serve.
    fn ports_held(&self) -> BTreeSet<u16> {
        let core = lock(&self.driver.core);
        core.published().iter().flat_map(|table| &table.tcp).map(|route| route.port).collect()
    }

    /// Asks the core for something, as long as that is wanted.
    pub(crate) fn request(
        &self,
        app: &AppName,
        request: Request,
        by: &Caller,
        will: &Will,
    ) -> Receiver<News> {
        let (to, news) = channel();
        let mut core = lock(&self.driver.core);
        core.request_as_long_as_wanted(app.clone(), request, by.author(), to, will.clone());
        drop(core);
        self.driver.waker.wake();
        news
    }

    /// Passes news on until what is asked for is done.
    pub(super) fn follow(
        &self,
        news: &Receiver<News>,
        asker: &Asker<'_>,
        stage: &mut Stage,
        release: Option<&ReleaseId>,
        will: &Will,
    ) -> Result<Followed, Failure> {
        const LOOK_UP: Duration = Duration::from_millis(100);
        let (mut part, mut failed_hook, mut is_silent) = (Part::Waits, None, false);
        loop {
            match news.recv_timeout(LOOK_UP) {
                Ok(News::Begun(_)) => part = Part::Leads,
                Ok(News::Follows(_)) => part = Part::Follows,
                Ok(News::Event(stamped)) => {
                    match &stamped.event {
                        Event::StepBegun { step } => stage.step.clone_from(step),
                        Event::HookEnded { instance, problem: Some(_), .. } => {
                            failed_hook = Some(instance.clone());
                        }
                        _ => {}
                    }
                    asker.events.event(stamped);
                    // There may be news for a long time without a pause.
                    self.look_after(part, asker, will)?;
                }
                Ok(News::Serves { unchanged, warnings, .. }) => return Ok(Followed { unchanged, warnings }),
                Ok(News::Ended) => return Ok(Followed { unchanged: false, warnings: Vec::new() }),
                Ok(News::Failed { step, cause }) => {
                    stage.step = step;
                    let failure = failure::not_deployed(release, cause);
                    return Err(self.with_output(failure, failed_hook.as_ref()));
                }
                Ok(News::Superseded { by, who }) => {
                    return Err(failure::superseded(&format!("operation {by} of {who}")));
                }
                Ok(News::Refused(refusal)) => return Err(refused(refusal)),
                Err(RecvTimeoutError::Timeout) if self.driver.is_stopped() => {
                    return Err(failure::shutting_down());
                }
                Err(RecvTimeoutError::Timeout) => {
                    let silence = self.processes.silence_of_keeper();
                    if let Some(warning) = silence.clone().filter(|_| !is_silent) {
                        asker.tell(Event::Warned { warning });
                    }
                    is_silent = silence.is_some();
                    self.look_after(part, asker, will)?;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(failure::shutting_down()),
            }
        }
    }

    /// What a hook that failed has written last says more than its exit code.
    fn with_output(&self, mut failure: Failure, hook: Option<&InstanceId>) -> Failure {
        let Some(hook) = hook else { return failure };
        let tail = self.tail(hook, 12);
        if !tail.is_empty() {
            failure = failure.because(format!("its output ends with:\n{}", tail.join("\n")));
        }
        failure.hint(format!("`kiln logs --instance {hook}` shows all of its output"))
    }

    /// Draws the consequences if whoever asked is gone.
    fn look_after(&self, part: Part, asker: &Asker<'_>, will: &Will) -> Result<(), Failure> {
        let why = match asker.events.presence() {
            Presence::Here => return Ok(()),
            Presence::GaveUp => "it was cancelled by whoever asked for it",
            Presence::Gone => "whoever asked for it has gone, and nobody else waits for it",
        };
        match part {
            // They give nothing up by leaving, and do not count as one who waits any more.
            Part::Follows => Err(failure::cancelled()),
            Part::Waits | Part::Leads => {
                // How it ends is told as it always is.
                will.give_up(why);
                self.driver.waker.wake();
                Ok(())
            }
        }
    }

    /// Says what still serves, and tells whoever listens that it went wrong.
    pub(super) fn report(&self, mut failure: Failure, asker: &Asker<'_>, stage: Stage) -> Failure {
        let core = lock(&self.driver.core);
        let state = stage.app.as_ref().and_then(|app| core.apps().get(app));
        let traffic = state.map(|state| state.traffic.clone()).unwrap_or_default();
        let goes_on = self.driver.is_stopped() && state.is_some_and(|state| state.under_way.is_some());
        drop(core);
        let serving = traffic.live().cloned();
        let mut serves =
            stage.app.as_ref().map_or("what serves is as it was".into(), |app| served(app, &traffic));
        if goes_on {
            serves.push_str("; the next `kiln serve` goes on with what is under way");
        }
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

/// What serves an app now.
fn served(app: &AppName, traffic: &Traffic) -> String {
    match traffic {
        Traffic::Dark => format!("nothing serves {app}"),
        Traffic::Settled { live } => format!("{app} is served by {} as before", live.short()),
        Traffic::Shifting { from, to, share } => {
            let percent = (share.ratio() * 100.0).round();
            format!("{app} is served by {} and, to {percent}%, by {}", from.short(), to.short())
        }
    }
}

/// Nothing in kiln.toml changes what is gone back to.
fn conflict(conflict: RouteConflict, kind: OperationKind) -> Failure {
    let failure = refused(Refusal::Conflict(conflict));
    match kind {
        OperationKind::Rollback => failure.hint(
            "go back to a release without that route (`kiln releases` lists them), or first deploy the other app without it",
        ),
        _ => failure,
    }
}

pub(super) fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Busy { .. } => Failure::new(ExitCode::Busy, refusal.to_string()).hint(super::busy::WAYS),
        Refusal::Conflict(_) => Failure::new(ExitCode::Spec, refusal.to_string())
            .hint("give the route another host, path or `tcp` port in kiln.toml"),
        Refusal::Schema(wrong) => Failure::new(ExitCode::Policy, wrong.to_string()).hint(wrong.hint()),
        Refusal::GivenUp(why) => failure::cancelled().because(why),
        Refusal::NothingThere => Failure::new(ExitCode::Usage, refusal.to_string()),
        Refusal::Unsound(_) => Failure::new(ExitCode::Bug, refusal.to_string()),
        Refusal::Unrecorded(_) => Failure::new(ExitCode::Host, refusal.to_string())
            .hint("nothing was begun; try again when what is in its way is gone"),
    }
}
