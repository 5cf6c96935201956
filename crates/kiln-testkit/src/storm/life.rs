//! One storm: steps drawn by chance, each followed by a turn of the core and a look at what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;

use kiln_control::{Core, Past, Precedence, Request};
use kiln_model::{Generation, InstanceState, InstanceStatus, Millis, OperationKind, ReleaseId, Timestamp};

use super::ground::Ground;
use super::hearing::Listener;
use super::workload::{a_release, apps};
use super::{Breach, Crash, Figures, Sabotage};

/// A host in a storm, and those who ask it for something.
pub(super) struct Storm {
    pub(super) seed: u64,
    pub(super) ground: Ground,
    pub(super) core: Option<Core>,
    pub(super) listeners: Vec<Listener>,
    pub(super) wake: Option<Timestamp>,
}

impl Storm {
    pub(super) fn new(seed: u64, sabotage: Option<Sabotage>, trace: bool) -> Self {
        let ground = Ground::new(seed, sabotage, trace);
        Self { seed, ground, core: None, listeners: Vec::new(), wake: None }
    }

    pub(super) fn live_through(mut self) -> Result<Figures, Breach> {
        let steps = 40 + self.roll(120);
        for _ in 0..steps {
            self.step();
            self.look()?;
        }
        self.come_to_rest()?;
        Ok(self.ground.with(|truth| truth.judge.figures))
    }

    pub(super) fn roll(&self, n: u64) -> u64 {
        self.ground.with(|truth| truth.chance.below(n))
    }

    fn step(&mut self) {
        match self.roll(100) {
            0..=11 => self.ask(),
            12..=13 => self.cancel(),
            14..=28 => self.pass(1 + self.roll(300)),
            29..=42 => self.go_well(),
            43..=50 => self.pass_until_woken(),
            51..=54 => self.pass(1_000 + self.roll(40_000)),
            55..=69 => self.deliver(false),
            70..=84 => self.ground.with(|truth| truth.probe(false)),
            _ => self.ground.with(|truth| truth.traffic()),
        }
        if self.roll(100) < self.ground.with(|truth| truth.weather.accidents) {
            self.accident();
        }
        if self.roll(3) == 0 {
            self.ground.with(|truth| truth.arrive_late());
        }
        self.turn();
    }

    /// Does something with the core; a death of the control plane ends with it.
    pub(super) fn with_core<T>(&mut self, act: impl FnOnce(&mut Core) -> T) -> Option<T> {
        let core = self.core.as_mut()?;
        match catch_unwind(AssertUnwindSafe(|| act(core))) {
            Ok(value) => Some(value),
            Err(payload) => {
                self.died(&*payload);
                None
            }
        }
    }

    fn died(&mut self, payload: &(dyn std::any::Any + Send)) {
        self.core = None;
        self.listeners.clear();
        let by_itself = !payload.is::<Crash>();
        let words = payload.downcast_ref::<String>().cloned();
        let words = words.or_else(|| payload.downcast_ref::<&str>().map(|w| (*w).to_owned()));
        self.ground.with(|truth| {
            truth.judge.figures.crashes += 1;
            if by_itself {
                truth.judge.find(format!("the core panicked: {}", words.unwrap_or_default()));
            }
            truth.conditions.clear();
            truth.watched.clear();
            // What a keeper that is dead had to tell was for the one who listened to it.
            let machines = &truth.machines;
            truth.reports.retain(|report| machines.contains_key(&report.id));
            truth.look_at_the_disk();
        });
    }

    /// Starts a control plane over what is on the disk.
    pub(super) fn start(&mut self) {
        let disk = self.ground.with(|truth| truth.disk.clone());
        let mut past = Past::default();
        let log = match disk.open(&mut |record| past.learn(&record)) {
            Ok(log) => log,
            Err(e) => {
                self.ground.with(|truth| truth.note(|| format!("a control plane cannot start: {e}")));
                return;
            }
        };
        let world = self.ground.world(log);
        match catch_unwind(AssertUnwindSafe(|| Core::new(world, past))) {
            Ok(Ok(core)) => {
                self.ground.with(|truth| truth.note(|| "a control plane starts".into()));
                self.core = Some(core);
            }
            Ok(Err(trouble)) => {
                self.ground.with(|truth| truth.note(|| format!("a control plane cannot start: {trouble}")));
            }
            Err(payload) => self.died(&*payload),
        }
    }

    /// Turns the core as often as it wants to be turned now.
    pub(super) fn turn(&mut self) {
        if self.core.is_none() {
            if self.roll(2) == 0 {
                self.start();
            }
            return;
        }
        for _ in 0..3 {
            let turned = self.with_core(|core| (core.turn(), core.now()));
            let Some((wake, now)) = turned else { return };
            self.wake = wake;
            if wake.is_none_or(|at| at > now) {
                return;
            }
        }
    }

    /// Nothing happens for a second but what should.
    fn go_well(&mut self) {
        for _ in 0..3 {
            self.pass(300);
            self.deliver(true);
            self.ground.with(|truth| truth.probe(true));
            self.turn();
        }
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.ground.with(|truth| {
            truth.now = truth.now.after(Millis(millis));
            truth.pass_away();
            if truth.chance.below(3) > 0 {
                truth.probe(false);
            }
        });
    }

