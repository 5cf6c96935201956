//! A simulated host: the real core over a fake clock, disk, engine and edge, driven step by step.
//!
//! Nothing happens by itself and nothing is random: a scenario that passed once always passes.

mod edge;
mod health;
mod history;
mod scenario;
mod shelf;
pub(crate) mod words;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_control::{Clock, Core, News, Past, Request, World};
use kiln_engine::Engine as _;
use kiln_model::{AppName, Generation, Millis, Release, Timestamp};

pub use edge::FakeEdge;
pub use health::FakeHealth;
pub use history::{DiskState, FakeHistory};
pub use scenario::play;
pub(crate) use shelf::opened;
pub use shelf::{FakeShelf, release};

use crate::FakeEngine;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clock that stands still until it is moved.
#[derive(Debug, Clone, Default)]
pub struct FakeClock(Arc<AtomicU64>);

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// The host.
pub struct Sim {
    /// Its engine, which survives the core.
    pub engine: FakeEngine,
    /// Its edge, which survives the core.
    pub edge: FakeEdge,
    /// Its disk, which survives everything.
    pub history: FakeHistory,
    /// How its instances are.
    pub health: FakeHealth,
    shelf: FakeShelf,
    clock: FakeClock,
    core: Core,
    news: Vec<Receiver<News>>,
    told: usize,
    /// What a person asked to be shown.
    shown: Vec<String>,
}

impl Default for Sim {
    fn default() -> Self {
        let (engine, edge, history, shelf) = Default::default();
        let clock = FakeClock::default();
        let health = FakeHealth::new(clock.clone());
        let core = Core::new(world(&engine, &edge, &health, &history, &shelf, &clock), Past::default())
            .expect("an empty host");
        Self {
            engine,
            edge,
            history,
            health,
            shelf,
            clock,
            core,
            news: Vec::new(),
            told: 0,
            shown: Vec::new(),
        }
    }
}

fn world(
    engine: &FakeEngine,
    edge: &FakeEdge,
    health: &FakeHealth,
    history: &FakeHistory,
    shelf: &FakeShelf,
    clock: &FakeClock,
) -> World {
    World {
        engine: Arc::new(engine.clone()),
        edge: Box::new(edge.clone()),
        health: Box::new(health.clone()),
        history: Box::new(history.clone()),
        shelf: Box::new(shelf.clone()),
        clock: Box::new(clock.clone()),
    }
}

impl Sim {
    /// The app every scenario is about.
    pub fn app() -> AppName {
        "hello".parse().expect("a name")
    }

    /// The app that is on the same host in some.
    pub fn other_app() -> AppName {
        "other".parse().expect("a name")
    }

    /// The core as it is now.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Asks for something and lets everything happen that follows without time passing.
    pub fn request(&mut self, request: Request) {
        self.request_for(Self::app(), request);
    }

    /// The same for another app.
    pub fn request_for(&mut self, app: AppName, request: Request) {
        let (to, news) = channel();
        if let Request::Serve { release, .. } = &request {
            self.shelf.put(Release::clone(release));
        }
        self.core.request(app, request, "ann".into(), to);
        self.news.push(news);
        self.settle();
    }

    /// Ann begins a command in an instance.
    ///
    /// # Panics
    /// If it does not run.
    pub fn touch(&mut self, instance: &kiln_model::InstanceId, command: &str) {
        let service =
            self.core.touch(instance, "ann".into(), command).expect("a history that can be written");
        assert!(service.is_some(), "{instance} does not run");
        self.settle();
    }

    /// Her command has ended.
    pub fn let_alone(&mut self, instance: &kiln_model::InstanceId) {
        self.core.let_alone(instance);
        self.settle();
    }

    /// Somebody else wants to know how what is under way goes on.
    pub fn follow(&mut self) {
        let (to, news) = channel();
        self.core.follow(&Self::app(), to);
        self.news.push(news);
        self.settle();
    }

