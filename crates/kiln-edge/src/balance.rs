//! One thread's view of the table: which fleet and instance the next request goes to.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kiln_model::{Audience, Circuit, HttpsRule, InstanceId};

use crate::counts::Tally;
use crate::inside::Caller;
use crate::metrics::{Meter, TcpMeter};
use crate::origin::Scheme;
use crate::random::Random;
use crate::router::RouteIndex;
use crate::shares::Shares;
use crate::table::{Bounds, Fleet, FleetIndex, Kind, Lead, Table};
use crate::upstream::Upstream;
use crate::visitor::{Visitor, previewed};

/// A table as one thread uses it: the shared part, and what is this thread's own.
pub(crate) struct Balance {
    table: Arc<Table>,
    /// Per route.
    shares: Vec<RefCell<Shares>>,
    /// Per port.
    tcp_shares: Vec<RefCell<Shares>>,
    /// Per fleet.
    upstreams: Vec<Vec<Rc<Upstream>>>,
}

/// Where a request goes.
pub(crate) struct Pick {
    pub(crate) tally: Arc<Tally>,
    pub(crate) upstream: Rc<Upstream>,
    /// Where it is counted, if it is a request.
    pub(crate) meter: Option<Arc<Meter>>,
    /// How much the fleet takes at a time, if it is said.
    pub(crate) circuit: Option<Circuit>,
    /// Where two releases serve: whether chance decided which of them this is.
    pub(crate) by_chance: Option<bool>,
    /// How much it may be, and take.
    pub(crate) bounds: Bounds,
}

/// What a request is chosen for by.
pub(crate) struct Ask<'a> {
    pub(crate) host: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) scheme: Scheme,
    /// Who asks, if that matters.
    pub(crate) visitor: Option<Visitor>,
    /// Those that were asked already.
    pub(crate) tried: &'a [Rc<Upstream>],
    pub(crate) random: &'a Random,
    /// Whether it has been held against a canary that it could not answer this request.
    pub(crate) blamed: &'a Cell<bool>,
}

/// A fleet that answers for a request that is let in nowhere.
pub(crate) struct Answerable {
    pub(crate) tally: Arc<Tally>,
    /// Where that is counted, if it is a request.
    pub(crate) meter: Option<Arc<Meter>>,
}

/// Why a request goes nowhere.
pub(crate) enum NoPick {
    /// No route takes it.
    NoRoute,
    /// Its route takes it only over HTTPS; the first of its targets, if there is one, would have answered.
    OnlyHttps(Option<Answerable>),
    /// It is to wait for another table, so long at most; the first of its targets, if there is one, answers for it.
    Held(Duration, Option<Answerable>),
    /// Its route has no target with a share.
    NoTarget,
    /// Its targets have no instance that may receive requests; the first of them takes the blame.
    NoInstance(Answerable),
    /// Every instance there is has been tried for this request.
    AllTried,
}

impl Balance {
    /// `known` are the upstreams of the table before: those that stay keep their connections.
    pub(crate) fn new(table: Arc<Table>, known: &HashMap<&InstanceId, &Rc<Upstream>>) -> Self {
        let shares = (0..table.routes()).map(|_| RefCell::default()).collect();
        let tcp_shares = table.tcp.iter().map(|_| RefCell::default()).collect();
        let upstream = |id: &InstanceId, fleet: &Fleet| match known.get(id) {
            Some(known) if known.port() == fleet.port && known.protocol() == fleet.protocol => {
                (*known).clone()
            }
            _ => Upstream::new(id.clone(), fleet.port, fleet.protocol),
        };
        let of_fleet = |fleet: &Fleet| fleet.instances.iter().map(|id| upstream(id, fleet)).collect();
        let upstreams = table.fleets.iter().map(of_fleet).collect();
        Self { table, shares, tcp_shares, upstreams }
    }

    /// Before there is a table.
    pub(crate) fn empty() -> Self {
        Self::new(Arc::new(Table::empty()), &HashMap::new())
    }

    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Rc<Upstream>> {
        self.upstreams.iter().flatten()
    }

    /// Whether it matters who asks.
    pub(crate) fn tells_users_apart(&self) -> bool {
        !self.table.canaries.is_empty()
    }

