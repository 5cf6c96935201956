//! Asking instances how they are: one task per instance on one thread of its own.

mod calls;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use kiln_engine::Engine;
use kiln_model::{InstanceId, Timestamp};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, LocalSet};

use crate::condition::{Condition, Unasked};
use crate::probe::{self, Answered};
use crate::sync::lock;
use crate::world::{Clock, Health, Watch};
use calls::Calls;

/// How often an instance that was never healthy is asked at the least: it is waited for.
const EAGER: Duration = Duration::from_millis(20);

/// How many sockets are asked for at once. Each is a matter of less than a millisecond.
const SOCKETS: usize = 32;

/// How many commands run at once. They take as long as they take, and nobody whose probe is none waits for them.
const COMMANDS: usize = 128;

/// How many of these may be one fleet's: if its commands hang, those of others go on.
const COMMANDS_OF_A_FLEET: usize = 8;

/// The real thing: probes over sockets the engine makes inside the instances.
pub struct Prober {
    conditions: Arc<Mutex<BTreeMap<InstanceId, Condition>>>,
    watched: Mutex<BTreeSet<InstanceId>>,
    orders: UnboundedSender<Order>,
}

enum Order {
    Begin(InstanceId, Box<Watch>),
    End(InstanceId),
}

/// What the tasks share.
struct Shared {
    engine: Arc<dyn Engine>,
    clock: Arc<dyn Clock>,
    conditions: Arc<Mutex<BTreeMap<InstanceId, Condition>>>,
    wake: Box<dyn Fn() + Send + Sync>,
    sockets: Semaphore,
    commands: Arc<Semaphore>,
    calls: Calls,
}

impl Prober {
    /// A prober; `wake` is called whenever a condition has changed.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn start(
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let conditions = Arc::new(Mutex::new(BTreeMap::new()));
        let shared = Shared {
            engine,
            clock,
            conditions: conditions.clone(),
            wake: Box::new(wake),
            sockets: Semaphore::new(SOCKETS),
            commands: Arc::new(Semaphore::new(COMMANDS)),
            calls: Calls::default(),
        };
        let (orders, received) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(SOCKETS + COMMANDS)
            .build()?;
        std::thread::Builder::new().name("health".into()).spawn(move || {
            LocalSet::new().block_on(&runtime, obey(Arc::new(shared), received));
        })?;
        Ok(Self { conditions, watched: Mutex::default(), orders })
    }
}

impl Health for Prober {
    fn watch(&self, watches: &BTreeMap<InstanceId, Watch>) {
        let mut watched = lock(&self.watched);
        for gone in watched.iter().filter(|id| !watches.contains_key(*id)) {
            let _ = self.orders.send(Order::End(gone.clone()));
        }
        for (id, watch) in watches.iter().filter(|(id, _)| !watched.contains(*id)) {
            let _ = self.orders.send(Order::Begin(id.clone(), Box::new(watch.clone())));
        }
        *watched = watches.keys().cloned().collect();
    }

    fn conditions(&self) -> BTreeMap<InstanceId, Condition> {
        lock(&self.conditions).clone()
    }
}

async fn obey(shared: Arc<Shared>, mut orders: UnboundedReceiver<Order>) {
    let mut tasks: BTreeMap<InstanceId, JoinHandle<()>> = BTreeMap::new();
    let mut turns = Turns::default();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Begin(id, watch) => {
                let since = watch.presumed_healthy.unwrap_or_else(|| shared.clock.now());
                let healthy = watch.presumed_healthy.is_some();
                lock(&shared.conditions).insert(id.clone(), Condition::presumed(healthy, since));
                let attended = attend(shared.clone(), id.clone(), *watch, turns.of_fleet(&id));
                tasks.insert(id, tokio::task::spawn_local(attended));
            }
            Order::End(id) => {
                if let Some(task) = tasks.remove(&id) {
                    task.abort();
                }
                lock(&shared.conditions).remove(&id);
            }
        }
    }
}

/// What the commands of each fleet that has any wait for.
#[derive(Debug, Default)]
struct Turns(BTreeMap<String, Weak<Semaphore>>);

impl Turns {
    /// That of the fleet an instance is a member of, which is what its id begins with.
    fn of_fleet(&mut self, id: &InstanceId) -> Arc<Semaphore> {
        self.0.retain(|_, turns| turns.strong_count() > 0);
        let fleet = id.as_str().rsplit_once('-').map_or(id.as_str(), |(fleet, _)| fleet);
        let known = self.0.get(fleet).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(COMMANDS_OF_A_FLEET));
            self.0.insert(fleet.to_owned(), Arc::downgrade(&new));
            new
        })
    }
}

