//! Deploy and rollback: everything before the core is asked, and what it is asked for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use kiln_model::{
    Answer, AppName, BakedImage, DeployedAnswer, Event, ExitCode, Failure, Generation, ImageName,
    ImageRecord, OperationKind, PlanAnswer, PlannedStep, Release, ReleaseId, Stamped,
};

use super::board::lock;
use super::{LocalHost, failure};
use crate::contract::{Caller, EventSink};
use crate::core::{News, Refusal, Request};
use crate::project::Project;
use crate::world::Clock;
use crate::{changes, pipeline};

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
struct Stage {
    step: String,
    release: Option<ReleaseId>,
    app: Option<AppName>,
}

impl LocalHost {
    pub(crate) fn deploy(
        &self,
        dir: &Path,
        locked: bool,
        by: &Caller,
        events: &dyn EventSink,
    ) -> Result<Answer, Failure> {
        let asker = Asker { events, clock: &self.clock };
        let mut stage = Stage { step: "read the spec".into(), ..Stage::default() };
        let result = self.try_deploy(dir, locked, by, &asker, &mut stage);
        result.map_err(|failure| self.report(failure, &asker, stage))
    }

    fn try_deploy(
        &self,
        dir: &Path,
        locked: bool,
        by: &Caller,
        asker: &Asker<'_>,
        stage: &mut Stage,
    ) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let project = Project::load(dir)?;
        let app = project.spec.app.clone();
        stage.app = Some(app.clone());
        let _turn = self.busy.take(&app, "deploy", &by.name, self.clock.now())?;
        let release = self.make_release(&project, locked, asker, stage)?;
        self.serve(release, OperationKind::Deploy, by, asker, stage, begun)
    }

    /// Bakes and checks; puts the release on the shelf.
    fn make_release(
        &self,
        project: &Project,
        locked: bool,
        asker: &Asker<'_>,
        stage: &mut Stage,
    ) -> Result<Release, Failure> {
        stage.step = "bake".into();
        let baked = pipeline::bake(project, &self.store, locked, asker.events, asker.clock)?;
        stage.step = "check".into();
        for (name, spec) in &project.spec.images {
            self.check_image(&project.spec.app, name, &baked[name].record, &spec.checks, asker)?;
        }
        stage.step = "make the release".into();
        let records: BTreeMap<ImageName, ImageRecord> =
            baked.into_iter().map(|(n, b)| (n, b.record)).collect();
        let release = project
            .spec
            .release(&records)
            .map_err(|e| Failure::from_error(ExitCode::Spec, &e).hint("add a [service.NAME] to kiln.toml"))?;
        self.store.put_release(&release).map_err(|e| failure::store(&e))?;
        stage.release = Some(release.id());
        Ok(release)
    }

    /// Has the core make a release serve, and waits until it does.
    fn serve(
        &self,
        release: Release,
        kind: OperationKind,
        by: &Caller,
        asker: &Asker<'_>,
        stage: &mut Stage,
        begun: Instant,
    ) -> Result<Answer, Failure> {
        stage.step = "plan".into();
        let (app, id) = (release.app.clone(), release.id());
        let news = self.request(&app, Request::Serve { release: Box::new(release), kind }, by);
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
    fn report(&self, mut failure: Failure, asker: &Asker<'_>, stage: Stage) -> Failure {
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

    pub(crate) fn rollback(
        &self,
        app: Option<AppName>,
        release: Option<&str>,
        by: &Caller,
        events: &dyn EventSink,
    ) -> Result<Answer, Failure> {
        let asker = Asker { events, clock: &self.clock };
        let mut stage = Stage { step: "find the release".into(), ..Stage::default() };
        let result = self.try_rollback(app, release, by, &asker, &mut stage);
        result.map_err(|failure| self.report(failure, &asker, stage))
    }

    fn try_rollback(
        &self,
        app: Option<AppName>,
        release: Option<&str>,
        by: &Caller,
        asker: &Asker<'_>,
        stage: &mut Stage,
    ) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let app = self.app(app)?;
        stage.app = Some(app.clone());
        let _turn = self.busy.take(&app, "rollback", &by.name, self.clock.now())?;
        let id = self.find_release(&app, release)?;
        stage.release = Some(id.clone());
        let release = self.store.release(&id).map_err(|e| failure::store(&e))?;
        self.serve(release, OperationKind::Rollback, by, asker, stage, begun)
    }

    /// The release meant by `given`: the previous one, or the one whose id begins so.
    fn find_release(&self, app: &AppName, given: Option<&str>) -> Result<ReleaseId, Failure> {
        let core = lock(&self.driver.core);
        let state = &core.apps()[app];
        let hint = "`kiln releases` lists what can be gone back to";
        let Some(given) = given else {
            return state.previous.clone().ok_or_else(|| {
                Failure::new(ExitCode::Usage, format!("app {app} has had no release before the present one"))
                    .hint(hint)
            });
        };
        let fits = |id: &&ReleaseId| id.as_str().starts_with(given) || id.as_str()[2..].starts_with(given);
        let found: Vec<&ReleaseId> = state.served.iter().map(|s| &s.release).filter(fits).collect();
        match found[..] {
            [one] => Ok(one.clone()),
            [] => {
                Err(Failure::new(ExitCode::Usage, format!("app {app} never had a release {given}"))
                    .hint(hint))
            }
            _ => {
                let ids: Vec<&str> = found.iter().map(|id| id.as_str()).collect();
                Err(Failure::new(
                    ExitCode::Usage,
                    format!("{given} is the beginning of several releases of {app}"),
                )
                .hint(format!("give more of it: {}", ids.join(", "))))
            }
        }
    }

    pub(crate) fn plan(&self, dir: &Path, events: &dyn EventSink) -> Result<Answer, Failure> {
        let asker = Asker { events, clock: &self.clock };
        let project = Project::load(dir)?;
        let baked = pipeline::bake(&project, &self.store, false, asker.events, asker.clock)?;
        let records: BTreeMap<ImageName, ImageRecord> =
            baked.into_iter().map(|(n, b)| (n, b.record)).collect();
        let release = project.spec.release(&records).map_err(|e| Failure::from_error(ExitCode::Spec, &e))?;
        let core = lock(&self.driver.core);
        let from = core.apps().get(&release.app).and_then(|s| s.traffic.live().cloned());
        let (steps, nothing_to_do) = match core.would_do(&release) {
            Ok(plan) => (plan.steps, None),
            Err(nothing) => (Vec::new(), Some(nothing.to_string())),
        };
        let old = from.as_ref().and_then(|id| core.release(id).cloned());
        drop(core);
        let changes =
            changes::between(old.as_ref(), &release, &|digest| self.store.image(digest).ok().flatten());
        let steps =
            steps.into_iter().map(|s| PlannedStep { step: s.action.to_string(), why: s.why }).collect();
        let to = release.id();
        Ok(Answer::Plan(PlanAnswer { app: release.app, from, to, nothing_to_do, changes, steps }))
    }
}

fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Busy { .. } => Failure::new(ExitCode::Busy, refusal.to_string())
            .hint("`kiln status` shows how far it is; try again when it has ended"),
        Refusal::Conflict(_) => Failure::new(ExitCode::Spec, refusal.to_string())
            .hint("give the route another host or path in kiln.toml"),
        Refusal::NothingThere => Failure::new(ExitCode::Usage, refusal.to_string()),
        Refusal::Unsound(_) => Failure::new(ExitCode::Bug, refusal.to_string()),
        Refusal::Unrecorded(_) => Failure::new(ExitCode::Host, refusal.to_string())
            .hint("is there space on the disk of the state directory?"),
    }
}

/// An image as the events and answers show it.
pub(crate) fn baked_image(record: &ImageRecord, reused: bool, millis: u64) -> BakedImage {
    BakedImage {
        digest: record.digest,
        bytes: record.metadata_bytes + record.content_bytes,
        reused,
        packages: record.packages.len() as u64,
        millis,
    }
}
