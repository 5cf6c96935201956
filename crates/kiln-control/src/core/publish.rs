//! Keeping the edge's table what it should be.

use std::collections::BTreeMap;

use kiln_model::{AppName, AppState, InstanceState, RouteTable, route_table};

use super::Core;
use crate::boundary::between;
use crate::world::Trouble;

impl Core {
    /// Gives the edge the table that the state asks for, if it has another one; not while [`Core::a_switch_is_due`].
    pub(super) fn publish(&mut self) -> Result<(), Trouble> {
        if self.a_switch_is_due() {
            return Ok(());
        }
        let table = self.compose(&self.apps);
        self.put_in_force(table)
    }

    /// Whether the next table is that of a switch that was begun: the one from before it would take the traffic back for
    /// a moment. Until it is in force the edge may have an older table than the state asks for, of any app, so nobody
    /// may be ended or count as drained.
    pub(super) fn a_switch_is_due(&self) -> bool {
        let switching = |(app, state): (&AppName, &AppState)| {
            state.under_way.as_ref().is_some_and(|u| match u.step() {
                // One that waits for health again sets none for now.
                Some(kiln_model::Action::Switch { fleets, .. }) => {
                    u.intent.is_some() && self.observe_fleets(app, fleets).is_ok()
                }
                _ => false,
            })
        };
        self.apps.iter().any(switching)
    }

    /// Gives the edge the table that the state asks for once this app is in that state, and returns when it is in force.
    pub(super) fn put_in_force_with(&mut self, app: &AppName, state: AppState) -> Result<(), Trouble> {
        let Some(before) = self.apps.insert(app.clone(), state) else { return Ok(()) };
        let table = self.compose(&self.apps);
        // It is not so before the log says so.
        self.apps.insert(app.clone(), before);
        self.put_in_force(table)
    }

    fn put_in_force(&mut self, table: RouteTable) -> Result<(), Trouble> {
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
        // The very same may have been put in force before, and that acknowledged late.
        self.published = Some(RouteTable { version: counts.version, ..table });
        Ok(())
    }

    fn compose(&self, apps: &BTreeMap<AppName, AppState>) -> RouteTable {
        let running = |id: &kiln_model::InstanceId| {
            self.statuses.get(id).is_some_and(|s| matches!(s.state, InstanceState::Running { .. }))
        };
        route_table(0, apps, &self.releases, &self.health_view(), running)
    }
}
