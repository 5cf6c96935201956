//! What happens in a storm without anybody's doing.

use std::collections::BTreeSet;

use kiln_control::Condition;
use kiln_model::{Exit, FleetId, InstanceId, InstanceStatus, RouteTable};

use super::Sabotage;
use super::ground::{EdgeTruth, Late, Truth};

impl Truth {
    fn running(&self) -> Vec<InstanceId> {
        let running = self.machines.values().filter(|m| m.status.state.pid().is_some());
        running.map(|m| m.status.id.clone()).collect()
    }

    pub(super) fn somebody_dies(&mut self) {
        let running = self.running();
        if let Some(id) = self.chance.pick(&running).cloned() {
            self.end(&id, Exit::Signal { signal: 9 });
        }
    }

    /// Somebody does not answer any more, or does again.
    pub(super) fn somebody_falls_ill(&mut self) {
        let running = self.running();
        if let Some(id) = self.chance.pick(&running).cloned()
            && !self.sick.remove(&id)
        {
            self.note(|| format!("{id} does not answer any more"));
            self.sick.insert(id);
        }
    }

    /// All of a fleet do not answer any more; those that are made from now on do, or do not either.
    pub(super) fn a_fleet_falls_ill(&mut self) {
        let running = self.running();
        let Some(id) = self.chance.pick(&running).cloned() else { return };
        let Some((fleet, _)) = id.as_str().rsplit_once('-') else { return };
        let fleet = format!("{fleet}-");
        if self.sick_fleets.remove(&fleet) {
            return;
        }
        self.note(|| format!("nobody of {fleet} answers any more"));
        self.sick.extend(running.into_iter().filter(|id| id.as_str().starts_with(&fleet)));
        if self.chance.one_in(2) {
            self.sick_fleets.insert(fleet);
        }
    }

    /// The keeper dies and with it all its instances, unseen. What a control plane that lives has
    /// heard of it already may still be believed later.
    pub(super) fn keeper_dies(&mut self, heard: bool) {
        self.note(|| "the keeper dies".into());
        self.keeper_is_up = false;
        self.keepers += 1;
        self.machines.clear();
        if !heard {
            self.reports.clear();
        }
        self.late.clear();
        self.edge.in_flight.clear();
    }

    pub(super) fn edge_dies(&mut self) {
        self.note(|| "the edge dies".into());
        self.edge = EdgeTruth::default();
    }

    /// Another program takes a port, or gives it back.
    pub(super) fn a_port_is_taken(&mut self) {
        let ports = super::workload::PORTS;
        if let Some(port) = self.chance.pick(&ports).copied()
            && !self.taken.remove(&port)
        {
            self.note(|| format!("another program takes port {port}"));
            self.taken.insert(port);
        }
    }

    /// The port of a table that another program has. What the edge serves at already is its own.
    pub(super) fn lacking(&self, table: &RouteTable) -> Option<u16> {
        let is_open = |port: &u16| self.edge.is_up && self.edge.table.tcp.iter().any(|r| r.port == *port);
        table.tcp.iter().map(|r| r.port).find(|port| self.taken.contains(port) && !is_open(port))
    }

    /// Starts what is gone again: whether the keeper and the edge are new.
    pub(super) fn revive(&mut self) -> (bool, bool) {
        let keeper = !std::mem::replace(&mut self.keeper_is_up, true);
        if keeper {
            // The edge's way to the keeper is gone with the one it had.
            self.edge_dies();
        }
        let edge = !std::mem::replace(&mut self.edge.is_up, true);
        if keeper || edge {
            self.late.clear();
            self.note(|| format!("started again: keeper {keeper}, edge {edge}"));
        }
        (keeper, edge)
    }

