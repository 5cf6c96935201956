//! Sockets into instances: one thread asks for them, in batches, and keeps a few spare ones at hand.
//!
//! Asking takes a round trip to another process and may block; the threads that serve requests never do. Batches
//! cost a fraction per socket of single ones.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use kiln_model::{InstanceId, NeedName};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::Dial;
use crate::connect::is_exhausted;
use crate::table::Table;

/// Sockets fetched beyond those asked for, per instance.
const SPARE: usize = 4;
/// How long to wait before whoever makes sockets is asked again when nobody was there.
const AWAY: Duration = Duration::from_millis(20);
/// The most sockets asked for at once; larger batches add latency and gain nothing.
const BATCH: usize = 64;

type Reply = oneshot::Sender<io::Result<OwnedFd>>;

enum Wish {
    Socket(InstanceId, Reply),
    Keep(Arc<Table>),
    Listeners(InstanceId, oneshot::Sender<io::Result<Vec<(NeedName, OwnedFd)>>>),
    Store(InstanceId, NeedName, Reply),
}

/// Asks the stock for sockets; one per thread.
#[derive(Clone)]
pub(crate) struct Stock {
    wishes: Sender<Wish>,
    dial: Arc<dyn Dial>,
}

impl Stock {
    /// Starts the thread that asks `dial`. It ends with the last [`Stock`].
    pub(crate) fn start(dial: Arc<dyn Dial>) -> io::Result<Self> {
        let (wishes, incoming) = channel();
        let (ready, is_ready) = channel();
        let asked = dial.clone();
        let work = move || {
            let _ = ready.send(());
            keep(&*asked, &incoming);
        };
        thread::Builder::new().name("edge-sockets".into()).spawn(work)?;
        // What the start of a thread takes is forbidden soon.
        is_ready.recv().map_err(|_| io::Error::other("it ended at once"))?;
        Ok(Self { wishes, dial })
    }

    /// A socket inside the network of `instance`. If nobody can make one now it is waited for without end: how long a
    /// connection may take is the caller's affair.
    pub(crate) async fn socket(&self, instance: &InstanceId) -> io::Result<OwnedFd> {
        loop {
            let (reply, answer) = oneshot::channel();
            self.wishes.send(Wish::Socket(instance.clone(), reply)).map_err(|_| ended())?;
            match answer.await.map_err(|_| ended())? {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => sleep(AWAY).await,
                answer => return answer,
            }
        }
    }

    /// What listens inside `instance` for what it needs.
    pub(crate) async fn listeners(&self, instance: &InstanceId) -> io::Result<Vec<(NeedName, OwnedFd)>> {
        let (reply, answer) = oneshot::channel();
        self.wishes.send(Wish::Listeners(instance.clone(), reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// A connection to a store that `instance` needs, begun.
    pub(crate) async fn store(&self, instance: &InstanceId, need: &NeedName) -> io::Result<OwnedFd> {
        let (reply, answer) = oneshot::channel();
        self.wishes.send(Wish::Store(instance.clone(), need.clone(), reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Closes the spare sockets of instances that `table` does not name: each keeps its instance's network alive.
    pub(crate) fn keep(&self, table: Arc<Table>) {
        // If the thread is gone, so are its sockets.
        let _ = self.wishes.send(Wish::Keep(table));
    }

    pub(crate) fn dial(&self) -> &dyn Dial {
        &*self.dial
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread that gets sockets has ended")
}

fn keep(dial: &dyn Dial, wishes: &Receiver<Wish>) {
    let mut spare: HashMap<InstanceId, Vec<OwnedFd>> = HashMap::new();
    while let Ok(first) = wishes.recv() {
        let mut asked: HashMap<InstanceId, Vec<Reply>> = HashMap::new();
        for wish in std::iter::once(first).chain(wishes.try_iter().take(BATCH)) {
            match wish {
                Wish::Socket(instance, reply) => asked.entry(instance).or_default().push(reply),
                // Who asked may have gone.
                Wish::Listeners(instance, reply) => drop(reply.send(dial.listeners(&instance))),
                Wish::Store(instance, need, reply) => drop(reply.send(dial.store(&instance, &need))),
                Wish::Keep(table) => {
                    let named: std::collections::HashSet<_> = table.instances().collect();
                    spare.retain(|instance, _| named.contains(instance));
                }
            }
        }
        for (instance, replies) in asked {
            let failure = refill(dial, &instance, &mut spare, replies.len()).err();
            hand_out(spare.entry(instance).or_default(), replies, failure);
        }
    }
}

/// Sees to it that there are as many as are `wanted`, and a few more. Where descriptors have run out there are no more, and
/// those that others could need make room.
fn refill(
    dial: &dyn Dial,
    instance: &InstanceId,
    spare: &mut HashMap<InstanceId, Vec<OwnedFd>>,
    wanted: usize,
) -> io::Result<()> {
    let missing = wanted.saturating_sub(spare.get(instance).map_or(0, Vec::len));
    if missing == 0 {
        return Ok(());
    }
    let got = match dial.sockets(instance, (missing + SPARE) as u32) {
        Err(error) if is_exhausted(&error) => {
            spare.retain(|of, _| of == instance);
            dial.sockets(instance, missing as u32)?
        }
        got => got?,
    };
    spare.entry(instance.clone()).or_default().extend(got);
    Ok(())
}

fn hand_out(sockets: &mut Vec<OwnedFd>, replies: Vec<Reply>, failure: Option<io::Error>) {
    let short = || match &failure {
        // Which error of the system it is says whose fault it is.
        Some(e) => e
            .raw_os_error()
            .map_or_else(|| io::Error::new(e.kind(), e.to_string()), io::Error::from_raw_os_error),
        None => io::Error::other("fewer sockets were given than asked for"),
    };
    for reply in replies {
        let answer = sockets.pop().ok_or_else(short);
        // Whoever asked may have given up; then the socket is as good as new.
        if let Err(Ok(socket)) = reply.send(answer) {
            sockets.push(socket);
        }
    }
}
