use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::mpsc::{Sender, channel};

use kiln_engine::{EngineError, Execution, Room};
use kiln_model::{
    ExecOrder, Exit, ImageHandle, InstanceOrder, InstanceStatus, Limits, Millis, Probe, StoreHost,
};

use super::*;
use crate::shelf::SystemClock;

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
    let mut condition = Condition::presumed(false, Timestamp(0));
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

/// An engine whose commands do not end before the test lets go of `gate`, and which neither runs them nor makes sockets if
/// it is to tell `refused` of each instead.
#[derive(Default)]
struct Hanging {
    gate: Arc<Mutex<()>>,
    refused: Option<Sender<()>>,
    /// Held by who makes it stand still when it is asked for sockets.
    still: Arc<Mutex<()>>,
}

impl Hanging {
    fn refuse(&self, id: &InstanceId) -> Result<(), EngineError> {
        let Some(refused) = &self.refused else { return Ok(()) };
        let _ = refused.send(());
        Err(EngineError::NoSuchInstance(id.clone()))
    }
}

impl Execution for Hanging {
    fn wait(&mut self, _: Duration) -> Result<Option<Exit>, EngineError> {
        drop(lock(&self.gate));
        Ok(None)
    }
}

impl Engine for Hanging {
    fn name(&self) -> &'static str {
        "hanging"
    }

    fn memory(&self) -> Result<String, EngineError> {
        Ok(String::new())
    }

    fn create(&self, _: &[InstanceOrder]) -> Result<Vec<InstanceStatus>, EngineError> {
        Ok(Vec::new())
    }

    fn stop(&self, _: &[InstanceId]) -> Result<(), EngineError> {
        Ok(())
    }

    fn kill(&self, _: &[InstanceId]) -> Result<(), EngineError> {
        Ok(())
    }

    fn list(&self) -> Result<Vec<InstanceStatus>, EngineError> {
        Ok(Vec::new())
    }

    fn changes(&self, _: Duration) -> Result<Vec<InstanceStatus>, EngineError> {
        Ok(Vec::new())
    }

    fn call_back(&self) {}

    fn forget(&self, _: &[InstanceId]) -> Result<(), EngineError> {
        Ok(())
    }

    fn sockets(&self, id: &InstanceId, _: u32) -> Result<Vec<OwnedFd>, EngineError> {
        self.refuse(id)?;
        drop(lock(&self.still));
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        Ok(vec![socket.as_fd().try_clone_to_owned().unwrap()])
    }

    fn locate(&self, _: &BTreeMap<StoreHost, SocketAddr>) -> Result<(), EngineError> {
        Ok(())
    }

    fn root(&self, id: &InstanceId) -> Result<OwnedFd, EngineError> {
        Err(EngineError::NoSuchInstance(id.clone()))
    }

    fn unenforceable(&self, _: &Limits, _: &ImageHandle) -> Option<String> {
        None
    }

    fn room(&self) -> Option<Room> {
        None
    }

    fn connections(&self, _: &InstanceId, _: u16) -> Result<u32, EngineError> {
        Ok(0)
    }

    fn exec(
        &self,
        id: &InstanceId,
        _: &ExecOrder,
        _: [OwnedFd; 3],
    ) -> Result<Box<dyn Execution>, EngineError> {
        self.refuse(id)?;
        Ok(Box::new(Self { gate: self.gate.clone(), ..Self::default() }))
    }
}

#[test]
fn commands_that_hang_keep_nobody_else_from_being_asked() {
    let engine = Arc::new(Hanging::default());
    let (gate, door) = (engine.gate.clone(), TcpListener::bind("127.0.0.1:0").unwrap());
    let held = lock(&gate);
    let (woken, news) = channel();
    let prober =
        Prober::start(engine, Arc::new(SystemClock), move || woken.send(()).unwrap_or_default()).unwrap();
    let run = kiln_model::RunSettings::as_root(["/app"]);
    let exec = Some(ExecOrder::beside(&run, vec!["/sleep".into()]));
    let hangs = |n: u32| (format!("a-web-1-{n}").parse().unwrap(), Watch { exec: exec.clone(), ..watch() });
    let mut watches: BTreeMap<InstanceId, Watch> = (1..=200).map(hangs).collect();
    let well: InstanceId = "b-web-1-1".parse().unwrap();
    let (port, timeout) = (door.local_addr().unwrap().port(), Millis(5_000));
    watches.insert(well.clone(), Watch { port, timeout, ..watch() });
    prober.watch(&watches);
    // Only that one has any news.
    let told = news.recv_timeout(Duration::from_secs(20));
    let healthy: Vec<InstanceId> =
        prober.conditions().into_iter().filter(|(_, c)| c.healthy).map(|(id, _)| id).collect();
    drop(held);
    assert_eq!((told, healthy), (Ok(()), vec![well]));
}

