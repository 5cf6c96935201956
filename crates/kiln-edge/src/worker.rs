//! One thread of the edge: its listener, its view of the table, its connections.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::TcpListener as StdListener;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::Duration;

use kiln_model::InstanceId;
use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use crate::Limits;
use crate::accept;
use crate::account::AccessLog;
use crate::balance::Balance;
use crate::buffers::Buffers;
use crate::clients::Clients;
use crate::connection::Connections;
use crate::counts::Totals;
use crate::inside::Callers;
use crate::metrics::Registry;
use crate::proofs::Proofs;
use crate::random::Random;
use crate::sink::Sink;
use crate::sockets::{Door, Listener};
use crate::standing::Budget;
use crate::stock::Stock;
use crate::table::Table;
use crate::trust::Trust;
use crate::upstream::Upstream;

/// What a thread is told; each order is acknowledged when it is carried out.
pub(crate) enum Order {
    /// Serve by this table from now on.
    Table(Arc<Table>, oneshot::Sender<()>),
    /// Listen there as well.
    Listen(Vec<Listener>, oneshot::Sender<()>),
    /// Listen there no more.
    Deafen(Vec<Door>, oneshot::Sender<()>),
    /// Take no new connections, and ask clients to leave.
    Drain(oneshot::Sender<()>),
    /// Close what is left, within this time, and end.
    Close(Duration),
}

/// What all threads share.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) limits: Limits,
    pub(crate) stock: Stock,
    pub(crate) totals: Arc<Totals>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clients: Clients,
    /// Where the access log goes, if there is one.
    pub(crate) sink: Option<Arc<Sink>>,
    pub(crate) reads_proxy_headers: bool,
    pub(crate) tls: TlsAcceptor,
    pub(crate) proofs: Proofs,
    pub(crate) callers: Arc<Callers>,
    /// Where clients find HTTPS; 0 if it is not served.
    pub(crate) https_port: Arc<AtomicU16>,
}

/// What a thread is started with.
pub(crate) struct Post {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) common: Common,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    /// How many client connections this thread may have.
    pub(crate) connections: usize,
    /// Told once, when the thread is set up or cannot be.
    pub(crate) ready: std::sync::mpsc::Sender<io::Result<()>>,
}

/// The state of one thread, shared by its tasks and nobody else.
pub(crate) struct Worker {
    common: Common,
    pub(crate) random: Random,
    pub(crate) budget: Budget,
    pub(crate) log: Option<AccessLog>,
    pub(crate) connections: Rc<Connections>,
    pub(crate) at_most: usize,
    /// When the thread began; times are kept relative to it.
    pub(crate) epoch: Instant,
    closing: Notify,
    /// Told when no more connections are to be accepted.
    pub(crate) draining: Notify,
    /// Told when there is a new table.
    pub(crate) changed: Notify,
    is_draining: Cell<bool>,
    is_closing: Cell<bool>,
    balance: RefCell<Balance>,
    pub(crate) buffers: Buffers,
}

impl Deref for Worker {
    type Target = Common;
    fn deref(&self) -> &Common {
        &self.common
    }
}

