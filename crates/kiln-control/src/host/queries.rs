//! What a host can be asked without changing anything.

use std::collections::BTreeMap;

use kiln_model::{
    Answer, AppName, AppState, Counts, ExitCode, Failure, FleetPhase, InstanceEntry, InstancePhase, LogEntry,
    Release, ReleaseId, ServiceStatus, StatusAnswer, Traffic, TrafficReport,
};

use super::history::{self, Lineage, Story};
use super::{LocalHost, memory};
use crate::core::{Bygone, Core, InstanceReport};
use crate::sync::lock;
use crate::world::Edge as _;

impl LocalHost {
    /// The app that is meant: the one named, or the only one there is.
    pub(crate) fn app(&self, given: Option<AppName>) -> Result<AppName, Failure> {
        let core = lock(&self.driver.core);
        let known: Vec<&AppName> = core.apps().keys().collect();
        // An app of which no deploy came to anything is meant only by name, unless it is all there is.
        let here: Vec<&AppName> =
            core.apps().iter().filter(|(_, s)| s.is_here()).map(|(app, _)| app).collect();
        let meant = if here.is_empty() { &known } else { &here };
        let names = || known.iter().map(|a| a.as_str()).collect::<Vec<_>>().join(", ");
        match (given, &meant[..]) {
            (Some(app), _) if known.contains(&&app) => Ok(app),
            (Some(app), []) => Err(nothing_deployed().because(format!("app {app} was asked for"))),
            (Some(app), _) => {
                Err(Failure::new(ExitCode::Usage, format!("there is no app {app} on this host"))
                    .hint(format!("the apps here are: {}", names())))
            }
            (None, [one]) => Ok((*one).clone()),
            (None, []) => Err(nothing_deployed()),
            (None, _) => {
                Err(Failure::new(ExitCode::Usage, "several apps run on this host, and none was named")
                    .hint(format!("run it in the directory of one, or name one of: {}", names())))
            }
        }
    }

    pub(crate) fn status(&self, app: Option<AppName>) -> Result<Answer, Failure> {
        // That nothing runs is an answer, too.
        if lock(&self.driver.core).apps().is_empty() {
            return Ok(Answer::Status(self.status_of_nothing(app)));
        }
        let app = self.app(app)?;
        // Asked before the core is locked: an edge that is slow to answer holds up nobody else.
        let counts = self.processes.edge().counts().unwrap_or_default();
        let core = lock(&self.driver.core);
        let state = &core.apps()[&app];
        let of_app = counts.fleets.iter().filter(|c| c.fleet.app == app);
        let Bygone { mut served, mut failed } = core.bygone(&app);
        let mut in_flight = 0;
        for count in of_app {
            in_flight += count.in_flight;
            served += count.served;
            failed += count.failed;
        }
        Ok(Answer::Status(StatusAnswer {
            live: state.traffic.live().cloned(),
            previous: state.previous.clone(),
            traffic: TrafficReport::from(&state.traffic),
            services: services(&core, state),
            address: self.address(),
            waiting: core
                .waiting(&app)
                .into_iter()
                .chain(self.renewals.iter().flat_map(|r| r.waiting()))
                .collect(),
            last_failure: state.last_failure.clone(),
            warnings: self.warnings(),
            requests: served,
            failed_requests: failed,
            in_flight,
            app: Some(app),
        }))
    }

