//! A table as it is handed to every thread: looked up, never changed.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_model::{EdgeCounts, FleetId, InstanceId, RouteTable};
use tokio::sync::Notify;

use crate::counts::Tally;
use crate::router::Router;

/// Index of a fleet in its table.
pub(crate) type FleetIndex = usize;

/// What [`RouteTable`] says, arranged for looking up, with the tallies of its fleets.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) version: u64,
    pub(crate) router: Router,
    /// Per route, its targets with a share.
    pub(crate) routes: Vec<Vec<(FleetIndex, u32)>>,
    pub(crate) fleets: Vec<Fleet>,
}

/// One fleet of a table.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) tally: Arc<Tally>,
    pub(crate) port: u16,
    pub(crate) instances: Vec<InstanceId>,
}

impl Table {
    /// Arranges `table`; fleets that `tallies` knows keep their counts.
    pub(crate) fn new(
        table: RouteTable,
        tallies: &HashMap<FleetId, Arc<Tally>>,
        drained: &Arc<Notify>,
    ) -> Self {
        let index: HashMap<&FleetId, FleetIndex> =
            table.fleets.iter().enumerate().map(|(i, f)| (&f.id, i)).collect();
        let targets = |route: &kiln_model::EdgeRoute| {
            let with_share = route.targets.iter().filter(|t| t.weight > 0);
            with_share.filter_map(|t| Some((*index.get(&t.fleet)?, t.weight))).collect()
        };
        let routes = table.routes.iter().map(targets).collect();
        let router = Router::new(&table.routes);
        let tally = |id: &FleetId| {
            tallies.get(id).cloned().unwrap_or_else(|| Tally::new(id.clone(), drained.clone()))
        };
        let fleet =
            |f: kiln_model::EdgeFleet| Fleet { tally: tally(&f.id), port: f.port, instances: f.instances };
        let fleets = table.fleets.into_iter().map(fleet).collect();
        Self { version: table.version, router, routes, fleets }
    }

    pub(crate) fn counts(&self) -> EdgeCounts {
        EdgeCounts { version: self.version, fleets: self.fleets.iter().map(|f| f.tally.count()).collect() }
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        self.fleets.iter().flat_map(|f| &f.instances)
    }
}