    /// Chooses for a request. No await can come between this and counting the request.
    pub(crate) fn pick(&self, ask: &Ask<'_>) -> Result<Pick, NoPick> {
        let (route, is_forced) = self.route(ask).ok_or(NoPick::NoRoute)?;
        let picked = self.on(route, ask, is_forced);
        let Audience::At(_) = self.table.kind(route).audience else { return picked };
        // A canary that cannot answer is no reason to answer nobody, and it is held against it.
        match picked {
            Err(NoPick::NoInstance(_) | NoPick::AllTried) if !is_forced => {
                // Once for each request, however often it is offered.
                if let Some((fleet, _)) = self.table.kind(route).targets.first()
                    && !ask.blamed.replace(true)
                {
                    self.table.fleets[*fleet].tally.seen().could_not_answer();
                }
                let route = self.find(ask.host, ask.path, |_| false).ok_or(NoPick::NoRoute)?;
                self.on(route, ask, true)
            }
            picked => picked,
        }
    }

    fn on(&self, route: RouteIndex, ask: &Ask<'_>, is_forced: bool) -> Result<Pick, NoPick> {
        let Kind { targets, https, audience, hold, bounds } = self.table.kind(route);
        let meters = self.table.meters(route);
        if *https == HttpsRule::Redirect && ask.scheme == Scheme::Http {
            return Err(NoPick::OnlyHttps(self.first(targets, meters)));
        }
        if let Some(wait) = hold {
            return Err(NoPick::Held(wait.duration(), self.first(targets, meters)));
        }
        let picked = self.among(targets, meters, &self.shares[route], ask.tried, ask.random)?;
        let by_chance = match audience {
            Audience::Everybody => None,
            Audience::At(_) | Audience::NotAt(_) => Some(!is_forced),
        };
        Ok(Pick { by_chance, bounds: *bounds, ..picked })
    }

    /// The route of a request, and whether who asks chose the release himself.
    fn route(&self, ask: &Ask<'_>) -> Option<(RouteIndex, bool)> {
        let canaries = &self.table.canaries;
        let is_at = |visitor: Option<Visitor>, n: usize| {
            canaries.get(n).zip(visitor).is_some_and(|(c, v)| v.is_at(c))
        };
        if let (Some(host), Some(visitor)) = (ask.host, ask.visitor)
            && let Some(host) = previewed(host).filter(|_| !self.table.router().names(host))
        {
            let visitor = Some(visitor.previewing());
            let found = self.find(Some(host), ask.path, |n| {
                canaries.get(n).is_some_and(|c| c.preview) && is_at(visitor, n)
            });
            if let Some(route) = found.filter(|r| matches!(self.table.kind(*r).audience, Audience::At(_))) {
                return Some((route, true));
            }
        }
        let route = self.find(ask.host, ask.path, |n| is_at(ask.visitor, n))?;
        let is_forced = match self.table.kind(route).audience {
            Audience::At(n) => canaries.get(n).zip(ask.visitor).is_some_and(|(c, v)| v.is_forced(c)),
            Audience::Everybody | Audience::NotAt(_) => false,
        };
        Some((route, is_forced))
    }

    fn find(&self, host: Option<&str>, path: &str, is_at: impl Fn(usize) -> bool) -> Option<RouteIndex> {
        self.table.router().find(host, path, |route| match self.table.kind(route).audience {
            Audience::Everybody => true,
            Audience::At(canary) => is_at(canary),
            Audience::NotAt(canary) => !is_at(canary),
        })
    }

    /// Chooses for a connection to `port`.
    pub(crate) fn pick_tcp(
        &self,
        port: u16,
        tried: &[Rc<Upstream>],
        random: &Random,
    ) -> Result<Pick, NoPick> {
        let route = self.table.tcp.iter().position(|r| r.port == port).ok_or(NoPick::NoRoute)?;
        if let Some(wait) = self.table.tcp[route].hold {
            return Err(NoPick::Held(wait.duration(), None));
        }
        self.among(&self.table.tcp[route].targets, &[], &self.tcp_shares[route], tried, random)
    }

    /// Where connections to `port` are counted that go to this fleet, or to none.
    pub(crate) fn tcp_meter(&self, port: u16, tally: Option<&Arc<Tally>>) -> Option<Arc<TcpMeter>> {
        let route = self.table.tcp.iter().find(|r| r.port == port)?;
        route.meter(tally, &self.table.fleets).cloned()
    }

    /// Chooses for a request from inside an instance.
    pub(crate) fn pick_inside(
        &self,
        caller: &Caller,
        tried: &[Rc<Upstream>],
        random: &Random,
    ) -> Result<Pick, NoPick> {
        match self.table.lead(&caller.fleet, &caller.need) {
            // There is one fleet of a service in a release: no shares to be kept.
            Some(Lead::Fleets(targets, meters)) => {
                self.among(targets, meters, &RefCell::default(), tried, random)
            }
            Some(Lead::Store) | None => Err(NoPick::NoRoute),
        }
    }