    /// Ann has requests wait so long at most, or lets them go on.
    pub fn pause(&mut self, wait: Option<Millis>) {
        // What does not reach the edge now does later.
        let _ = match wait {
            Some(wait) => self.core.pause(&Self::app(), wait, "ann".into()),
            None => self.core.resume(&Self::app(), "ann".into()),
        };
        self.settle();
    }

    /// Shows which instances run at the engine, whoever counts on them.
    pub fn show_running(&mut self) {
        let listed = self.engine.list().expect("a fake that answers");
        let running = listed.into_iter().filter(|s| s.state.pid().is_some());
        let ids: Vec<String> = running.map(|s| s.id.to_string()).collect();
        self.shown.push(format!("running: {}", ids.join(", ")));
    }

    /// Shows what is waited for.
    pub fn show_waiting(&mut self) {
        let now = self.clock.now();
        let until =
            |at: Option<Timestamp>| at.map_or_else(String::new, |at| format!(" in {}", now.until(at)));
        let waiting = self.core.waiting(&Self::app());
        self.shown.extend(waiting.iter().map(|w| format!("under way: {}{}", w.what, until(w.until))));
    }

    /// Gives up what is under way.
    pub fn cancel(&mut self) {
        let under_way = self.core.apps().get(&Self::app()).and_then(|s| s.under_way.as_ref());
        let generation = under_way.map_or(Generation::default(), |u| u.plan.generation);
        self.core.cancel(generation, "cancelled by ann".into());
        self.settle();
    }

    /// The control plane dies and another one starts over the same history.
    pub fn crash(&mut self) {
        // What it knew of its instances' health dies with it.
        self.health.forget();
        let records = self.history.after_death();
        let world = world(&self.engine, &self.edge, &self.health, &self.history, &self.shelf, &self.clock);
        self.core = Core::new(world, records.iter().collect()).expect("a history that can be read");
        self.settle();
    }

    /// Lets time pass, waking the core whenever it wants to be.
    pub fn wait(&mut self, span: Millis) {
        let end = self.clock.now().after(span);
        while let Some(wake) = self.settle().filter(|wake| *wake <= end) {
            let next = wake.max(Timestamp(self.clock.now().0 + 1));
            self.clock.0.store(next.0, Ordering::SeqCst);
        }
        self.clock.0.store(end.0, Ordering::SeqCst);
        self.settle();
    }

    /// Turns until nothing more happens at this moment. Returns when the core wants to be woken.
    pub fn settle(&mut self) -> Option<Timestamp> {
        for _ in 0..100 {
            let before = self.history.records().len();
            let seen = self.engine.drain_changes();
            let changed = !seen.is_empty();
            self.core.observe(seen);
            let wake = self.core.turn();
            // What the engine has to tell of what was just asked of it wakes the core, too.
            let told = self.engine.drain_changes();
            let changed = changed || !told.is_empty();
            self.core.observe(told);
            let now_due = wake.is_some_and(|at| at <= self.clock.now());
            if !changed && !now_due && self.history.records().len() == before && !self.health.settle() {
                return wake;
            }
        }
        panic!("the core turns and turns at {}", self.clock.now());
    }

    /// What has been written into the history and told to those who asked since the last call, in words.
    pub fn happened(&mut self) -> Vec<String> {
        let records = self.history.records();
        let mut lines = words::records(&records[self.told..]);
        self.told = records.len();
        for news in &self.news {
            lines.extend(news.try_iter().filter_map(|n| words::news(&n)));
        }
        lines.append(&mut self.shown);
        lines.extend(words::states(&self.core, &self.edge));
        // People know releases by name here, and no scenario changes when the encoding of releases grows.
        let names = self.shelf.names();
        let named = |line: String| names.iter().fold(line, |line, (id, name)| line.replace(id, name));
        lines.into_iter().map(named).collect()
    }
}
