//! Making the streams: one thread, on which each client begins the next when its last has ended.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use super::kind::StreamKind;
use super::ledger::{Ledger, Loss, Outcome};
use super::plan::StreamPlan;
use super::report::StreamReport;
use super::{events, http2, transfer, websocket};

/// How long a stream may take before it has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a client whose stream has failed waits before the next: where nobody answers, failures are not to pile up.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Streams under way. Dropped without [`Streams::stop`] no more begin, and nobody learns how they went.
pub struct Streams {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the clients have in common with each other and with whoever started them.
pub(super) struct Shared {
    pub(super) plan: StreamPlan,
    pub(super) ledger: Ledger,
    /// Read by every stream for as long as it lasts.
    gate: RwLock<()>,
    is_over: AtomicBool,
}

impl Streams {
    /// Starts the clients on a thread of their own.
    ///
    /// # Panics
    /// If the address is not on loopback: this is for tests. If no thread can be started.
    pub fn start(plan: StreamPlan) -> Self {
        assert!(plan.address.ip().is_loopback(), "{} is not on loopback", plan.address);
        let (ledger, gate) = (Ledger::open(), RwLock::new(()));
        let shared = Arc::new(Shared { plan, ledger, gate, is_over: AtomicBool::new(false) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, clients) = (runtime.expect("start the reactor of the streams"), shared.clone());
        let make = move || LocalSet::new().block_on(&runtime, make(clients));
        let thread = thread::Builder::new().name("streams".into()).spawn(make).expect("start their thread");
        Self { shared, thread: Some(thread) }
    }

    /// How they went until now.
    pub fn so_far(&self) -> StreamReport {
        self.shared.ledger.report()
    }

    /// Does something while none is under way: those that are come to their end first, and none begins meanwhile.
    pub fn without<T>(&self, act: impl FnOnce() -> T) -> T {
        let _shut = self.shared.gate.blocking_write();
        act()
    }

    /// Begins no more, waits for those that began, and tells how they went.
    ///
    /// # Panics
    /// If the books do not balance, which is a bug here.
    pub fn stop(mut self) -> StreamReport {
        self.shared.is_over.store(true, SeqCst);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().expect("the thread of the streams ends");
        let report = self.shared.ledger.report();
        for (kind, counts) in &report.by_kind {
            let ended = counts.whole + counts.declined + counts.failures.len() as u64;
            assert_eq!(counts.begun, ended, "every stream is accounted for: {kind}");
        }
        report
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
    }
}

impl Shared {
    /// Waits until a stream may begin, and holds up who wants none for as long as it is kept; None if all is over.
    pub(super) async fn turn(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let turn = self.gate.read().await;
        (!self.is_over.load(SeqCst)).then_some(turn)
    }

    /// Writes down how a stream ended.
    pub(super) async fn ended(&self, kind: &'static str, outcome: &Outcome) {
        self.ledger.ended(kind, outcome);
        if matches!(outcome, Err(Loss::Failed(_))) {
            sleep(AFTER_FAILURE).await;
        }
    }
}

async fn make(shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    for kind in shared.plan.kinds.iter().map(|kind| Rc::new(kind.clone())) {
        for _ in 0..shared.plan.clients_of_each {
            let (shared, kind) = (shared.clone(), kind.clone());
            clients.spawn_local(async move { go_on(&shared, &kind).await });
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client does not panic");
    }
}

async fn go_on(shared: &Shared, kind: &StreamKind) {
    if let StreamKind::Http2 { long, bytes, short } = kind {
        return http2::Client { shared, kind: kind.name(), long, bytes: *bytes, short }.go_on().await;
    }
    while let Some(_turn) = shared.turn().await {
        shared.ledger.began(kind.name());
        let late = |_| Err(Loss::Failed(format!("no end within {PATIENCE:?}")));
        let outcome = timeout(PATIENCE, one(&shared.plan, kind)).await.unwrap_or_else(late);
        shared.ended(kind.name(), &outcome).await;
    }
}

async fn one(plan: &StreamPlan, kind: &StreamKind) -> Outcome {
    match kind {
        StreamKind::Events { path, events } => events::hear(plan, path, *events).await,
        StreamKind::Websocket { path, messages, pace } => websocket::talk(plan, path, *messages, *pace).await,
        StreamKind::Download { path, bytes } => transfer::download(plan, path, *bytes).await,
        StreamKind::Upload { path, bytes, takes } => transfer::upload(plan, path, *bytes, *takes).await,
        StreamKind::Http2 { .. } => unreachable!("it keeps its connection"),
    }
}
