//! From what is to be done for every app to the one table the edge is given.

use std::collections::BTreeMap;

use crate::{
    AppName, AppState, Audience, EdgeCanary, EdgeFleet, EdgeNeed, EdgeRoute, Fleet, FleetPhase, HealthView,
    Healthy, InstanceId, Need, NeedName, Release, ReleaseId, ReleaseRoute, ReleaseService, RouteTable,
    ServiceName, Share, Target, TcpRoute, Traffic,
};

/// The instances of a fleet that may receive requests. If none is healthy, all that run may: a probe that fails
/// everywhere at once says more about the probe than about the fleet, and an answer from an instance that is perhaps
/// unwell is better than a certain 503. Not the stand-in that was made to see whether it is any better: it has yet to be well.
pub fn receivers(
    fleet: &Fleet,
    health: &HealthView,
    running: impl Fn(&InstanceId) -> bool,
) -> Vec<InstanceId> {
    let all: Vec<InstanceId> = fleet.instances().map(|(_, id)| id).collect();
    let healthy: Vec<InstanceId> = all.iter().filter(|id| health.0.contains(*id)).cloned().collect();
    if !healthy.is_empty() {
        return healthy;
    }
    let unproved = fleet.stand_in.map(|stand_in| fleet.id.instance(stand_in.serial));
    all.into_iter().filter(|id| running(id) && Some(id) != unproved.as_ref()).collect()
}

/// The table that carries out `apps`, with `version`.
pub fn route_table(
    version: u64,
    apps: &BTreeMap<AppName, AppState>,
    releases: &BTreeMap<ReleaseId, Release>,
    health: &HealthView,
    running: impl Fn(&InstanceId) -> bool,
) -> RouteTable {
    let mut table = RouteTable { version, ..RouteTable::default() };
    for state in apps.values() {
        for fleet in state.fleets.values().filter(|f| is_known(f, releases)) {
            let Some(service) = service_of(fleet, releases) else { continue };
            let instances = receivers(fleet, health, &running);
            let needs: BTreeMap<NeedName, EdgeNeed> = service
                .needs
                .iter()
                .map(|(name, need)| (name.clone(), edge_need(name, need, &fleet.release, state)))
                .collect();
            let callers = fleet.instances().map(|(_, id)| id).filter(|id| !needs.is_empty() && running(id));
            let callers = callers.collect();
            table.fleets.push(EdgeFleet {
                id: fleet.id.clone(),
                port: service.port,
                instances,
                release: Some(fleet.release.clone()),
                protocol: service.protocol,
                circuit: service.circuit,
                callers,
                needs,
                parted: matches!(fleet.phase, FleetPhase::Warm { .. }),
            });
        }
        table.fleets = with_hook(table.fleets, state, releases, &running);
        add_routes(&mut table, state, releases);
    }
    table
}

/// A hook reaches what its service needs while it runs: it calls as a member of the fleet that its plan makes.
fn with_hook(
    mut fleets: Vec<EdgeFleet>,
    state: &AppState,
    releases: &BTreeMap<ReleaseId, Release>,
    running: impl Fn(&InstanceId) -> bool,
) -> Vec<EdgeFleet> {
    let Some((hook, release)) = state.under_way.as_ref().and_then(|u| u.hook()) else { return fleets };
    let service = releases.get(release).and_then(|r| r.services.get(&hook.service));
    let Some(service) = service.filter(|s| !s.needs.is_empty() && running(&hook.instance())) else {
        return fleets;
    };
    let (id, caller) = (hook.fleet(), hook.instance());
    if let Some(fleet) = fleets.iter_mut().find(|f| f.id == id) {
        fleet.callers.push(caller);
        return fleets;
    }
    let needs = service.needs.iter();
    let needs = needs.map(|(name, need)| (name.clone(), edge_need(name, need, release, state))).collect();
    fleets.push(EdgeFleet {
        id,
        port: service.port,
        instances: Vec::new(),
        release: Some(release.clone()),
        protocol: service.protocol,
        circuit: service.circuit,
        callers: vec![caller],
        needs,
        parted: false,
    });
    fleets
}

