//! The core's world as it is in bad weather: every call may fail before or after it has had its effect, and the
//! control plane may die at either moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use kiln_control::{Clock, Condition, Edge, Health, History, Shelf, Trouble, Watch, World};
use kiln_engine::{Engine, EngineError, Execution, Room};
use kiln_model::{
    AppName, Audience, EdgeCounts, ExecOrder, Exit, FleetCount, FleetEvidence, FleetId, ImageDigest,
    ImageHandle, InstanceId, InstanceOrder, InstanceStatus, Limits, Record, Release, ReleaseId,
    ReleaseService, RouteTable, SecretOrder, StoreHost, Timestamp,
};
use kiln_store::OperationLog;

use super::disk::{Fate, Found};
use super::ground::{Ground, Late, Truth};
use super::{Crash, Sabotage};

/// What becomes of a call.
enum Strike {
    None,
    FailsBefore,
    FailsAfter,
    CrashBefore,
    CrashAfter,
}

impl Truth {
    fn strike(&mut self) -> Strike {
        let weather = self.weather;
        if self.chance.one_in(weather.crashes) {
            return if self.chance.one_in(2) { Strike::CrashBefore } else { Strike::CrashAfter };
        }
        if self.chance.one_in(weather.failures) {
            return if self.chance.one_in(2) { Strike::FailsBefore } else { Strike::FailsAfter };
        }
        Strike::None
    }
}

impl Ground {
    /// The world of a core that has opened this log.
    pub(super) fn world(&self, log: OperationLog) -> World {
        World {
            engine: std::sync::Arc::new(self.clone()),
            edge: Box::new(self.clone()),
            health: Box::new(self.clone()),
            history: Box::new(StormHistory { ground: self.clone(), log }),
            shelf: Box::new(self.clone()),
            clock: Box::new(self.clone()),
        }
    }

    /// Does what a call does, as far as bad luck lets it.
    fn call<T>(
        &self,
        what: &'static str,
        late: impl FnOnce() -> Option<Late>,
        act: impl FnOnce(&mut Truth) -> Result<T, String>,
    ) -> Result<T, String> {
        self.with(|truth| match truth.strike() {
            Strike::None => act(truth),
            Strike::FailsBefore => {
                truth.note(|| format!("bad luck: the call to {what} fails"));
                Err(format!("bad luck: {what}"))
            }
            Strike::FailsAfter => {
                truth.note(|| format!("bad luck: the answer of the call to {what} is lost"));
                let _ = act(truth);
                Err(format!("bad luck: the answer to {what} was lost"))
            }
            Strike::CrashBefore => {
                truth.note(|| format!("control dies before it can {what}"));
                if truth.chance.one_in(2) {
                    truth.late.extend(late());
                }
                std::panic::resume_unwind(Box::new(Crash))
            }
            Strike::CrashAfter => {
                let _ = act(truth);
                truth.note(|| format!("control dies right after the call to {what}"));
                std::panic::resume_unwind(Box::new(Crash))
            }
        })
    }

    fn engine<T>(
        &self,
        what: &'static str,
        late: impl FnOnce() -> Option<Late>,
        act: impl FnOnce(&mut Truth) -> T,
    ) -> Result<T, EngineError> {
        let up = |truth: &mut Truth| {
            if truth.keeper_is_up { Ok(act(truth)) } else { Err("the keeper is gone".into()) }
        };
        self.call(what, late, up).map_err(|e| EngineError::Unreachable {
            engine: "storm",
            attempted: what,
            source: std::io::Error::other(e),
        })
    }
}

impl Clock for Ground {
    fn now(&self) -> Timestamp {
        self.with(|truth| truth.now)
    }
}

/// The history of one control plane: the real log, over the storm's disk.
struct StormHistory {
    ground: Ground,
    log: OperationLog,
}

impl History for StormHistory {
    fn append(&mut self, record: &Record) -> Result<(), Trouble> {
        let (strike, disk) = self.ground.with(|truth| {
            let strike = truth.strike();
            if matches!(strike, Strike::CrashBefore) && truth.chance.one_in(2) {
                truth.note(|| "control dies before it can append".into());
                std::panic::resume_unwind(Box::new(Crash))
            }
            // Judged now: what was known of its members dies with the control plane, and what could not be written
            // may be found after all.
            truth.judge_loss(record);
            (strike, truth.disk.clone())
        });
        disk.meet(match strike {
            Strike::None | Strike::CrashAfter => Fate::Good,
            Strike::FailsBefore | Strike::FailsAfter => Fate::Fails,
            Strike::CrashBefore => Fate::Dies,
        });
        let forgets = self.ground.with(|t| t.sabotage == Some(Sabotage::ForgetfulDisk) && t.chance.one_in(4));
        let appended = if forgets { Ok(0) } else { self.log.append(record) };
        disk.meet(Fate::Good);
        self.ground.with(|truth| {
            if let Err(e) = appended {
                let trouble = Trouble::of(&e);
                truth.note(|| format!("bad luck: {trouble}"));
                return Err(trouble);
            }
            truth.note(|| crate::sim::words::record(record));
            if !forgets {
                truth.written(record.clone());
            }
            if matches!(strike, Strike::CrashAfter) {
                truth.note(|| "control dies right after that append".into());
                std::panic::resume_unwind(Box::new(Crash))
            }
            Ok(())
        })
    }