    pub(super) fn pass_until_woken(&mut self) {
        let now = self.ground.with(|truth| truth.now);
        let span = self.wake.map_or(100, |at| now.until(at).0);
        self.pass(span.clamp(1, 60_000));
    }

    /// News of the engine arrives: some of it, in any order, some of it twice.
    pub(super) fn deliver(&mut self, all: bool) {
        if self.core.is_none() {
            return;
        }
        let news = self.ground.with(|truth| truth.news(all));
        self.ground.with(|truth| truth.note(|| format!("the engine tells: {}", words(&news))));
        self.with_core(|core| core.observe(news));
    }

    fn ask(&mut self) {
        let chance = |n| self.roll(n);
        let [first, second] = apps();
        let app = if chance(4) == 0 { second } else { first };
        let served: Vec<ReleaseId> = self
            .core
            .as_ref()
            .and_then(|core| core.apps().get(&app))
            .map(|state| state.kept.iter().map(|s| s.release.clone()).collect())
            .unwrap_or_default();
        let precedence = if chance(4) == 0 { Precedence::Supersedes } else { Precedence::Yields };
        let roll = chance(100);
        let back =
            self.ground.with(|truth| truth.chance.pick(&served).and_then(|r| truth.shelf.get(r)).cloned());
        let request = match (roll, back) {
            (0..=5, _) => Request::Down { drain: Millis(5_000) },
            (6..=35, Some(release)) => {
                let kind = OperationKind::Rollback;
                Request::Serve { release: Box::new(release), kind, schema: None, precedence }
            }
            _ => {
                let release = self.ground.with(|truth| a_release(&mut truth.chance, &app));
                self.ground.with(|truth| truth.shelf.insert(release.id(), release.clone()));
                let kind = OperationKind::Deploy;
                Request::Serve { release: Box::new(release), kind, schema: None, precedence }
            }
        };
        self.ground.with(|truth| {
            truth.note(|| match &request {
                Request::Serve { release, kind, .. } => {
                    let name = &release.services.values().next().expect("one").run.argv[0];
                    format!("ann asks for a {kind} of {app} to {} ({name})", release.id().short())
                }
                other => format!("ann asks for {other:?} of {app}"),
            });
        });
        let (to, news) = channel();
        let asked = request.clone();
        if self.with_core(|core| core.request(app.clone(), request, "ann".into(), to)).is_some() {
            self.listeners.push(Listener::new(app, asked, news));
        }
    }

    fn cancel(&mut self) {
        let [first, _] = apps();
        let under_way = |core: &Core| Some(core.apps().get(&first)?.under_way.as_ref()?.plan.generation);
        let generation: Option<Generation> = self.core.as_ref().and_then(under_way);
        if let Some(generation) = generation {
            self.ground.with(|truth| truth.note(|| format!("ann cancels plan {generation}")));
            self.with_core(|core| core.cancel(generation, "cancelled by ann".into()));
        }
    }

    fn accident(&mut self) {
        match self.roll(11) {
            10 => self.ground.with(|truth| truth.a_port_is_taken()),
            0..=3 => self.ground.with(|truth| truth.somebody_dies()),
            4..=5 => self.ground.with(|truth| truth.somebody_falls_ill()),
            6 => self.ground.with(|truth| truth.a_fleet_falls_ill()),
            7 => {
                let heard = self.core.is_some();
                self.ground.with(|truth| truth.keeper_dies(heard));
            }
            8 if self.roll(2) == 0 => self.ground.with(|truth| truth.edge_dies()),
            8 => self.ground.with(|truth| {
                let full = !truth.disk.is_full();
                truth.note(|| {
                    if full { "the disk is full" } else { "there is room on the disk again" }.into()
                });
                truth.disk.set_full(full);
            }),
            _ => self.revive(),
        }
    }

    /// Whoever looks after keeper and edge starts those that are gone.
    pub(super) fn revive(&mut self) {
        let (keeper, edge) = self.ground.with(|truth| truth.revive());
        self.with_core(|core| {
            if keeper {
                core.engine_is_new();
            }
            if edge {
                core.edge_is_new();
            }
        });
    }

    /// Looks at what is there now.
    pub(super) fn look(&mut self) -> Result<(), Breach> {
        self.hear();
        self.ground.with(|truth| truth.judge_table());
        match self.ground.with(|truth| truth.judge.breach.clone()) {
            Some(what) => Err(self.breach(what)),
            None => Ok(()),
        }
    }

    pub(super) fn breach(&self, what: String) -> Breach {
        let trace = self.ground.with(|truth| truth.trace.take().unwrap_or_default());
        Breach { seed: self.seed, what, trace }
    }
}

/// News of the engine in words.
fn words(news: &[InstanceStatus]) -> String {
    let word = |s: &InstanceStatus| match &s.state {
        InstanceState::Running { .. } => format!("{} runs", s.id),
        InstanceState::Stopping { .. } => format!("{} is stopping", s.id),
        InstanceState::Ended { .. } => format!("{} has ended", s.id),
    };
    news.iter().map(word).collect::<Vec<_>>().join(", ")
}