impl Worker {
    /// Serves until told to close.
    pub(crate) fn run(post: Post) {
        let ready = post.ready.clone();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = match builder.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let serving = async move {
            let listening: io::Result<Vec<_>> = post.listeners.into_iter().map(listen).collect();
            match listening {
                Ok(listeners) => {
                    let worker = Rc::new(Self::new(post.common, post.connections));
                    spawn_local(sweep(worker.clone()));
                    let _ = ready.send(Ok(()));
                    worker.obey(listeners, post.orders).await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        };
        runtime.block_on(serving);
    }

    fn new(common: Common, at_most: usize) -> Self {
        Self {
            random: Random::new(),
            budget: Budget::new(),
            log: common.sink.clone().map(AccessLog::new),
            connections: Connections::new(common.totals.clone()),
            common,
            at_most,
            epoch: Instant::now(),
            closing: Notify::new(),
            draining: Notify::new(),
            changed: Notify::new(),
            is_draining: Cell::new(false),
            is_closing: Cell::new(false),
            balance: RefCell::new(Balance::empty()),
            buffers: Buffers::default(),
        }
    }

    pub(crate) fn balance(&self) -> Ref<'_, Balance> {
        self.balance.borrow()
    }

    /// Gives up the connections to instances that nobody uses: descriptors have run out.
    pub(crate) fn make_room(&self) {
        self.balance().upstreams().for_each(|upstream| upstream.close_idle());
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// Waits until connections are to end as soon as they can.
    pub(crate) async fn closing(&self) {
        let told = self.closing.notified();
        if !self.is_closing.get() {
            told.await;
        }
    }

    /// Waits until clients are to be asked to leave.
    pub(crate) async fn leaving(&self) {
        let told = self.draining.notified();
        if !self.is_draining.get() {
            told.await;
        }
    }

    async fn obey(
        self: &Rc<Self>,
        mut listeners: Vec<(Door, TcpListener)>,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) {
        // Nobody is accepted before there is a table: until then clients wait in the kernel's queue instead of
        // being told that there is nothing here.
        let mut has_table = false;
        let mut accepting: Vec<(Door, AbortHandle)> = Vec::new();
        while let Some(order) = orders.recv().await {
            match order {
                Order::Table(table, done) => {
                    self.adopt(table);
                    has_table = true;
                    let _ = done.send(());
                }
                Order::Listen(more, done) => {
                    // What cannot be listened on has been refused by whoever made it.
                    listeners.extend(more.into_iter().filter_map(|l| listen(l).ok()));
                    let _ = done.send(());
                }
                Order::Deafen(doors, done) => {
                    listeners.retain(|(door, _)| !doors.contains(door));
                    let closed: Vec<_> = accepting.extract_if(.., |(door, _)| doors.contains(door)).collect();
                    closed.iter().for_each(|(_, task)| task.abort());
                    // A listener is closed with its task, and that when this thread comes to it.
                    while !closed.iter().all(|(_, task)| task.is_finished()) {
                        tokio::task::yield_now().await;
                    }
                    let _ = done.send(());
                }
                Order::Drain(done) => {
                    listeners.clear();
                    self.is_draining.set(true);
                    self.draining.notify_waiters();
                    let _ = done.send(());
                }
                Order::Close(within) => return self.close(within).await,
            }
            if has_table {
                for (door, listener) in listeners.drain(..) {
                    let task = spawn_local(accept::accept(self.clone(), door, listener));
                    accepting.push((door, task.abort_handle()));
                }
            }
        }
    }

    /// The swap. From the end of this call on, no request of this thread begins by an older table.
    fn adopt(&self, table: Arc<Table>) {
        let mut balance = self.balance.borrow_mut();
        let mut known: HashMap<&InstanceId, &Rc<Upstream>> =
            balance.upstreams().map(|u| (u.id(), u)).collect();
        let next = Balance::new(table, &known);
        for kept in next.upstreams() {
            if known.get(kept.id()).is_some_and(|u| Rc::ptr_eq(u, kept)) {
                known.remove(kept.id());
            }
        }
        known.values().for_each(|gone| gone.leave());
        *balance = next;
        drop(balance);
        self.connections.cut_gone();
        self.changed.notify_waiters();
    }

    async fn close(&self, within: Duration) {
        self.connections.tell_all();
        self.is_closing.set(true);
        self.closing.notify_waiters();
        self.connections.end_resting();
        let all_ended = async {
            loop {
                let ended = self.connections.ended.notified();
                if self.connections.len() == 0 {
                    return;
                }
                ended.await;
            }
        };
        // Who has not gone by then is cut by the end of the thread.
        let _ = timeout(within, all_ended).await;
    }
}

fn listen(listener: Listener) -> io::Result<(Door, TcpListener)> {
    let socket = StdListener::from(listener.socket);
    socket.set_nonblocking(true)?;
    Ok((listener.door, TcpListener::from_std(socket)?))
}

/// Looks after what is overdue. One walk for all, instead of a timer for each.
async fn sweep(worker: Rc<Worker>) {
    let limits = &worker.limits;
    let shortest = limits
        .header_read
        .min(limits.keep_alive)
        .min(limits.client_stall)
        .min(limits.upstream_idle)
        .min(limits.response_head);
    let every = (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1));
    loop {
        tokio::time::sleep(every).await;
        worker.connections.cut_overdue(limits, &worker.registry.turned_away);
        if let Some(log) = &worker.log {
            log.flush();
        }
        worker.balance().upstreams().for_each(|u| u.expire(limits.upstream_idle));
    }
}