    fn mend(&mut self) -> Result<(), Trouble> {
        let disk = self.ground.with(|truth| truth.disk.clone());
        disk.meet(self.fate());
        let mended = self.log.mend();
        disk.meet(Fate::Good);
        mended.map_err(|e| Trouble::of(&e))
    }
}

impl StormHistory {
    /// One look at the disk that may fail, too.
    fn fate(&self) -> Fate {
        self.ground.with(|truth| match truth.strike() {
            Strike::None | Strike::CrashAfter => Fate::Good,
            Strike::FailsBefore | Strike::FailsAfter => Fate::Fails,
            Strike::CrashBefore => Fate::Dies,
        })
    }
}

impl Truth {
    /// One more record is on the disk.
    pub(super) fn written(&mut self, record: Record) {
        self.judge.recorded(&record, &self.edge);
        self.written.push(record);
    }

    /// The control plane is dead: what is on the disk now is what the next one finds.
    pub(super) fn look_at_the_disk(&mut self) {
        match self.disk.after_death(&self.written) {
            Found::All => {}
            Found::More(ghost) => {
                self.note(|| format!("on the disk after all: {}", crate::sim::words::record(&ghost)));
                self.written(*ghost);
            }
            Found::Wrong(what) => self.judge.find(format!("the log is damaged: {what}")),
        }
    }
}

impl Shelf for Ground {
    fn release(&self, id: &ReleaseId) -> Result<Release, Trouble> {
        let find = |t: &mut Truth| t.shelf.get(id).cloned().ok_or_else(|| format!("there is no {id}"));
        self.call("find a release", || None, find).map_err(Trouble)
    }

    fn image(&self, digest: &ImageDigest) -> Result<ImageHandle, Trouble> {
        let handle = ImageHandle { digest: *digest, metadata: "/nowhere".into(), objects: "/nowhere".into() };
        self.call("find an image", || None, |_| Ok(handle)).map_err(Trouble)
    }

    fn secrets(&self, _: &AppName, service: &ReleaseService) -> Result<Vec<SecretOrder>, Trouble> {
        let open = |_: &mut Truth| Ok(crate::sim::opened(service));
        self.call("open secrets", || None, open).map_err(Trouble)
    }
}

fn without_canaries(table: &RouteTable) -> RouteTable {
    let mut table = RouteTable { canaries: Vec::new(), ..table.clone() };
    table.routes.retain(|route| !matches!(route.audience, Audience::At(_)));
    table.routes.iter_mut().for_each(|route| route.audience = Audience::Everybody);
    table
}

impl Edge for Ground {
    fn set_table(&self, table: &RouteTable) -> Result<EdgeCounts, Trouble> {
        let late = || Some(Late::Table(table.clone()));
        let take = |truth: &mut Truth| {
            if !truth.edge.is_up {
                return Err("the edge is gone".into());
            }
            if truth.sabotage == Some(Sabotage::DeafEdge) && truth.chance.one_in(3) {
                return Ok(counts(truth));
            }
            let shy = truth.sabotage == Some(Sabotage::ShyEdge);
            let gone = truth.take_table(&if shy { without_canaries(table) } else { table.clone() })?;
            truth.judge_table();
            Ok(EdgeCounts { gone, ..counts(truth) })
        };
        let told = self.call("give the edge a table", late, take).map_err(Trouble)?;
        Ok(told)
    }

    fn lacks(&self, table: &RouteTable) -> Option<String> {
        self.with(|truth| {
            let port = truth.lacking(table)?;
            truth.judge.figures.lacks += 1;
            truth.note(|| format!("the edge lacks port {port}"));
            Some(format!("port {port} is in use by another program"))
        })
    }

    fn counts(&self) -> Result<EdgeCounts, Trouble> {
        let tell = |truth: &mut Truth| {
            if truth.edge.is_up { Ok(counts(truth)) } else { Err("the edge is gone".into()) }
        };
        self.call("ask the edge", || None, tell).map_err(Trouble)
    }

    fn evidence(&self, fleets: &[FleetId]) -> Vec<FleetEvidence> {
        self.with(|truth| {
            let seen = |id: &FleetId| {
                let evidence = truth.edge.seen.get(id).cloned()?;
                Some(FleetEvidence { fleet: id.clone(), evidence })
            };
            fleets.iter().filter_map(seen).collect()
        })
    }

    fn wake_when_drained(&self, _: &[FleetId]) {}
}

