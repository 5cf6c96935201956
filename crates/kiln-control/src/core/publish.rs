//! Keeping the edge's table what it should be.

use std::collections::BTreeMap;

use kiln_model::{Action, AppName, AppState, FleetId, InstanceState, RouteTable, route_table};
use kiln_store::boundary::between;

use super::Core;
use crate::world::Trouble;

impl Core {
    /// Gives the edge the table that the state asks for, if it has another one; not while [`Core::a_switch_is_due`].
    pub(super) fn publish(&mut self) -> Result<(), Trouble> {
        if self.a_switch_is_due() {
            return Ok(());
        }
        let table = self.compose(&self.past.apps);
        self.put_in_force(table)
    }

    /// Whether the next table is that of a switch that was begun, or of the routes' end: the one from before it would
    /// take the traffic back for a moment. Until it is in force the edge may have an older table than the state asks for, of any app, so nobody
    /// may be ended or count as drained.
    pub(super) fn a_switch_is_due(&self) -> bool {
        let switching = |(app, state): (&AppName, &AppState)| {
            state.under_way.as_ref().is_some_and(|u| match u.step() {
                // One that waits for health again sets none for now.
                Some(Action::Switch { fleets, .. } | Action::Shift { fleets, .. }) => {
                    u.intent.is_some() && self.observe_fleets(app, fleets).is_ok()
                }
                Some(Action::Unroute) => u.intent.is_some(),
                _ => false,
            })
        };
        self.past.apps.iter().any(switching)
    }

    /// Gives the edge the table that the state asks for once this app is in that state, and returns when it is in force.
    pub(super) fn put_in_force_with(&mut self, app: &AppName, state: AppState) -> Result<(), Trouble> {
        self.table_with(app, state).map_or(Ok(()), |table| self.put_in_force(table))
    }

    /// The table that the state asks for once this app is in that state.
    pub(super) fn table_with(&mut self, app: &AppName, state: AppState) -> Option<RouteTable> {
        let before = self.past.apps.insert(app.clone(), state)?;
        let table = self.compose(&self.past.apps);
        // It is not so before the log says so.
        self.past.apps.insert(app.clone(), before);
        Some(table)
    }

    pub(super) fn put_in_force(&mut self, table: RouteTable) -> Result<(), Trouble> {
        if self.published.as_ref().is_some_and(|p| *p == RouteTable { version: p.version, ..table.clone() }) {
            return Ok(());
        }
        let version = match &self.published {
            Some(published) => published.version,
            None => self.world.edge.counts()?.version,
        };
        // Whether it got through is not known until it is acknowledged.
        self.published = None;
        let table = RouteTable { version: version + 1, ..table };
        let counts = between("table", || self.world.edge.set_table(&table))?;
        for gone in counts.gone {
            let figures = self.bygone.entry(gone.fleet.app.clone()).or_default();
            figures.served += gone.served;
            figures.failed += gone.failed;
            if gone.cut > 0 {
                *self.cuts.entry(gone.fleet).or_default() += gone.cut;
            }
        }
        // The very same may have been put in force before, and that acknowledged late.
        self.published = Some(RouteTable { version: counts.version, ..table });
        Ok(())
    }

    /// Whether the edge has acknowledged that it sends nobody to the fleets a step waits for: their time to drain does
    /// not begin before.
    pub(super) fn has_let_go(&mut self, action: &Action) -> Result<bool, Trouble> {
        let Action::AwaitDrained { fleets, .. } = action else { return Ok(true) };
        self.publish()?;
        let Some(table) = &self.published else { return Ok(false) };
        let tcp = table.tcp.iter().flat_map(|r| &r.targets);
        let mut targets = table.routes.iter().flat_map(|r| &r.targets).chain(tcp);
        Ok(!targets.any(|t| t.weight > 0 && fleets.contains(&t.fleet)))
    }

    /// What was cut at these fleets when the edge let go of them, in words; it is told once.
    pub(super) fn what_was_cut(&mut self, fleets: &[FleetId]) -> Option<String> {
        let cut = fleets.iter().filter_map(|id| Some((id, self.cuts.remove(id)?)));
        let words: Vec<String> = cut.map(|(id, count)| format!("{count} in flight at {id} cut")).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    pub(super) fn compose(&self, apps: &BTreeMap<AppName, AppState>) -> RouteTable {
        let running = |id: &kiln_model::InstanceId| {
            self.statuses.get(id).is_some_and(|s| matches!(s.state, InstanceState::Running { .. }))
        };
        route_table(0, apps, &self.releases, &self.health_view(), running)
    }
}