/// Asks one instance again and again.
async fn attend(shared: Arc<Shared>, id: InstanceId, watch: Watch, fleet: Arc<Semaphore>) {
    let mut streak = Streak::default();
    loop {
        let (begun, asked) = ask_patiently(&shared, &id, &watch, &fleet).await;
        let now = shared.clock.now();
        let eager = {
            let mut conditions = lock(&shared.conditions);
            let Some(condition) = conditions.get_mut(&id) else { return };
            let changed = match asked {
                Ok(answered) => {
                    let is_back = condition.unasked.end(now);
                    streak.count(condition, answered, &watch, now) || is_back
                }
                // That is no fault of the instance, which is what it was: it says nothing of it either way.
                Err(why) => {
                    condition.unasked.begin(begun);
                    condition.last_problem = Some(why);
                    false
                }
            };
            let eager = !condition.was_healthy;
            drop(conditions);
            if changed {
                (shared.wake)();
            }
            eager
        };
        let interval = watch.interval.duration();
        tokio::time::sleep(if eager { interval.min(EAGER) } else { interval }).await;
    }
}

/// Asks it once: from when on, and what came of it. Where the engine does not answer meanwhile, that is noted before it
/// does.
async fn ask_patiently(
    shared: &Arc<Shared>,
    id: &InstanceId,
    watch: &Watch,
    fleet: &Arc<Semaphore>,
) -> (Timestamp, Result<Answered, String>) {
    let begun = shared.clock.now();
    let mut asked = std::pin::pin!(ask(shared, id, watch, fleet));
    loop {
        match tokio::time::timeout(calls::LATE, asked.as_mut()).await {
            Ok(asked) => return (begun, asked),
            Err(_) if shared.calls.hang() => {
                if let Some(condition) = lock(&shared.conditions).get_mut(id) {
                    condition.unasked.begin(begun);
                }
            }
            Err(_) => {}
        }
    }
}

/// Answers of the same kind in a row.
#[derive(Debug, Default)]
struct Streak {
    good: u32,
    bad: u32,
}

impl Streak {
    /// Takes account of an answer; whether the condition has changed.
    fn count(
        &mut self,
        condition: &mut Condition,
        answered: Answered,
        watch: &Watch,
        now: Timestamp,
    ) -> bool {
        match answered {
            Ok(()) => (self.good, self.bad) = (self.good + 1, 0),
            Err(_) => (self.good, self.bad) = (0, self.bad + 1),
        }
        condition.last_problem = answered.err();
        let healthy = match condition.healthy {
            true => self.bad < watch.unhealthy_after,
            false => self.good >= watch.healthy_after,
        };
        let changed = healthy != condition.healthy;
        if changed {
            condition.healthy = healthy;
            condition.since = now;
            condition.was_healthy = true;
            condition.unasked = Unasked::NEVER;
        }
        changed
    }
}

/// What it answers, or why it could not be asked: a limit of the host is reached, or no keeper answers.
async fn ask(
    shared: &Arc<Shared>,
    id: &InstanceId,
    watch: &Watch,
    fleet: &Arc<Semaphore>,
) -> Result<Answered, String> {
    if let Some(order) = &watch.exec {
        let (shared, instance, order, timeout) =
            (shared.clone(), id.clone(), order.clone(), watch.timeout.duration());
        // First the turn of its own fleet: who waits there takes nobody else's.
        let turn = (fleet.clone().acquire_owned().await, shared.commands.clone().acquire_owned().await);
        let asked = tokio::task::spawn_blocking(move || {
            // Until it has ended, also if nobody wants to know any more.
            let _turn = turn;
            let begin = |streams| shared.calls.during(|| shared.engine.exec(&instance, &order, streams));
            let hears = || shared.calls.during(|| one_socket(&*shared.engine, &instance)).map(drop);
            probe::run(&order, timeout, begin, hears)
        });
        return asked.await.map_err(|e| e.to_string())?;
    }
    let turn = shared.sockets.acquire().await;
    let (by, instance) = (shared.clone(), id.clone());
    let one = move || by.calls.during(|| one_socket(&*by.engine, &instance));
    let socket = tokio::task::spawn_blocking(one).await;
    drop(turn);
    let socket = socket.map_err(|e| e.to_string())??;
    let asked = probe::ask(socket, watch.port, &watch.probe);
    let answered = tokio::time::timeout(watch.timeout.duration(), asked).await;
    Ok(answered.unwrap_or_else(|_| Err(format!("no answer within {}", watch.timeout))))
}

/// A socket inside an instance.
pub(crate) fn one_socket(engine: &dyn Engine, id: &InstanceId) -> Result<OwnedFd, String> {
    let mut sockets = engine.sockets(id, 1).map_err(|e| e.to_string())?;
    sockets.pop().ok_or_else(|| "the engine made no socket".into())
}

#[cfg(test)]
mod tests;
