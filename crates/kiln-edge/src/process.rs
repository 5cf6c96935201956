//! The edge's process, from its first instruction to its last.

use std::io;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::clients::Clients;
use crate::confine;
use crate::director::Director;
use crate::inside::Callers;
use crate::orders::take_orders;
use crate::sink::Sink;
use crate::sockets::{Door, Listener};
use crate::stock::Stock;
use crate::tls::{self, Certificates};
use crate::worker::{Common, Order, Post, Worker};
use crate::{EdgeConfig, EdgeError};

/// Serves until it is told to shut down on its control socket; accepts clients from its first table on. Takes its
/// orders from the user it was started by, whoever it becomes.
///
/// # Errors
/// If it cannot set itself up or confine itself; then it has served nobody. If one of its threads fails.
pub fn run(config: EdgeConfig) -> Result<(), EdgeError> {
    let setup = |attempted| move |source| EdgeError::Setup { attempted, source };
    let owner = getuid().as_raw();
    raise_descriptor_limit().map_err(setup("raise its limit of open descriptors"))?;
    if let Some(confinement) = &config.confinement {
        confine::drop_privileges(*confinement)?;
        confine::close_the_file_system()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(setup("start its main thread's reactor"))?;
    let stock = Stock::start(config.dial.clone()).map_err(setup("start the thread that gets sockets"))?;
    let (ended, ends) = mpsc::unbounded_channel();
    let (certificates, https) = (Certificates::default(), config.sockets.address(Door::Https));
    let callers = Arc::<Callers>::default();
    let keeps_log = config.settings.access_log;
    let sink = keeps_log.then(Sink::stdout).transpose().map_err(setup("keep its access log"))?;
    let common = Common {
        sink: sink.map(Arc::new),
        limits: config.limits,
        stock,
        totals: Arc::default(),
        trust: Arc::new(config.settings.trust.clone()),
        registry: Arc::default(),
        clients: Clients::default(),
        reads_proxy_headers: config.settings.proxy_headers,
        proofs: certificates.proofs.clone(),
        tls: tls::acceptor(&certificates).map_err(setup("set up TLS"))?,
        callers: callers.clone(),
        https_port: Arc::new(AtomicU16::new(https.map_or(0, |address| address.port()))),
    };
    let kept = config.sockets.listeners.iter().map(Listener::try_clone).collect::<io::Result<_>>();
    let kept = kept.map_err(setup("keep its listening sockets"))?;
    let shared = common.clone();
    let crew = Crew::muster(config.sockets.listeners, common, &ended).map_err(setup("start its threads"))?;
    if config.confinement.is_some() {
        // Last, and for all threads at once: none of them has served anyone yet, and none can be started any more.
        confine::allow_only_a_proxys_calls()?;
    }
    let director =
        Rc::new(Director::new(crew.orders, shared, certificates, config.settings.identity, kept, callers));
    let control = UnixListener::from(config.sockets.control);
    LocalSet::new().block_on(&runtime, serve(control, owner, director, ends))?;
    crew.threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

async fn serve(
    control: UnixListener,
    owner: u32,
    director: Rc<Director>,
    mut ends: mpsc::UnboundedReceiver<usize>,
) -> Result<(), EdgeError> {
    let mut orders = pin!(take_orders(control, owner, director.clone()));
    loop {
        tokio::select! {
            failed = &mut orders => {
                let attempted = "listen on its control socket";
                return failed.map_err(|source| EdgeError::Setup { attempted, source });
            }
            Some(thread) = ends.recv() => {
                if !director.is_ending() {
                    return Err(EdgeError::ThreadEnded { thread });
                }
            }
            () = director.ended.notified() => return Ok(()),
        }
    }
}

/// The threads that serve, all of them set up.
struct Crew {
    orders: Vec<mpsc::UnboundedSender<Order>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Crew {
    /// Starts a thread for each listener of a door and waits until each has made what it needs: once system calls are
    /// restricted, it could not.
    fn muster(
        listeners: Vec<Listener>,
        common: Common,
        ended: &mpsc::UnboundedSender<usize>,
    ) -> io::Result<Self> {
        let mut crew = Self { orders: Vec::new(), threads: Vec::new() };
        let shares = share_out(listeners);
        let connections = at_most(common.limits.connections).div_ceil(shares.len().max(1));
        for (number, listeners) in shares.into_iter().enumerate() {
            let (orders, received) = mpsc::unbounded_channel();
            let (ready, is_ready) = std::sync::mpsc::channel();
            let post = Post { listeners, common: common.clone(), orders: received, connections, ready };
            let ended = ended.clone();
            let begin = move || {
                Worker::run(post);
                let _ = ended.send(number);
            };
            crew.threads.push(thread::Builder::new().name(format!("edge-{number}")).spawn(begin)?);
            crew.orders.push(orders);
            is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("a thread ended at once")))?;
        }
        Ok(crew)
    }
}

/// One listener of each door for each thread; with fewer than threads, some have none.
pub(crate) fn share_out(listeners: Vec<Listener>) -> Vec<Vec<Listener>> {
    let mut shares: Vec<Vec<Listener>> = Vec::new();
    for listener in listeners {
        match shares.iter_mut().find(|share| share.iter().all(|l| l.door != listener.door)) {
            Some(share) => share.push(listener),
            None => shares.push(vec![listener]),
        }
    }
    shares
}

/// A client under way takes two descriptors, its own and one to an instance; those must be there.
fn at_most(connections: usize) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    connections.min(usize::try_from(descriptors / 2).unwrap_or(usize::MAX)).max(1)
}

fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}