    /// Orders of a dead control plane arrive.
    pub(super) fn arrive_late(&mut self) {
        for order in std::mem::take(&mut self.late) {
            match order {
                Late::Create(orders) => {
                    let new: Vec<_> = orders.into_iter().filter(|o| !self.used.contains(&o.id)).collect();
                    if !new.is_empty() && self.keeper_is_up {
                        self.note(|| "a late order of a dead control plane arrives".into());
                        new.iter().for_each(|o| drop(self.make(o)));
                    }
                }
                Late::Stop(ids) if self.keeper_is_up => {
                    self.judge_end(&ids);
                    ids.iter().for_each(|id| self.ask_to_end(id));
                }
                Late::Table(table) if self.edge.is_up => {
                    self.note(|| "a late table of a dead control plane arrives".into());
                    // An edge that knows a newer one says so to nobody.
                    let _ = self.take_table(&table);
                    self.judge_table();
                }
                Late::Stop(_) | Late::Table(_) => {}
            }
        }
    }

    /// What the engine tells now.
    pub(super) fn news(&mut self, all: bool) -> Vec<InstanceStatus> {
        if self.sabotage == Some(Sabotage::MuteEngine) {
            return Vec::new();
        }
        let mut told = Vec::new();
        for report in std::mem::take(&mut self.reports) {
            let waits = !all && self.chance.one_in(4);
            let twice = !all && self.chance.one_in(8);
            if waits || twice {
                self.reports.push(report.clone());
            }
            if !waits {
                let place = self.chance.below(told.len() as u64 + 1);
                told.insert(usize::try_from(place).unwrap_or(0), report);
            }
        }
        told
    }

    /// Some of those who are watched are asked how they are, or all.
    pub(super) fn probe(&mut self, all: bool) {
        let ids: Vec<InstanceId> = self.watched.keys().cloned().collect();
        for id in ids {
            if !all && self.chance.one_in(3) {
                continue;
            }
            let (well, now) = (self.is_well(&id), self.now);
            let Some(condition) = self.conditions.get_mut(&id) else { continue };
            if well {
                self.judge.proved.insert(id.clone());
            }
            if condition.healthy != well {
                let last_problem = (!well).then(|| "no answer".to_owned());
                let was_healthy = condition.was_healthy || well;
                *condition = Condition { was_healthy, last_problem, ..Condition::presumed(well, now) };
                self.note(|| format!("{id} is found {}", if well { "well" } else { "unwell" }));
            }
        }
    }

    /// Requests begin where the edge sends them, and some end.
    pub(super) fn traffic(&mut self) {
        let targets = self.edge.table.routes.iter().flat_map(|r| &r.targets);
        let targets: BTreeSet<_> = targets.filter(|t| t.weight > 0).map(|t| t.fleet.clone()).collect();
        let ids: Vec<InstanceId> = self
            .edge
            .table
            .fleets
            .iter()
            .filter(|f| targets.contains(&f.id))
            .flat_map(|f| f.instances.clone())
            .collect();
        for fleet in &targets {
            self.answer(fleet);
        }
        let chance = &mut self.chance;
        self.edge.in_flight.retain(|_, count| {
            *count -= chance.below(*count + 1);
            *count > 0
        });
        for id in ids {
            let new = self.chance.below(3);
            if new > 0 && self.machines.get(&id).is_some_and(|m| m.status.state.pid().is_some()) {
                *self.edge.in_flight.entry(id).or_default() += new;
            }
        }
    }

    /// A fleet answers some requests, and those of a leaky release fail half of them.
    fn answer(&mut self, fleet: &FleetId) {
        let leaks = self.judge.release_of(fleet).and_then(|id| self.shelf.get(id)).is_some_and(|release| {
            release.services.values().any(|service| service.run.argv[0].contains("leaky"))
        });
        let requests = self.chance.below(60);
        let seen = self.edge.seen.entry(fleet.clone()).or_default();
        seen.requests += requests;
        seen.failed += if leaks { requests / 2 } else { 0 };
        seen.latency[10] += requests;
    }
}