    /// Whether what a caller needs is a store.
    pub(crate) fn is_store(&self, caller: &Caller) -> bool {
        matches!(self.table.lead(&caller.fleet, &caller.need), Some(Lead::Store))
    }

    fn among(
        &self,
        targets: &[(FleetIndex, u32)],
        meters: &[Arc<Meter>],
        shares: &RefCell<Shares>,
        tried: &[Rc<Upstream>],
        random: &Random,
    ) -> Result<Pick, NoPick> {
        let usable = |target: usize| {
            let (fleet, weight) = targets[target];
            self.upstreams[fleet].iter().any(|u| !is_in(tried, u)).then_some(weight)
        };
        match shares.borrow_mut().next(targets.len(), usable) {
            Some(target) => {
                let fleet = targets[target].0;
                let upstream = least_loaded(&self.upstreams[fleet], tried, random).ok_or(NoPick::AllTried)?;
                let meter = meters.get(target).cloned();
                let tally = self.table.fleets[fleet].tally.clone();
                let circuit = self.table.fleets[fleet].circuit;
                let bounds = Bounds::default();
                Ok(Pick { tally, upstream, meter, by_chance: None, circuit, bounds })
            }
            None if !tried.is_empty() => Err(NoPick::AllTried),
            None => Err(self.first(targets, meters).map_or(NoPick::NoTarget, NoPick::NoInstance)),
        }
    }

    fn first(&self, targets: &[(FleetIndex, u32)], meters: &[Arc<Meter>]) -> Option<Answerable> {
        let tally = self.table.fleets[targets.first()?.0].tally.clone();
        Some(Answerable { tally, meter: meters.first().cloned() })
    }
}

fn is_in(tried: &[Rc<Upstream>], upstream: &Rc<Upstream>) -> bool {
    tried.iter().any(|t| Rc::ptr_eq(t, upstream))
}

/// Of two instances drawn at random, the one with fewer requests in flight: as good as looking at all of them, and
/// without the stampede to whichever looks best at the moment.
fn least_loaded(fleet: &[Rc<Upstream>], tried: &[Rc<Upstream>], random: &Random) -> Option<Rc<Upstream>> {
    if !tried.is_empty() {
        let fresh: Vec<_> = fleet.iter().filter(|u| !is_in(tried, u)).cloned().collect();
        return least_loaded(&fresh, &[], random);
    }
    let first = drawn(fleet, None, random)?;
    let second = drawn(fleet, Some(first), random)?;
    let (first, second) = (&fleet[first], &fleet[second]);
    Some(if second.load() < first.load() { second } else { first }.clone())
}

/// One instance at random, of those in good standing if there are any, and another one than `other_than` if there is
/// one. One that is new among older ones is drawn less often at first.
fn drawn(fleet: &[Rc<Upstream>], other_than: Option<usize>, random: &Random) -> Option<usize> {
    const DRAWS: usize = 4;
    let mut cold = None;
    for _ in 0..DRAWS {
        let at = match other_than {
            Some(other) if fleet.len() > 1 => (other + 1 + random.below(fleet.len() - 1)) % fleet.len(),
            _ => random.below(fleet.len()),
        };
        let standing = &fleet.get(at)?.standing;
        if standing.is_ejected() {
            continue;
        }
        let warmth = standing.warmth();
        if warmth == 1000 || random.below(1000) < warmth {
            return Some(at);
        }
        cold = Some(at);
    }
    cold.or_else(|| fleet.iter().position(|u| !u.standing.is_ejected())).or(Some(0))
}

impl Balance {
    /// Notes that an instance failed. It is left alone for a while if that happens too often, unless half of its
    /// fleet is already: then it is not the instance. Whether it is.
    pub(crate) fn blame(&self, upstream: &Rc<Upstream>) -> bool {
        if !upstream.standing.failed() {
            return false;
        }
        let Some(fleet) = self.upstreams.iter().find(|fleet| is_in(fleet, upstream)) else { return false };
        let ejected = fleet.iter().filter(|u| u.standing.is_ejected()).count();
        let is_one_of_few = (ejected + 1) * 2 <= fleet.len();
        if is_one_of_few {
            upstream.standing.eject();
        }
        is_one_of_few
    }
}
