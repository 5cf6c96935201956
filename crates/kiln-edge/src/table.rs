//! A table as it is handed to every thread: looked up, never changed.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kiln_model::{
    Audience, Circuit, EdgeCounts, EdgeFleet, EdgeNeed, EdgeRoute, FleetId, HttpsRule, InstanceId, Millis,
    NeedName, Protocol, ReleaseId, RouteTable, Target, TcpRoute,
};
use tokio::sync::Notify;

use crate::counts::Tally;
use crate::metrics::{Meter, Registry, TcpMeter};
use crate::router::{RouteIndex, Router};
use crate::told::Told;
use crate::visitor::Canary;

/// Index of a fleet in its table.
pub(crate) type FleetIndex = usize;

/// What [`RouteTable`] says, arranged for looking up, with the tallies of its fleets.
#[derive(Debug)]
pub(crate) struct Table {
    told: Told,
    kinds: Vec<Kind>,
    /// Of each route, in the order of its targets; made when a request takes the route for the first time. Most routes
    /// of a large table see none before the next table.
    meters: Vec<OnceLock<Box<[Arc<Meter>]>>>,
    pub(crate) tcp: Vec<TcpPort>,
    pub(crate) fleets: Vec<Fleet>,
    pub(crate) canaries: Vec<Canary>,
    registry: Arc<Registry>,
}

/// A kind of routes of a table.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Their targets with a share.
    pub(crate) targets: Targets,
    pub(crate) https: HttpsRule,
    pub(crate) audience: Audience,
    pub(crate) hold: Option<Millis>,
    pub(crate) bounds: Bounds,
}

/// How much requests of a route may be, and take; what the edge puts up with, where nothing is said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds {
    /// Bytes of a body.
    pub(crate) body: Option<u64>,
    /// Until an answer begins.
    pub(crate) answer: Option<Duration>,
}

/// Fleets and their shares.
type Targets = Vec<(FleetIndex, u32)>;

/// One port whose connections are passed on as they are.
#[derive(Debug)]
pub(crate) struct TcpPort {
    pub(crate) port: u16,
    pub(crate) targets: Targets,
    pub(crate) hold: Option<Millis>,
    /// Where connections are counted: in the order of the targets, or the only one if there are none.
    meters: Vec<Arc<TcpMeter>>,
}

/// One fleet of a table.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) tally: Arc<Tally>,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    release: Option<ReleaseId>,
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
    Fleets(Targets, Vec<Arc<Meter>>),
    /// Outside.
    Store,
}

impl Table {
    /// Arranges what was told; fleets that `tallies` knows keep their counts.
    pub(crate) fn new(
        told: Told,
        tallies: &HashMap<FleetId, Arc<Tally>>,
        drained: &Arc<Notify>,
        registry: &Arc<Registry>,
    ) -> Self {
        let table = &told.table;
        let index: HashMap<&FleetId, FleetIndex> =
            table.fleets.iter().enumerate().map(|(i, f)| (&f.id, i)).collect();
        let with_share = |targets: &[Target]| -> Targets {
            let with_share = targets.iter().filter(|t| t.weight > 0);
            with_share.filter_map(|t| Some((*index.get(&t.fleet)?, t.weight))).collect()
        };
        let tally = |fleet: &EdgeFleet| {
            let kept = tallies.get(&fleet.id).cloned();
            let tally = kept.unwrap_or_else(|| Tally::new(fleet.id.clone(), drained.clone()));
            tally.set_parted(fleet.parted);
            tally
        };
        let mut fleets: Vec<Fleet> = table.fleets.iter().map(|f| Fleet::new(f, tally(f))).collect();
        let kind = |r: &EdgeRoute| Kind {
            targets: with_share(&r.targets),
            https: r.https,
            audience: r.audience,
            hold: r.hold,
            bounds: Bounds { body: r.max_body.map(|size| size.0), answer: r.timeout.map(Millis::duration) },
        };
        let kinds = table.routes.iter().map(kind).collect();
        let tcp = table.tcp.iter();
        let tcp = tcp.map(|r| TcpPort::new(r, with_share(&r.targets), &fleets, registry)).collect();
        for (at, caller) in table.fleets.iter().enumerate() {
            let lead = |(name, need): (&NeedName, &EdgeNeed)| {
                let lead = match need {
                    EdgeNeed::Service { targets } => {
                        let targets = with_share(targets);
                        let place = format!("{} -> {name}", caller.id.service);
                        let meters = meters(&place, &targets, &fleets, registry).collect();
                        Lead::Fleets(targets, meters)
                    }
                    EdgeNeed::Store => Lead::Store,
                };
                (name.clone(), lead)
            };
            let needs = caller.needs.iter().map(lead).collect();
            fleets[at].needs = needs;
        }
        let canaries = table.canaries.iter().map(Canary::new).collect();
        let meters = told.kinds.iter().map(|_| OnceLock::new()).collect();
        Self { kinds, meters, tcp, fleets, canaries, registry: registry.clone(), told }
    }

