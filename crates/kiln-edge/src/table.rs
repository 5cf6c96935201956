//! A table as it is handed to every thread: looked up, never changed.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_model::{
    Audience, Circuit, EdgeCounts, EdgeNeed, FleetId, HttpsRule, InstanceId, Millis, NeedName, Protocol,
    RouteTable,
};
use tokio::sync::Notify;

use crate::counts::Tally;
use crate::metrics::{Meter, Registry};
use crate::router::Router;
use crate::visitor::Canary;

/// Index of a fleet in its table.
pub(crate) type FleetIndex = usize;

/// What [`RouteTable`] says, arranged for looking up, with the tallies of its fleets.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) version: u64,
    pub(crate) router: Arc<Router>,
    pub(crate) routes: Vec<Route>,
    pub(crate) tcp: Vec<TcpPort>,
    pub(crate) fleets: Vec<Fleet>,
    pub(crate) canaries: Vec<Canary>,
}

/// One route of a table.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its targets with a share.
    pub(crate) targets: Vec<(FleetIndex, u32)>,
    /// In the order of the targets.
    pub(crate) meters: Vec<Arc<Meter>>,
    pub(crate) https: HttpsRule,
    pub(crate) audience: Audience,
    pub(crate) hold: Option<Millis>,
}

/// One port whose connections are passed on as they are.
#[derive(Debug)]
pub(crate) struct TcpPort {
    pub(crate) port: u16,
    pub(crate) targets: Vec<(FleetIndex, u32)>,
    pub(crate) hold: Option<Millis>,
}

/// One fleet of a table.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) tally: Arc<Tally>,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) circuit: Option<Circuit>,
    pub(crate) instances: Vec<InstanceId>,
    /// Those whose needs are served.
    pub(crate) callers: Vec<InstanceId>,
    pub(crate) needs: HashMap<NeedName, Lead>,
}

/// Where something an instance needs is.
#[derive(Debug)]
pub(crate) enum Lead {
    /// At these fleets, each counted for itself.
    Fleets(Vec<(FleetIndex, u32)>, Vec<Arc<Meter>>),
    /// Outside.
    Store,
}

impl Table {
    /// Arranges `table`, whose routes `router` finds; fleets that `tallies` knows keep their counts.
    pub(crate) fn new(
        table: &RouteTable,
        router: Arc<Router>,
        tallies: &HashMap<FleetId, Arc<Tally>>,
        drained: &Arc<Notify>,
        registry: &Registry,
    ) -> Self {
        let index: HashMap<&FleetId, FleetIndex> =
            table.fleets.iter().enumerate().map(|(i, f)| (&f.id, i)).collect();
        let with_share = |targets: &[kiln_model::Target]| -> Vec<(FleetIndex, u32)> {
            let with_share = targets.iter().filter(|t| t.weight > 0);
            with_share.filter_map(|t| Some((*index.get(&t.fleet)?, t.weight))).collect()
        };
        let tally = |id: &FleetId| {
            tallies.get(id).cloned().unwrap_or_else(|| Tally::new(id.clone(), drained.clone()))
        };
        let counted: Vec<Arc<Tally>> = table.fleets.iter().map(|f| tally(&f.id)).collect();
        let mut all_meters = registry.meters();
        let route = |route: &kiln_model::EdgeRoute| {
            let targets = with_share(&route.targets);
            let host = route.host.as_ref().map_or("*", |h| h.as_str());
            let place = format!("{host}{}", route.path);
            let meter = |(fleet, _): &(FleetIndex, u32)| {
                all_meters.at(&place, &counted[*fleet], table.fleets[*fleet].release.as_ref())
            };
            let meters = targets.iter().map(meter).collect();
            Route { meters, targets, https: route.https, audience: route.audience, hold: route.hold }
        };
        let routes = table.routes.iter().map(route).collect();
        let tcp = table.tcp.iter();
        let tcp =
            tcp.map(|r| TcpPort { port: r.port, targets: with_share(&r.targets), hold: r.hold }).collect();
        let mut lead = |caller: &FleetId, name: &NeedName, need: &EdgeNeed| match need {
            EdgeNeed::Service { targets } => {
                let targets = with_share(targets);
                let place = format!("{} -> {name}", caller.service);
                let meter = |(fleet, _): &(FleetIndex, u32)| {
                    all_meters.at(&place, &counted[*fleet], table.fleets[*fleet].release.as_ref())
                };
                let meters = targets.iter().map(meter).collect();
                Lead::Fleets(targets, meters)
            }
            EdgeNeed::Store => Lead::Store,
        };
        let leads = |f: &kiln_model::EdgeFleet| -> HashMap<NeedName, Lead> {
            f.needs.iter().map(|(name, need)| (name.clone(), lead(&f.id, name, need))).collect()
        };
        let all_leads: Vec<_> = table.fleets.iter().map(leads).collect();
        drop(all_meters);
        let fleet =
            |((f, tally), needs): ((&kiln_model::EdgeFleet, Arc<Tally>), HashMap<NeedName, Lead>)| Fleet {
                tally,
                port: f.port,
                protocol: f.protocol,
                circuit: f.circuit,
                instances: f.instances.clone(),
                callers: f.callers.clone(),
                needs,
            };
        let fleets = table.fleets.iter().zip(counted).zip(all_leads).map(fleet).collect();
        let canaries = table.canaries.iter().map(Canary::new).collect();
        Self { version: table.version, router, routes, tcp, fleets, canaries }
    }

    pub(crate) fn counts(&self) -> EdgeCounts {
        let fleets = self.fleets.iter().map(|f| f.tally.count()).collect();
        EdgeCounts { version: self.version, fleets, gone: Vec::new() }
    }

    /// Where something that an instance of a fleet needs is.
    pub(crate) fn lead(&self, fleet: &FleetId, need: &NeedName) -> Option<&Lead> {
        self.fleets.iter().find(|f| f.tally.fleet() == fleet)?.needs.get(need)
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        self.fleets.iter().flat_map(|f| &f.instances)
    }
}