/// The routes of the release that serves, and of a canary beside it.
fn add_routes(table: &mut RouteTable, state: &AppState, releases: &BTreeMap<ReleaseId, Release>) {
    let Some(release) = state.traffic.live().and_then(|id| releases.get(id)) else { return };
    let mut serving = Side { phase: FleetPhase::Live, audience: Audience::Everybody, weight: 1 };
    let mut canary = None;
    if let Traffic::Shifting { to, share, .. } = &state.traffic
        && let Some(new) = releases.get(to)
    {
        let number = table.canaries.len();
        let preview = new.canary.as_ref().is_some_and(|c| c.preview);
        table.canaries.push(EdgeCanary { release: to.clone(), share: *share, preview });
        serving = Side { audience: Audience::NotAt(number), weight: Share::WHOLE.0 - share.0, ..serving };
        canary =
            Some((new, Side { phase: FleetPhase::Canary, audience: Audience::At(number), weight: share.0 }));
    }
    let sides = [(release, &serving)].into_iter().chain(canary.as_ref().map(|(new, side)| (*new, side)));
    for (release, side) in sides {
        table.routes.extend(release.routes.values().map(|route| edge_route(route, side, state)));
        let new: Vec<_> =
            release.certificates.iter().filter(|c| !table.certificates.contains(c)).cloned().collect();
        table.certificates.extend(new);
    }
    for route in release.tcp.values() {
        // Nobody knows the user of a connection: connections are shared out.
        let mut all = targets(&route.service, &serving, state);
        let same =
            |new: &Release| new.tcp.values().any(|r| r.port == route.port && r.service == route.service);
        if let Some((_, side)) = canary.as_ref().filter(|(new, _)| same(new)) {
            all.extend(targets(&route.service, side, state));
        }
        table.tcp.push(TcpRoute {
            port: route.port,
            service: route.service.clone(),
            targets: all,
            hold: state.paused.as_ref().map(|p| p.wait),
        });
    }
}

/// One of the releases that serve an app at the same time.
struct Side {
    phase: FleetPhase,
    audience: Audience,
    weight: u32,
}

fn service_of<'a>(fleet: &Fleet, releases: &'a BTreeMap<ReleaseId, Release>) -> Option<&'a ReleaseService> {
    releases.get(&fleet.release)?.services.get(&fleet.id.service)
}

/// Whether the edge has to do with a fleet: because it serves, or because members of its release need each other or
/// a store, which they do from their first moment to their last.
fn is_known(fleet: &Fleet, releases: &BTreeMap<ReleaseId, Release>) -> bool {
    let has_needs = |r: &Release| r.services.values().any(|s| !s.needs.is_empty());
    fleet.phase.is_in_table()
        || fleet.phase.is_kept_whole() && releases.get(&fleet.release).is_some_and(has_needs)
}

/// Services are those of the caller's own release: what is between services moves with releases as what comes from
/// users does.
fn edge_need(name: &NeedName, need: &Need, release: &ReleaseId, state: &AppState) -> EdgeNeed {
    match need {
        Need::Store { .. } => EdgeNeed::Store,
        Need::Service { .. } => {
            let is_meant = |f: &&Fleet| {
                f.release == *release && f.id.service.as_str() == name.as_str() && f.phase.is_kept_whole()
            };
            let targets = state.fleets.values().filter(is_meant);
            let targets = targets.map(|f| Target { fleet: f.id.clone(), weight: 1 }).collect();
            EdgeNeed::Service { targets }
        }
    }
}

fn edge_route(route: &ReleaseRoute, side: &Side, state: &AppState) -> EdgeRoute {
    // The audience says whose requests these are: all of them go to the one fleet.
    let side_alone = Side { weight: 1, phase: side.phase.clone(), ..*side };
    EdgeRoute {
        host: route.host.clone(),
        path: route.path.clone(),
        service: route.service.clone(),
        targets: targets(&route.service, &side_alone, state),
        https: route.https,
        audience: side.audience,
        hold: state.paused.as_ref().map(|p| p.wait),
        max_body: route.max_body,
        timeout: route.timeout,
    }
}