    /// Before anything was told.
    pub(crate) fn empty() -> Self {
        Self::new(Told::default(), &HashMap::new(), &Arc::default(), &Arc::default())
    }

    pub(crate) fn version(&self) -> u64 {
        self.told.table.version
    }

    /// As it was told, if anything was.
    pub(crate) fn whole(&self) -> Option<RouteTable> {
        (self.version() > 0).then(|| self.told.whole())
    }

    pub(crate) fn router(&self) -> &Arc<Router> {
        &self.told.router
    }

    /// How many routes there are.
    pub(crate) fn routes(&self) -> usize {
        self.told.kinds.len()
    }

    pub(crate) fn kind(&self, route: RouteIndex) -> &Kind {
        &self.kinds[self.told.kinds[route]]
    }

    /// Where requests that take a route are counted, in the order of its targets.
    pub(crate) fn meters(&self, route: RouteIndex) -> &[Arc<Meter>] {
        self.meters[route].get_or_init(|| {
            let place = self.router().name(route);
            meters(&place, &self.kind(route).targets, &self.fleets, &self.registry).collect()
        })
    }

    /// The counters of its fleets.
    pub(crate) fn tallies(&self) -> impl Iterator<Item = &Arc<Tally>> {
        self.fleets.iter().map(|f| &f.tally)
    }

    pub(crate) fn counts(&self) -> EdgeCounts {
        let fleets = self.tallies().map(|tally| tally.count()).collect();
        EdgeCounts { version: self.version(), fleets, process: std::process::id(), gone: Vec::new() }
    }

    /// Where something that an instance of a fleet needs is.
    pub(crate) fn lead(&self, fleet: &FleetId, need: &NeedName) -> Option<&Lead> {
        self.fleets.iter().find(|f| f.tally.fleet() == fleet)?.needs.get(need)
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        self.fleets.iter().flat_map(|f| &f.instances)
    }
}

impl Fleet {
    /// Without what it needs.
    fn new(fleet: &EdgeFleet, tally: Arc<Tally>) -> Self {
        Self {
            tally,
            port: fleet.port,
            protocol: fleet.protocol,
            release: fleet.release.clone(),
            circuit: fleet.circuit,
            instances: fleet.instances.clone(),
            callers: fleet.callers.clone(),
            needs: HashMap::new(),
        }
    }
}

impl TcpPort {
    fn new(route: &TcpRoute, targets: Targets, fleets: &[Fleet], registry: &Registry) -> Self {
        let at = |fleet| registry.tcp.at(route.port, &route.service, fleet);
        let of = |(fleet, _): &(FleetIndex, u32)| {
            let Fleet { tally, release, .. } = &fleets[*fleet];
            at(Some((tally, release.as_ref())))
        };
        let meters = if targets.is_empty() { vec![at(None)] } else { targets.iter().map(of).collect() };
        Self { port: route.port, targets, hold: route.hold, meters }
    }

    /// Where connections are counted that go to the fleet that `tally` counts; those that go to none at the first.
    pub(crate) fn meter(&self, tally: Option<&Arc<Tally>>, fleets: &[Fleet]) -> Option<&Arc<TcpMeter>> {
        let is_there =
            |(fleet, _): &(FleetIndex, u32)| tally.is_some_and(|t| Arc::ptr_eq(t, &fleets[*fleet].tally));
        self.meters.get(self.targets.iter().position(is_there).unwrap_or(0))
    }
}

/// The meters of a place at these fleets.
fn meters(
    place: &str,
    targets: &Targets,
    fleets: &[Fleet],
    registry: &Registry,
) -> impl Iterator<Item = Arc<Meter>> {
    let mut all = registry.meters();
    targets.iter().map(move |(fleet, _)| {
        let Fleet { tally, release, .. } = &fleets[*fleet];
        all.at(place, tally, release.as_ref())
    })
}