fn counts(truth: &Truth) -> EdgeCounts {
    let lies = truth.sabotage == Some(Sabotage::HastyDrain);
    let count = |id: &InstanceId| if lies { 0 } else { truth.edge.in_flight.get(id).copied().unwrap_or(0) };
    let fleets = truth.edge.table.fleets.iter().map(|f| FleetCount {
        fleet: f.id.clone(),
        // What leaves the list of receivers goes on where it is.
        in_flight: truth
            .machines
            .keys()
            .filter(|id| id.as_str().rsplit_once('-').is_some_and(|(fleet, _)| fleet == prefix(&f.id)))
            .map(count)
            .sum(),
        served: 0,
        failed: 0,
        cut: 0,
    });
    EdgeCounts { version: truth.edge.table.version, fleets: fleets.collect(), ..EdgeCounts::default() }
}

/// What the ids of all instances of a fleet begin with.
pub(super) fn prefix(fleet: &FleetId) -> String {
    format!("{}-{}-{}", fleet.app, fleet.service, fleet.generation)
}

impl Health for Ground {
    fn watch(&self, watches: &BTreeMap<InstanceId, Watch>) {
        self.with(|truth| {
            let since = truth.now;
            truth.conditions.retain(|id, _| watches.contains_key(id));
            for (id, watch) in watches {
                let healthy = watch.presumed_healthy.is_some();
                truth.conditions.entry(id.clone()).or_insert_with(|| Condition {
                    last_problem: Some("no answer".into()),
                    ..Condition::presumed(healthy, since)
                });
            }
            truth.watched.clone_from(watches);
        });
    }

    fn conditions(&self) -> BTreeMap<InstanceId, Condition> {
        self.with(|truth| {
            let mut told = truth.conditions.clone();
            if truth.sabotage == Some(Sabotage::FlatteringHealth) {
                told.values_mut().for_each(|c| (c.healthy, c.was_healthy) = (true, true));
            }
            told
        })
    }
}

impl Engine for Ground {
    fn name(&self) -> &'static str {
        "storm"
    }

    fn memory(&self) -> Result<String, EngineError> {
        self.engine("tell what it remembers", || None, |truth| truth.keepers.to_string())
    }

    fn create(&self, orders: &[InstanceOrder]) -> Result<Vec<InstanceStatus>, EngineError> {
        let late = || Some(Late::Create(orders.to_vec()));
        self.with(|truth| orders.iter().for_each(|order| truth.judge.called_for(order)));
        self.engine("make instances", late, |truth| orders.iter().map(|o| truth.make(o)).collect())
    }

    fn stop(&self, ids: &[InstanceId]) -> Result<(), EngineError> {
        let late = || Some(Late::Stop(ids.to_vec()));
        self.engine("stop instances", late, |truth| {
            truth.judge_end(ids);
            ids.iter().for_each(|id| truth.ask_to_end(id));
        })
    }

    fn kill(&self, ids: &[InstanceId]) -> Result<(), EngineError> {
        self.engine(
            "kill instances",
            || None,
            |truth| {
                truth.judge_end(ids);
                ids.iter().for_each(|id| truth.end(id, Exit::Signal { signal: 9 }));
            },
        )
    }

    fn list(&self) -> Result<Vec<InstanceStatus>, EngineError> {
        let list = |truth: &mut Truth| truth.machines.values().map(|m| m.status.clone()).collect();
        self.engine("list instances", || None, list)
    }

    fn changes(&self, _: Duration) -> Result<Vec<InstanceStatus>, EngineError> {
        self.engine("tell what changed", || None, |truth| std::mem::take(&mut truth.reports))
    }

    fn call_back(&self) {}

    fn forget(&self, ids: &[InstanceId]) -> Result<(), EngineError> {
        self.engine(
            "forget instances",
            || None,
            |truth| {
                truth.machines.retain(|id, m| !ids.contains(id) || m.status.state.pid().is_some());
            },
        )
    }

    fn sockets(&self, id: &InstanceId, _: u32) -> Result<Vec<OwnedFd>, EngineError> {
        Err(EngineError::NoSuchInstance(id.clone()))
    }

    /// Nothing goes to stores here.
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

    fn connections(&self, id: &InstanceId, _: u16) -> Result<u32, EngineError> {
        let count = |truth: &mut Truth| {
            let runs = truth.machines.get(id).is_some_and(|m| m.status.state.pid().is_some());
            runs.then(|| truth.edge.in_flight.get(id).copied().unwrap_or(0))
        };
        match self.engine("count connections", || None, count)? {
            Some(open) => Ok(u32::try_from(open).unwrap_or(u32::MAX)),
            None => Err(EngineError::NoSuchInstance(id.clone())),
        }
    }

    fn exec(
        &self,
        id: &InstanceId,
        _: &ExecOrder,
        _: [OwnedFd; 3],
    ) -> Result<Box<dyn Execution>, EngineError> {
        Err(EngineError::NoSuchInstance(id.clone()))
    }
}