fn targets(service: &ServiceName, side: &Side, state: &AppState) -> Vec<Target> {
    let serves = |f: &&Fleet| f.phase == side.phase && f.id.service == *service;
    let target = |f: &Fleet| Target { fleet: f.id.clone(), weight: side.weight };
    state.fleets.values().filter(serves).map(target).collect()
}

/// The state in which `green` serves `release`: what the edge is told before the log says so. Asking for proof of
/// health here is what makes it impossible to switch to a fleet nobody looked at.
pub fn switched(state: &AppState, release: &ReleaseId, green: &[Healthy<crate::FleetId>]) -> AppState {
    let mut next = state.clone();
    for fleet in next.fleets.values_mut() {
        if green.iter().any(|h| *h.get() == fleet.id) {
            fleet.phase = FleetPhase::Live;
        } else if fleet.phase == FleetPhase::Live {
            fleet.phase = FleetPhase::Draining;
        }
    }
    next.traffic = crate::Traffic::Settled { live: release.clone() };
    next
}

/// The state in which `green` serves `share` of the users, as `release`; see [`switched`].
pub fn shifted(
    state: &AppState,
    release: &ReleaseId,
    green: &[Healthy<crate::FleetId>],
    share: Share,
) -> AppState {
    let mut next = state.clone();
    for fleet in next.fleets.values_mut().filter(|f| green.iter().any(|h| *h.get() == f.id)) {
        fleet.phase = FleetPhase::Canary;
    }
    if let Some(from) = state.traffic.live().cloned() {
        next.traffic = Traffic::Shifting { from, to: release.clone(), share };
    }
    next
}

/// Two routes that would take the same requests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a route of app {holder} takes {place} already")]
pub struct RouteConflict {
    /// The app that has the route.
    pub holder: AppName,
    /// Host and path.
    pub place: String,
}

/// The host under which canaries of `one` are looked at and that `other` has a route for, if there is one.
fn previewed(one: &Release, other: &Release) -> Option<String> {
    one.canary.as_ref().filter(|canary| canary.preview)?;
    let hosts = |release: &Release| {
        release
            .routes
            .values()
            .filter_map(|route| route.host.as_ref())
            .map(|host| host.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    let theirs = hosts(other);
    hosts(one).into_iter().map(|host| format!("preview.{host}")).find(|preview| theirs.contains(preview))
}

/// Whether the routes of `release` would take requests that another live app takes.
///
/// # Errors
/// The first conflict found.
pub fn route_conflict(
    release: &Release,
    apps: &BTreeMap<AppName, AppState>,
    releases: &BTreeMap<ReleaseId, Release>,
) -> Result<(), RouteConflict> {
    for (app, state) in apps.iter().filter(|(app, _)| **app != release.app) {
        // What is on its way to serve will have its routes, too.
        let coming = state.under_way.as_ref().and_then(|u| u.plan.to.as_ref());
        let others = state.traffic.live().into_iter().chain(coming).filter_map(|id| releases.get(id));
        let others: Vec<&Release> = others.collect();
        for theirs in others.iter().flat_map(|release| release.tcp.values()) {
            if release.tcp.values().any(|ours| ours.port == theirs.port) {
                return Err(RouteConflict {
                    holder: app.clone(),
                    place: format!("TCP port {}", theirs.port),
                });
            }
        }
        let preview = |theirs: &&Release| previewed(theirs, release).or_else(|| previewed(release, theirs));
        if let Some(host) = others.iter().find_map(preview) {
            return Err(RouteConflict {
                holder: app.clone(),
                place: format!("{host} (previews of canaries)"),
            });
        }
        for theirs in others.iter().flat_map(|release| release.routes.values()) {
            if let Some(route) =
                release.routes.values().find(|r| r.host == theirs.host && r.path == theirs.path)
            {
                let place = match &route.host {
                    Some(host) => format!("{}{}", host.as_str(), route.path),
                    None => format!("{} of every host", route.path),
                };
                return Err(RouteConflict { holder: app.clone(), place });
            }
        }
    }
    Ok(())
}