    fn status_of_nothing(&self, app: Option<AppName>) -> StatusAnswer {
        StatusAnswer {
            app,
            live: None,
            previous: None,
            traffic: TrafficReport::from(&Traffic::default()),
            services: BTreeMap::new(),
            address: self.address(),
            waiting: self.renewals.iter().flat_map(|r| r.waiting()).collect(),
            last_failure: None,
            warnings: self.warnings(),
            requests: 0,
            failed_requests: 0,
            in_flight: 0,
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = super::room::warning(&self.store).into_iter().collect();
        warnings.extend(self.places.warnings());
        warnings.extend(self.processes.warnings());
        warnings.extend(self.renewals.iter().flat_map(|renewals| renewals.warnings()));
        warnings
    }

    pub(crate) fn instances(&self, app: Option<AppName>, all: bool) -> Result<Answer, Failure> {
        let app = app.map(|app| self.app(Some(app))).transpose()?;
        let silence = self.processes.silence_of_keeper().map(|_| {
            "the keeper does not answer: nobody knows what has become of it (`kiln status`)".to_owned()
        });
        let core = lock(&self.driver.core);
        let hooks = core.hooks().into_iter().map(|(hook, run)| InstanceReport {
            problem: Some(format!("a hook of the deploy under way: {}", run.join(" "))),
            ..hook
        });
        let wanted = core.instances().into_iter().chain(hooks);
        let wanted = wanted.filter(|i| app.as_ref().is_none_or(|a| *a == i.fleet.app));
        let entries = wanted.filter_map(|i| {
            let image = core.release(&i.release)?.services.get(&i.fleet.service)?.image;
            Some(InstanceEntry {
                id: i.id,
                app: i.fleet.app,
                service: i.fleet.service,
                release: i.release,
                image,
                state: i.phase,
                since: i.since,
                pid: i.pid,
                reason: silence.clone().or(i.problem),
            })
        });
        let mut entries: Vec<InstanceEntry> = entries.collect();
        drop(core);
        if all {
            entries.extend(self.replaced(app.as_ref())?);
        }
        Ok(Answer::Instances(entries))
    }

    /// Instances that are no more, oldest first. Of one whose release is gone, only its output is left.
    fn replaced(&self, app: Option<&AppName>) -> Result<Vec<InstanceEntry>, Failure> {
        let (mut lineage, mut losses) = (Lineage::default(), Vec::new());
        self.each_record(&mut |record| {
            lineage.learn(&record);
            losses.extend(history::losses(&record));
        })?;
        let mut releases: BTreeMap<ReleaseId, Option<Release>> = BTreeMap::new();
        let mut entries = Vec::new();
        for (since, id, cause) in losses {
            let Some(origin) = lineage.origin(&id).filter(|o| app.is_none_or(|a| *a == o.app)) else {
                continue;
            };
            let release = releases
                .entry(origin.release.clone())
                .or_insert_with(|| self.store.release(&origin.release).ok());
            let service = release.as_ref().and_then(|r| r.services.get(&origin.service));
            let Some(image) = service.map(|s| s.image) else { continue };
            let history::Origin { app, service, release } = origin;
            let (state, reason) = (InstancePhase::Replaced, Some(cause));
            entries.push(InstanceEntry { id, app, service, release, image, state, since, pid: None, reason });
        }
        Ok(entries)
    }

    pub(crate) fn log(&self, app: Option<AppName>, limit: Option<u32>) -> Result<Answer, Failure> {
        let app = app.map(|app| self.app(Some(app))).transpose()?;
        let newest = |mut entries: Vec<LogEntry>| {
            entries.retain(|e| app.as_ref().is_none_or(|a| *a == e.app));
            entries.reverse();
            entries.truncate(limit.map_or(usize::MAX, |l| l as usize));
            entries
        };
        self.operations(newest).map(Answer::Log)
    }

    /// What is `chosen` of all that was ever done, oldest first.
    pub(super) fn operations<T>(&self, chosen: impl FnOnce(Vec<LogEntry>) -> T) -> Result<T, Failure> {
        let mut story = Story::default();
        self.each_record(&mut |record| story.learn(&record))?;
        let there = lock(&self.driver.core).instances().into_iter().map(|i| i.id).collect();
        let told = chosen(story.told(there));
        memory::settle();
        Ok(told)
    }

    /// Which fleet every instance that ever was belonged to.
    pub(super) fn lineage(&self) -> Result<Lineage, Failure> {
        let mut lineage = Lineage::default();
        self.each_record(&mut |record| lineage.learn(&record))?;
        Ok(lineage)
    }
}

pub(crate) fn nothing_deployed() -> Failure {
    Failure::new(ExitCode::Usage, "nothing has been deployed on this host")
        .hint("`kiln deploy DIR` deploys the app whose kiln.toml is in DIR")
}

fn services(core: &Core, state: &AppState) -> BTreeMap<kiln_model::ServiceName, ServiceStatus> {
    let instances = core.instances();
    let live = state.fleets.values().filter(|f| f.phase == FleetPhase::Live);
    live.filter_map(|fleet| {
        let ready =
            instances.iter().filter(|i| i.fleet == fleet.id && i.phase == InstancePhase::Ready).count();
        let image = core.release(&fleet.release)?.services.get(&fleet.id.service)?.image;
        let instances = Counts { desired: fleet.size(), ready: u32::try_from(ready).unwrap_or(u32::MAX) };
        Some((fleet.id.service.clone(), ServiceStatus { release: fleet.release.clone(), image, instances }))
    })
    .collect()
}
