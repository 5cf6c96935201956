//! A fake edge: it keeps the table it was given and the counts it is told to report.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kiln_control::{Edge, Trouble};
use kiln_model::{
    EdgeCounts, Evidence, FleetCount, FleetEvidence, FleetId, Generation, RouteTable, latency_bucket,
};

use super::lock;

/// Cloneable handle: all clones are the same edge.
#[derive(Debug, Clone, Default)]
pub struct FakeEdge(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    table: RouteTable,
    /// All tables there ever were, oldest first.
    tables: Vec<RouteTable>,
    in_flight: BTreeMap<Generation, u64>,
    seen: BTreeMap<Generation, Evidence>,
    down: bool,
    /// Why tables with other targets cannot be served, if they cannot.
    lack: Option<String>,
}

impl FakeEdge {
    /// The table in force.
    pub fn table(&self) -> RouteTable {
        lock(&self.0).table.clone()
    }

    /// All tables there ever were, oldest first.
    pub fn tables(&self) -> Vec<RouteTable> {
        lock(&self.0).tables.clone()
    }

    /// Makes so many requests be in flight at the fleets of a generation.
    pub fn set_in_flight(&self, generation: Generation, count: u64) {
        lock(&self.0).in_flight.insert(generation, count);
    }

    /// The fleets of a generation answer so many requests, each after so many milliseconds; some of them fail.
    pub fn answer(&self, generation: Generation, requests: u64, failed: u64, millis: u64) {
        let mut state = lock(&self.0);
        let seen = state.seen.entry(generation).or_default();
        seen.requests += requests;
        seen.failed += failed;
        seen.latency[latency_bucket(millis * 1000)] += requests;
    }

    /// Makes it answer nobody, or answer again.
    pub fn set_down(&self, down: bool) {
        lock(&self.0).down = down;
    }
}

impl FakeEdge {
    /// Lacks something for any other table than the one in force, or nothing any more.
    pub fn set_lack(&self, lack: Option<&str>) {
        lock(&self.0).lack = lack.map(str::to_owned);
    }
}

impl State {
    /// A fleet has left, and what was in flight there is cut.
    fn cut(&mut self, fleet: FleetId) -> FleetCount {
        let cut = self.in_flight.remove(&fleet.generation).unwrap_or(0);
        FleetCount { fleet, in_flight: 0, served: 0, failed: 0, cut }
    }

    fn counts(&self) -> Result<EdgeCounts, Trouble> {
        if self.down {
            return Err(Trouble("the edge does not answer".into()));
        }
        let count = |fleet: &FleetId| self.in_flight.get(&fleet.generation).copied().unwrap_or(0);
        let fleets = self.table.fleets.iter();
        let fleets = fleets
            .map(|f| FleetCount {
                fleet: f.id.clone(),
                in_flight: count(&f.id),
                served: 0,
                failed: 0,
                cut: 0,
            })
            .collect();
        Ok(EdgeCounts { version: self.table.version, fleets, ..EdgeCounts::default() })
    }
}

impl Edge for FakeEdge {
    fn set_table(&self, table: &RouteTable) -> Result<EdgeCounts, Trouble> {
        let mut state = lock(&self.0);
        if !state.down {
            assert!(table.version > state.table.version, "a table that is not newer: {table:?}");
            state.tables.push(table.clone());
            let before = std::mem::replace(&mut state.table, table.clone());
            let gone = before.fleets.iter().map(|f| &f.id);
            let gone = gone.filter(|id| !table.fleets.iter().any(|f| f.id == **id)).cloned();
            let gone: Vec<FleetCount> = gone.map(|id| state.cut(id)).collect();
            return Ok(EdgeCounts { gone, ..state.counts()? });
        }
        state.counts()
    }

    fn lacks(&self, table: &RouteTable) -> Option<String> {
        let state = lock(&self.0);
        state.lack.clone().filter(|_| state.table.routes != table.routes)
    }

    fn counts(&self) -> Result<EdgeCounts, Trouble> {
        lock(&self.0).counts()
    }

    fn evidence(&self, fleets: &[FleetId]) -> Vec<FleetEvidence> {
        let state = lock(&self.0);
        let seen = |id: &FleetId| {
            let evidence = state.seen.get(&id.generation).cloned().unwrap_or_default();
            FleetEvidence { fleet: id.clone(), evidence }
        };
        fleets.iter().map(seen).collect()
    }

    fn wake_when_drained(&self, _: &[FleetId]) {}
}
