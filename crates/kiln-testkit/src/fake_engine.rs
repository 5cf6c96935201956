//! An engine without machines: it remembers what it was told, and does what the test says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_engine::{Broker, Engine, EngineError, Execution, Room};
use kiln_model::{
    ExecOrder, Exit, ImageHandle, Inside, InstanceId, InstanceOrder, InstanceState, InstanceStatus, Limits,
    NeedName, Shortage, StoreAddress, StoreHost, Timestamp,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::storm::Chance;

/// Cloneable handle: all clones are the same engine. Nothing happens in it by itself, but that an instance told to
/// stop ends at once unless it was said to be stubborn.
#[derive(Debug, Clone, Default)]
pub struct FakeEngine(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    instances: BTreeMap<InstanceId, InstanceStatus>,
    orders: BTreeMap<InstanceId, InstanceOrder>,
    changes: VecDeque<InstanceStatus>,
    refuses: BTreeMap<String, String>,
    stubborn: BTreeSet<InstanceId>,
    fleeting: BTreeMap<InstanceId, Exit>,
    bad_luck: Option<(Chance, u64)>,
    connections: BTreeMap<InstanceId, u32>,
    places: BTreeMap<StoreHost, SocketAddr>,
    /// What listens for what each running instance needs, in the order of needs and ports.
    listeners: BTreeMap<InstanceId, Vec<Listening>>,
    /// How often it has forgotten everything.
    lives: u32,
    next_pid: u32,
    now: u64,
    down: bool,
    /// Whether whoever waits for changes, or will, is to come back.
    called_back: bool,
}

impl State {
    fn set(&mut self, id: &InstanceId, state: InstanceState) -> InstanceStatus {
        self.now += 1;
        let status = InstanceStatus {
            id: id.clone(),
            state,
            since: Timestamp(self.now),
            shortage: Shortage::default(),
        };
        self.instances.insert(id.clone(), status.clone());
        self.changes.push_back(status.clone());
        status
    }

    fn create(&mut self, order: &InstanceOrder) -> InstanceStatus {
        if let Some(known) = self.instances.get(&order.id) {
            return known.clone();
        }
        self.orders.insert(order.id.clone(), order.clone());
        let refused = self.refuses.iter().find(|(prefix, _)| order.id.as_str().starts_with(prefix.as_str()));
        match refused.map(|(_, cause)| cause.clone()).or_else(|| self.unlucky(&order.id)) {
            Some(cause) => self.set(&order.id, InstanceState::Ended { exit: Exit::NotStarted { cause } }),
            None => {
                self.next_pid += 1;
                self.listeners.insert(order.id.clone(), Listening::for_needs(&order.needs));
                let running = self.set(&order.id, InstanceState::Running { pid: 1000 + self.next_pid });
                if let Some(exit) = self.fleeting.remove(&order.id) {
                    self.end(&order.id, exit);
                }
                running
            }
        }
    }

    /// Whether this one has bad luck: half of those do not start, the others end as soon as they have.
    fn unlucky(&mut self, id: &InstanceId) -> Option<String> {
        let (chance, of_million) = self.bad_luck.as_mut()?;
        if chance.below(1_000_000) >= *of_million {
            return None;
        }
        if chance.one_in(2) {
            return Some("bad luck".into());
        }
        self.fleeting.insert(id.clone(), Exit::Code { code: 1 });
        None
    }

    fn end(&mut self, id: &InstanceId, exit: Exit) {
        if self.instances.get(id).is_some_and(|s| s.state.pid().is_some()) {
            self.set(id, InstanceState::Ended { exit });
            self.listeners.remove(id);
        }
    }
}

impl FakeEngine {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Instances whose id begins so cannot be started from now on, for this cause.
    pub fn refuse(&self, prefix: &str, cause: &str) {
        self.state().refuses.insert(prefix.into(), cause.into());
    }

    /// From now on so many instances of a million fail, each by itself; the same ones for the same seed.
    pub fn have_bad_luck(&self, seed: u64, of_million: u64) {
        self.state().bad_luck = Some((Chance::new(seed), of_million));
    }

    /// This instance does not end when it is asked to, only when it is killed.
    pub fn make_stubborn(&self, id: &InstanceId) {
        self.state().stubborn.insert(id.clone());
    }

    /// This instance ends so as soon as it has been started.
    pub fn end_when_started(&self, id: &InstanceId, exit: Exit) {
        self.state().fleeting.insert(id.clone(), exit);
    }

    /// So many connections to this instance are open.
    pub fn set_connections(&self, id: &InstanceId, count: u32) {
        self.state().connections.insert(id.clone(), count);
    }

    /// The main process of this instance ends by itself.
    pub fn end_with_code(&self, id: &InstanceId, code: i32) {
        self.state().end(id, Exit::Code { code });
        self.0.news.notify_all();
    }

    /// A signal ends the main process of this instance.
    pub fn end_with_signal(&self, id: &InstanceId, signal: i32) {
        self.state().end(id, Exit::Signal { signal });
        self.0.news.notify_all();
    }

    /// The machine is started anew: nothing runs, and nothing is remembered.
    pub fn start_anew(&self) {
        let mut state = self.state();
        state.lives += 1;
        state.instances.clear();
        state.changes.clear();
    }

    /// What was ordered under this id, if anything was.
    pub fn order(&self, id: &InstanceId) -> Option<InstanceOrder> {
        self.state().orders.get(id).cloned()
    }

    /// Makes it answer nobody, or answer again.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// The changes nobody has been told of yet.
    pub fn drain_changes(&self) -> Vec<InstanceStatus> {
        self.state().changes.drain(..).collect()
    }

    fn reach(&self, attempted: &'static str) -> Result<MutexGuard<'_, State>, EngineError> {
        let state = self.state();
        if state.down {
            let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            return Err(EngineError::Unreachable { engine: "fake", attempted, source });
        }
        Ok(state)
    }
}

impl Engine for FakeEngine {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn memory(&self) -> Result<String, EngineError> {
        Ok(self.reach("tell what it remembers")?.lives.to_string())
    }

    fn create(&self, orders: &[InstanceOrder]) -> Result<Vec<InstanceStatus>, EngineError> {
        let mut state = self.reach("make instances")?;
        let made = orders.iter().map(|order| state.create(order)).collect();
        self.0.news.notify_all();
        Ok(made)
    }

    fn stop(&self, ids: &[InstanceId]) -> Result<(), EngineError> {
        let mut state = self.reach("stop instances")?;
        for id in ids {
            if state.stubborn.contains(id) {
                if let Some(pid) = state.instances.get(id).and_then(|s| s.state.pid()) {
                    state.set(id, InstanceState::Stopping { pid });
                }
            } else {
                state.end(id, Exit::Signal { signal: 15 });
            }
        }
        self.0.news.notify_all();
        Ok(())
    }

    fn kill(&self, ids: &[InstanceId]) -> Result<(), EngineError> {
        let mut state = self.reach("kill instances")?;
        ids.iter().for_each(|id| state.end(id, Exit::Signal { signal: 9 }));
        self.0.news.notify_all();
        Ok(())
    }

    fn list(&self) -> Result<Vec<InstanceStatus>, EngineError> {
        Ok(self.reach("list instances")?.instances.values().cloned().collect())
    }

    fn changes(&self, timeout: Duration) -> Result<Vec<InstanceStatus>, EngineError> {
        let state = self.reach("tell what changed")?;
        let waits = |s: &mut State| s.changes.is_empty() && !s.down && !s.called_back;
        let waited = self.0.news.wait_timeout_while(state, timeout, waits);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if std::mem::take(&mut state.called_back) {
            return Ok(Vec::new());
        }
        Ok(state.changes.drain(..).collect())
    }

    fn call_back(&self) {
        self.state().called_back = true;
        self.0.news.notify_all();
    }

    fn forget(&self, ids: &[InstanceId]) -> Result<(), EngineError> {
        let mut state = self.reach("forget instances")?;
        state.instances.retain(|id, s| !ids.contains(id) || s.state.pid().is_some());
        Ok(())
    }

    fn sockets(&self, id: &InstanceId, count: u32) -> Result<Vec<OwnedFd>, EngineError> {
        let state = self.reach("make sockets")?;
        match state.instances.get(id).map(|s| &s.state) {
            Some(InstanceState::Running { .. } | InstanceState::Stopping { .. }) => {
                (0..count).map(|_| socket()).collect()
            }
            _ => Err(EngineError::NoSuchInstance(id.clone())),
        }
    }

    fn locate(&self, places: &BTreeMap<StoreHost, SocketAddr>) -> Result<(), EngineError> {
        self.reach("tell where stores are")?.places = places.clone();
        Ok(())
    }

    /// A fake instance has no directories but an empty one.
    fn root(&self, id: &InstanceId) -> Result<OwnedFd, EngineError> {
        self.connections(id, 0)?;
        let unreachable =
            |source| EngineError::Unreachable { engine: "fake", attempted: "look inside", source };
        let dir = tempfile::tempdir().map_err(unreachable)?;
        std::fs::File::open(dir.path()).map(OwnedFd::from).map_err(unreachable)
    }

    fn unenforceable(&self, _: &Limits, _: &ImageHandle) -> Option<String> {
        None
    }

    fn room(&self) -> Option<Room> {
        None
    }

    fn connections(&self, id: &InstanceId, _: u16) -> Result<u32, EngineError> {
        let state = self.reach("count connections")?;
        match state.instances.get(id).and_then(|s| s.state.pid()) {
            Some(_) => Ok(state.connections.get(id).copied().unwrap_or(0)),
            None => Err(EngineError::NoSuchInstance(id.clone())),
        }
    }

    /// Knows `echo` and its words, `exit` and a code, `tell` and a need, a port and a word, and `run` with what is printed
    /// first; nothing else is in its images.
    fn exec(
        &self,
        id: &InstanceId,
        order: &ExecOrder,
        [_, stdout, stderr]: [OwnedFd; 3],
    ) -> Result<Box<dyn Execution>, EngineError> {
        drop(self.reach("run a command")?);
        let words: Vec<&str> = order.argv.iter().map(String::as_str).collect();
        let exit = match words[..] {
            ["echo", ref words @ ..] => {
                print(&stdout, words);
                Some(Exit::Code { code: 0 })
            }
            ["tell", need, port, text] => Some(self.tell(id, need, port, text)),
            ["exit", code] => Some(Exit::Code { code: code.parse().unwrap_or(2) }),
            ["run"] => None,
            ["run", ref words @ ..] => {
                print(&stdout, words);
                None
            }
            _ => Some(Exit::NotStarted { cause: format!("could not execute {}", order.argv.join(" ")) }),
        };
        let streams = exit.is_none().then_some([stdout, stderr]);
        Ok(Box::new(FakeExecution { engine: self.clone(), id: id.clone(), exit, _streams: streams }))
    }
}

/// A reader that has gone misses it.
fn print(stdout: &OwnedFd, words: &[&str]) {
    let _ = rustix::io::write(stdout, format!("{}\n", words.join(" ")).as_bytes());
}

/// A command in a fake instance: it holds its streams as long as it runs.
struct FakeExecution {
    engine: FakeEngine,
    id: InstanceId,
    exit: Option<Exit>,
    _streams: Option<[OwnedFd; 2]>,
}

impl Execution for FakeExecution {
    fn wait(&mut self, timeout: Duration) -> Result<Option<Exit>, EngineError> {
        let state = self.engine.state();
        let runs = |s: &State| s.instances.get(&self.id).is_some_and(|i| i.state.pid().is_some());
        match &self.exit {
            Some(exit) if runs(&state) => Ok(Some(exit.clone())),
            Some(_) => Err(EngineError::NoSuchInstance(self.id.clone())),
            None => {
                let news = &self.engine.0.news;
                let waited = news.wait_timeout_while(state, timeout, |s| runs(s));
                let state = waited.unwrap_or_else(PoisonError::into_inner).0;
                Ok((!runs(&state)).then_some(Exit::Signal { signal: 9 }))
            }
        }
    }
}

impl Broker for FakeEngine {
    fn sockets(&self, id: &InstanceId, count: u32) -> Result<Vec<OwnedFd>, EngineError> {
        Engine::sockets(self, id, count)
    }

    fn listeners(&self, id: &InstanceId) -> Result<Vec<(NeedName, OwnedFd)>, EngineError> {
        let state = self.reach("get what listens inside an instance")?;
        let listening = state.listeners.get(id).ok_or_else(|| EngineError::NoSuchInstance(id.clone()))?;
        listening
            .iter()
            .map(|l| Ok((l.need.clone(), l.listener.try_clone().map_err(unreachable)?.into())))
            .collect()
    }

    fn store(&self, id: &InstanceId, need: &NeedName) -> Result<OwnedFd, EngineError> {
        let state = self.reach("connect to a store")?;
        if !state.listeners.contains_key(id) {
            return Err(EngineError::NoSuchInstance(id.clone()));
        }
        let needs = state.orders.get(id).into_iter().flat_map(|order| &order.needs);
        let address = match needs.filter(|n| n.name == *need).find_map(|n| n.store.as_ref()) {
            Some(StoreAddress::At(address)) => Some(*address),
            Some(StoreAddress::Named(host)) => state.places.get(host).copied(),
            None => None,
        };
        let address = address.ok_or_else(|| unreachable(std::io::ErrorKind::NotFound.into()))?;
        let connection = TcpStream::connect(address).map_err(unreachable)?;
        connection.set_nonblocking(true).map_err(unreachable)?;
        Ok(connection.into())
    }
}

/// A port of a need. A fake instance has no network of its own: any free port of this process's will do.
#[derive(Debug)]
struct Listening {
    need: NeedName,
    port: u16,
    listener: TcpListener,
}

impl Listening {
    fn for_needs(needs: &[Inside]) -> Vec<Self> {
        let of = |need: &Inside| need.ports.iter().map(|port| (need.name.clone(), *port)).collect::<Vec<_>>();
        let listen = |(need, port)| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.set_nonblocking(true).expect("a socket");
            Self { need, port, listener }
        };
        needs.iter().flat_map(of).map(listen).collect()
    }
}

impl FakeEngine {
    fn tell(&self, id: &InstanceId, need: &str, port: &str, text: &str) -> Exit {
        let state = self.state();
        let listening = state.listeners.get(id).into_iter().flatten();
        let mut wanted = listening.filter(|l| l.need.as_str() == need && l.port.to_string() == port);
        let said = wanted.next().and_then(|l| l.listener.local_addr().ok()).map(|address| {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(format!("{text}\n").as_bytes())
        });
        Exit::Code { code: if matches!(said, Some(Ok(()))) { 0 } else { 1 } }
    }
}

fn unreachable(source: std::io::Error) -> EngineError {
    EngineError::Unreachable { engine: "fake", attempted: "reach what an instance needs", source }
}

/// A socket of this process's own network: a fake instance has none.
fn socket() -> Result<OwnedFd, EngineError> {
    let made = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None);
    made.map_err(|e| EngineError::Unreachable { engine: "fake", attempted: "make sockets", source: e.into() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kiln_model::{ByteSize, ImageDigest, ImageHandle, Limits, Millis, RunSettings, Sha256};

    use super::*;
    use crate::conformance::{self, Command, Harness, Program};

    impl Harness for FakeEngine {
        fn engine(&self) -> &dyn Engine {
            self
        }

        fn broker(&self) -> Box<dyn Broker> {
            Box::new(self.clone())
        }

        fn order(&self, id: &str, program: Program) -> InstanceOrder {
            let order = order(id);
            match program {
                Program::Missing => self.refuse(id, "could not execute /bin/missing"),
                Program::IgnoresStop => self.make_stubborn(&order.id),
                Program::Exits(code) => self.end_when_started(&order.id, Exit::Code { code: code.into() }),
                Program::EatsMemory => {
                    self.end_when_started(&order.id, Exit::OutOfMemory { limit: order.limits.memory });
                }
                Program::Runs | Program::HandlesStop => {}
            }
            order
        }

        fn command(&self, command: Command) -> ExecOrder {
            let argv = match command {
                Command::Prints(text) => vec!["echo".into(), text.into()],
                Command::Exits(code) => vec!["exit".into(), code.to_string()],
                Command::Runs => vec!["run".into()],
                Command::PrintsAndRuns(text) => vec!["run".into(), text.into()],
                Command::Missing => vec!["missing".into()],
                Command::Tells { need, port, text } => {
                    vec!["tell".into(), need.into(), port.to_string(), text.into()]
                }
            };
            ExecOrder::beside(&order("a").run, argv)
        }

        fn kill_unseen(&self, id: &InstanceId) {
            self.end_with_signal(id, 9);
        }

        fn grace_is_over(&self, id: &InstanceId) {
            self.end_with_signal(id, 9);
        }
    }

    fn order(id: &str) -> InstanceOrder {
        InstanceOrder {
            id: id.parse().unwrap(),
            app: "fake".parse().unwrap(),
            service: None,
            release: None,
            image: ImageHandle {
                digest: ImageDigest(Sha256::of(b"fake")),
                metadata: "/none".into(),
                objects: "/none".into(),
            },
            run: RunSettings { stop_grace: Millis(1000), ..RunSettings::as_root(["/bin/true"]) },
            env: BTreeMap::new(),
            limits: Limits { memory: ByteSize(1 << 20), cpu_millis: 100, pids: 10, io: None },
            volatile: vec![],
            capabilities: Default::default(),
            secrets: Vec::new(),
            needs: vec![],
        }
    }

    #[test]
    fn it_does_what_every_engine_does() {
        conformance::run(&|| Box::new(FakeEngine::default()));
    }
}
