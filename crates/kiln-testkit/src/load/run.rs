//! Making the load: one thread, one clock.

use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval};

use super::connection::Connection;
use super::ledger::Ledger;
use super::plan::LoadPlan;
use super::queue::Queue;
use super::report::LoadReport;

/// How often it is looked what is due.
const TICK: Duration = Duration::from_millis(1);

/// Makes load.
#[derive(Debug)]
pub struct Load;

/// A load under way. Dropped without [`LoadHandle::stop`] it ends, and nobody learns how it went.
pub struct LoadHandle {
    stop: oneshot::Sender<()>,
    ledger: Arc<Ledger>,
    thread: thread::JoinHandle<()>,
}

impl Load {
    /// Starts the load on a thread of its own.
    ///
    /// # Panics
    /// If the address is not on loopback: this is for tests. If no thread can be started.
    pub fn start(plan: LoadPlan) -> LoadHandle {
        assert!(plan.address.ip().is_loopback(), "{} is not on loopback", plan.address);
        let (stop, stopped) = oneshot::channel();
        let ledger = Arc::new(Ledger::open());
        let books = ledger.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("start the reactor of the load");
        let make = move || LocalSet::new().block_on(&runtime, make(Rc::new(plan), books, stopped));
        let thread = thread::Builder::new().name("load".into()).spawn(make).expect("start the load's thread");
        LoadHandle { stop, ledger, thread }
    }
}

impl LoadHandle {
    /// How it went until now.
    pub fn so_far(&self) -> LoadReport {
        self.ledger.report()
    }

    /// Waits until `count` requests have ended since the start; false if they have not within `limit`.
    pub fn wait_for(&self, count: u64, limit: Duration) -> bool {
        self.ledger.wait_for(count, limit)
    }

    /// Begins no more requests, waits for those that began, and tells how it went.
    ///
    /// # Panics
    /// If the books do not balance, which is a bug here.
    pub fn stop(self) -> LoadReport {
        let _ = self.stop.send(());
        self.thread.join().expect("the load's thread ends");
        let report = self.ledger.report();
        let ended = report.succeeded + report.failures.len() as u64;
        assert_eq!(report.requests, ended, "every request is accounted for");
        report
    }
}

async fn make(plan: Rc<LoadPlan>, ledger: Arc<Ledger>, mut stopped: oneshot::Receiver<()>) {
    let queue = Rc::<Queue>::default();
    let mut tasks = JoinSet::new();
    for _ in 0..plan.keep_alive_connections {
        tasks.spawn_local(keep_asking(plan.clone(), ledger.clone(), queue.clone()));
    }
    let (mut kept, mut fresh) = (Rate::of(plan.requests_per_s), Rate::of(plan.new_connections_per_s));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            _ = tick.tick() => {}
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
        }
        while let Some(due) = kept.next_due() {
            enqueue(&plan, &ledger, &queue, due);
        }
        while let Some(due) = fresh.next_due() {
            ledger.began();
            tasks.spawn_local(ask_once(plan.clone(), ledger.clone(), due));
        }
    }
    queue.close();
    while tasks.join_next().await.is_some() {}
}

/// A service that keeps up with nothing at all fails visibly, instead of filling the memory.
fn enqueue(plan: &LoadPlan, ledger: &Ledger, queue: &Queue, due: Instant) {
    ledger.began();
    let at_most = plan.timeout.as_secs().max(1) as usize * plan.requests_per_s as usize;
    if plan.keep_alive_connections == 0 || queue.len() >= at_most {
        ledger.ended(due, Err("no kept connection was free in time".into()));
    } else {
        queue.push(due);
    }
}

async fn ask_once(plan: Rc<LoadPlan>, ledger: Arc<Ledger>, due: Instant) {
    let asked = async {
        let mut connection = Connection::open(&plan).await?;
        connection.ask(&plan, &plan.request(false)).await
    };
    ledger.ended(due, asked.await.map(|answer| answer.marker));
}

async fn keep_asking(plan: Rc<LoadPlan>, ledger: Arc<Ledger>, queue: Rc<Queue>) {
    let request = plan.request(true);
    let mut kept: Option<Connection> = None;
    while let Some(due) = queue.next().await {
        if kept.as_ref().is_some_and(Connection::is_closed) {
            kept = None;
            ledger.reconnected();
        }
        let asked = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(&plan).await?,
            };
            let answer = connection.ask(&plan, &request).await?;
            kept = answer.keeps.then_some(connection);
            Ok(answer.marker)
        };
        ledger.ended(due, asked.await);
    }
}

/// When the next request is due, so many a second.
struct Rate {
    every: Option<Duration>,
    next: Instant,
}

impl Rate {
    fn of(per_s: u32) -> Self {
        let every = (per_s > 0).then(|| Duration::from_secs(1) / per_s);
        Self { every, next: Instant::now() }
    }

    fn next_due(&mut self) -> Option<Instant> {
        let due = self.next;
        if due > Instant::now() {
            return None;
        }
        self.next = due + self.every?;
        Some(due)
    }
}
