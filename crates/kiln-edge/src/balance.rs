//! One thread's view of the table: which fleet and instance the next request goes to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use kiln_model::{HttpsRule, InstanceId, RouteTable};

use crate::counts::Tally;
use crate::inside::Caller;
use crate::metrics::{Meter, Registry};
use crate::origin::Scheme;
use crate::random::Random;
use crate::shares::Shares;
use crate::table::{Fleet, FleetIndex, Lead, Route, Table};
use crate::upstream::Upstream;

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
}

/// Why a request goes nowhere.
pub(crate) enum NoPick {
    /// No route takes it.
    NoRoute,
    /// Its route takes it only over HTTPS.
    OnlyHttps,
    /// Its route has no target with a share.
    NoTarget,
    /// Its targets have no instance that may receive requests; the first of them takes the blame.
    NoInstance(Arc<Tally>),
    /// Every instance there is has been tried for this request.
    AllTried,
}

impl Balance {
    /// `known` are the upstreams of the table before: those that stay keep their connections.
    pub(crate) fn new(table: Arc<Table>, known: &HashMap<InstanceId, Rc<Upstream>>) -> Self {
        let shares = table.routes.iter().map(|_| RefCell::default()).collect();
        let tcp_shares = table.tcp.iter().map(|_| RefCell::default()).collect();
        let upstream = |id: &InstanceId, fleet: &Fleet| match known.get(id) {
            Some(known) if known.port() == fleet.port && known.protocol() == fleet.protocol => known.clone(),
            _ => Upstream::new(id.clone(), fleet.port, fleet.protocol),
        };
        let of_fleet = |fleet: &Fleet| fleet.instances.iter().map(|id| upstream(id, fleet)).collect();
        let upstreams = table.fleets.iter().map(of_fleet).collect();
        Self { table, shares, tcp_shares, upstreams }
    }

    /// Before there is a table.
    pub(crate) fn empty() -> Self {
        let table = Table::new(RouteTable::default(), &HashMap::new(), &Arc::default(), &Registry::default());
        Self::new(Arc::new(table), &HashMap::new())
    }

    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Rc<Upstream>> {
        self.upstreams.iter().flatten()
    }

    /// Chooses for a request that `tried` these already. No await can come between this and counting the request.
    pub(crate) fn pick(
        &self,
        host: Option<&str>,
        path: &str,
        scheme: Scheme,
        tried: &[Rc<Upstream>],
        random: &Random,
    ) -> Result<Pick, NoPick> {
        let route = self.table.router.find(host, path).ok_or(NoPick::NoRoute)?;
        let Route { targets, meters, https } = &self.table.routes[route];
        if *https == HttpsRule::Redirect && scheme == Scheme::Http {
            return Err(NoPick::OnlyHttps);
        }
        self.among(targets, meters, &self.shares[route], tried, random)
    }

    /// Chooses for a connection to `port`.
    pub(crate) fn pick_tcp(
        &self,
        port: u16,
        tried: &[Rc<Upstream>],
        random: &Random,
    ) -> Result<Pick, NoPick> {
        let route = self.table.tcp.iter().position(|r| r.port == port).ok_or(NoPick::NoRoute)?;
        self.among(&self.table.tcp[route].targets, &[], &self.tcp_shares[route], tried, random)
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
            Some(Lead::Fleets(targets)) => self.among(targets, &[], &RefCell::default(), tried, random),
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
                Ok(Pick { tally: self.table.fleets[fleet].tally.clone(), upstream, meter })
            }
            None if !tried.is_empty() => Err(NoPick::AllTried),
            None => Err(match targets.first() {
                Some((fleet, _)) => NoPick::NoInstance(self.table.fleets[*fleet].tally.clone()),
                None => NoPick::NoTarget,
            }),
        }
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
