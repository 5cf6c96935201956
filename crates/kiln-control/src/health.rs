//! Asking instances how they are: one task per instance on one thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_engine::Engine;
use kiln_model::{InstanceId, Timestamp};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, LocalSet};

use crate::probe::{self, Answered};
use crate::sync::lock;
use crate::world::{Clock, Condition, Health, Watch};

/// How often an instance that was never healthy is asked at the least: it is waited for.
const EAGER: Duration = Duration::from_millis(20);

/// Questions that block are asked on threads; those that are commands take as long as these do.
const MOST_THREADS: usize = 32;

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
        let shared = Shared { engine, clock, conditions: conditions.clone(), wake: Box::new(wake) };
        let (orders, received) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MOST_THREADS)
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
    while let Some(order) = orders.recv().await {
        match order {
            Order::Begin(id, watch) => {
                let since = watch.presumed_healthy.unwrap_or_else(|| shared.clock.now());
                let healthy = watch.presumed_healthy.is_some();
                let condition = Condition { healthy, since, was_healthy: healthy, last_problem: None };
                lock(&shared.conditions).insert(id.clone(), condition);
                tasks.insert(id.clone(), tokio::task::spawn_local(attend(shared.clone(), id, *watch)));
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

/// Asks one instance again and again.
async fn attend(shared: Arc<Shared>, id: InstanceId, watch: Watch) {
    let mut streak = Streak::default();
    loop {
        let answered = ask(&shared, &id, &watch).await;
        let now = shared.clock.now();
        let eager = {
            let mut conditions = lock(&shared.conditions);
            let Some(condition) = conditions.get_mut(&id) else { return };
            let changed = streak.count(condition, answered, &watch, now);
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
        }
        changed
    }
}

async fn ask(shared: &Arc<Shared>, id: &InstanceId, watch: &Watch) -> Answered {
    if let Some(order) = &watch.exec {
        let (engine, instance, order, timeout) =
            (shared.engine.clone(), id.clone(), order.clone(), watch.timeout.duration());
        let asked = tokio::task::spawn_blocking(move || probe::run(&*engine, &instance, &order, timeout));
        return asked.await.map_err(|e| e.to_string())?;
    }
    let (engine, instance) = (shared.engine.clone(), id.clone());
    let socket = tokio::task::spawn_blocking(move || one_socket(&*engine, &instance)).await;
    let socket = socket.map_err(|e| e.to_string())??;
    match tokio::time::timeout(watch.timeout.duration(), probe::ask(socket, watch.port, &watch.probe)).await {
        Ok(answered) => answered,
        Err(_) => Err(format!("no answer within {}", watch.timeout)),
    }
}

/// A socket inside an instance.
pub(crate) fn one_socket(engine: &dyn Engine, id: &InstanceId) -> Result<OwnedFd, String> {
    let mut sockets = engine.sockets(id, 1).map_err(|e| e.to_string())?;
    sockets.pop().ok_or_else(|| "the engine made no socket".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_model::{Millis, Probe};

    fn watch() -> Watch {
        Watch {
            port: 1,
            probe: Probe::Tcp,
            interval: Millis(1),
            timeout: Millis(1),
            healthy_after: 2,
            unhealthy_after: 3,
            exec: None,
            presumed_healthy: None,
        }
    }

    #[test]
    fn health_takes_answers_in_a_row() {
        let mut condition =
            Condition { healthy: false, since: Timestamp(0), was_healthy: false, last_problem: None };
        let mut streak = Streak::default();
        let mut told = |answer: Answered, at| {
            let changed = streak.count(&mut condition, answer, &watch(), Timestamp(at));
            (changed, condition.healthy)
        };
        let bad = || Err("refused".to_owned());
        assert_eq!(told(Ok(()), 1), (false, false));
        assert_eq!(told(bad(), 2), (false, false), "one miss starts the count again");
        assert_eq!(told(Ok(()), 3), (false, false));
        assert_eq!(told(Ok(()), 4), (true, true));
        assert_eq!(told(bad(), 5), (false, true), "flapping is not an outage");
        assert_eq!(told(bad(), 6), (false, true));
        assert_eq!(told(Ok(()), 7), (false, true));
        assert_eq!(told(bad(), 8), (false, true));
        assert_eq!(told(bad(), 9), (false, true));
        assert_eq!(told(bad(), 10), (true, false));
    }
}