#[test]
fn who_cannot_be_asked_is_what_it_was() {
    let (refused, refusals) = channel();
    let engine = Arc::new(Hanging { refused: Some(refused), ..Hanging::default() });
    let prober = Prober::start(engine, Arc::new(SystemClock), || ()).unwrap();
    let ids = ["a-web-1-1", "a-web-1-2", "a-web-1-3"].map(|id| id.parse().unwrap());
    let [well, new, by_command]: [InstanceId; 3] = ids;
    let was_well = || Watch { presumed_healthy: Some(Timestamp(1)), ..watch() };
    let run = kiln_model::RunSettings::as_root(["/app"]);
    let exec = Some(ExecOrder::beside(&run, vec!["/is-well".into()]));
    prober.watch(&BTreeMap::from([
        (well.clone(), was_well()),
        (new.clone(), watch()),
        (by_command.clone(), Watch { exec, ..was_well() }),
    ]));
    // Of each more often than it may miss an answer.
    for _ in 0..30 {
        refusals.recv_timeout(Duration::from_secs(20)).expect("they are asked again and again");
    }
    let conditions = prober.conditions();
    let healthy = [&well, &new, &by_command].map(|id| conditions[id].healthy);
    assert_eq!(healthy, [true, false, true]);
    assert!(conditions[&new].last_problem.is_some(), "{conditions:?}");
    assert!(conditions.values().all(|condition| condition.unasked.since.is_some()), "{conditions:?}");
}

/// Waits until so many of those that are watched are so.
fn until(prober: &Prober, count: usize, is_so: impl Fn(&Condition) -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while prober.conditions().values().filter(|condition| is_so(condition)).count() < count {
        assert!(std::time::Instant::now() < deadline, "{:?}", prober.conditions());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A prober of instances whose engine makes no sockets while what is returned is locked.
fn of_one_that_may_stand_still() -> (Arc<Mutex<()>>, Prober) {
    let engine = Arc::new(Hanging::default());
    let still = engine.still.clone();
    (still, Prober::start(engine, Arc::new(SystemClock), || ()).unwrap())
}

/// More instances than are asked at once: those that wait for their turn cannot be asked either.
#[test]
fn while_the_engine_stands_still_nobodys_time_is_counted() {
    let (still, prober) = of_one_that_may_stand_still();
    let held = lock(&still);
    let ids = (1..=2 * SOCKETS).map(|n| format!("a-web-1-{n}").parse().unwrap());
    prober.watch(&ids.map(|id| (id, watch())).collect());
    until(&prober, 2 * SOCKETS, |condition| condition.counts_from().is_none());
    drop(held);
    // Nobody listens there, which is an answer.
    let late = Millis(calls::LATE.as_millis() as u64);
    until(&prober, 2 * SOCKETS, |c| c.counts_from().is_some() && c.unasked.before >= late);
}

/// Its end would have been told by whoever stands still.
#[test]
fn a_command_whose_end_nobody_could_tell_says_nothing_of_the_instance() {
    let (still, prober) = of_one_that_may_stand_still();
    let held = lock(&still);
    let run = kiln_model::RunSettings::as_root(["/app"]);
    let exec = Some(ExecOrder::beside(&run, vec!["/is-well".into()]));
    let (id, was_well) = ("a-web-1-1".parse().unwrap(), Some(Timestamp(1)));
    let once = Watch { exec, unhealthy_after: 1, presumed_healthy: was_well, ..watch() };
    prober.watch(&BTreeMap::from([(id, once)]));
    until(&prober, 1, |condition| condition.unasked.since.is_some());
    assert!(prober.conditions().values().all(|condition| condition.healthy));
    drop(held);
    until(&prober, 1, |condition| !condition.healthy);
}
