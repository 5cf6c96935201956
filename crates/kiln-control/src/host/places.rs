//! Where the stores are that go by a name.
//!
//! A release holds the name. Where it leads is looked up when the release is to serve and every few seconds from then
//! on, so that a database that fails over to another address is followed without a deploy. An address that is still
//! among the answers is kept, and so is one whose name cannot be looked up for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_engine::Engine;
use kiln_model::{Need, Release, StoreHost};

use super::driver::Driver;
use crate::core::Core;
use crate::sync::lock;

/// How long it is waited for an answer. What looks names up cannot be called off: it is left behind.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked. Names that are made to fail over live for about as long.
const LOOK: Duration = Duration::from_secs(5);

/// What is known of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Place {
    address: Option<SocketAddr>,
    /// Why it could not be looked up the last time.
    problem: Option<String>,
}

/// What is known of the names of all stores.
pub(crate) struct Places {
    engine: Arc<dyn Engine>,
    known: Mutex<BTreeMap<StoreHost, Place>>,
}

impl Places {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, known: Mutex::default() }
    }

    /// Looks up what releases that have instances need, again and again, as long as the host runs.
    pub(crate) fn run(&self, driver: &Driver) {
        while !driver.is_stopped() {
            let wanted = wanted(&lock(&driver.core));
            self.look_up(&wanted);
            driver.pause_for(LOOK);
        }
    }

    /// Looks up the names of a release that are not known yet. What cannot be found is looked for again.
    pub(crate) fn learn(&self, release: &Release) {
        let mut names = names_of(release);
        names.retain(|name| lock(&self.known).get(name).is_none_or(|place| place.address.is_none()));
        self.look_up(&names);
    }

    /// A name leads here from now on.
    pub(crate) fn settle(&self, host: &StoreHost, address: SocketAddr) {
        lock(&self.known).insert(host.clone(), Place { address: Some(address), problem: None });
        self.tell();
    }

    /// What people should know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let known = lock(&self.known);
        let warning = |(host, place): (&StoreHost, &Place)| {
            let problem = place.problem.as_ref()?;
            let meanwhile = match place.address {
                Some(address) => format!("connections lead to {address} as before"),
                None => "connections to it are refused".into(),
            };
            Some(format!("the store at {host} cannot be looked up ({problem}); {meanwhile}"))
        };
        known.iter().filter_map(warning).collect()
    }

    fn look_up(&self, names: &BTreeSet<StoreHost>) {
        if names.is_empty() {
            return;
        }
        let answers = ask_all(names, addresses);
        let mut known = lock(&self.known);
        for (name, answer) in answers {
            known.entry(name.clone()).or_default().update(answer);
        }
        drop(known);
        self.tell();
    }

    /// Told again each time: what makes instances may be another process than the last time.
    fn tell(&self) {
        let known = lock(&self.known);
        let places = known.iter().filter_map(|(host, place)| Some((host.clone(), place.address?))).collect();
        drop(known);
        // Whoever cannot be told now is told in a moment.
        let _ = self.engine.locate(&places);
    }
}

impl Place {
    fn update(&mut self, answer: io::Result<Vec<SocketAddr>>) {
        match answer {
            Ok(found) if self.address.is_some_and(|address| found.contains(&address)) => self.problem = None,
            Ok(found) => (self.address, self.problem) = (found.first().copied(), None),
            Err(e) => self.problem = Some(e.to_string()),
        }
    }
}

/// What each of them answers; all are asked at once, since each may take all the time it has.
pub(super) fn ask_all<'a, T: Sync, R: Send>(
    all: impl IntoIterator<Item = &'a T>,
    ask: impl Fn(&T) -> io::Result<R> + Sync,
) -> Vec<(&'a T, io::Result<R>)> {
    let ask = &ask;
    std::thread::scope(|scope| {
        let asked: Vec<_> = all.into_iter().map(|one| (one, scope.spawn(move || ask(one)))).collect();
        let unasked = || Err(io::Error::other("it could not be asked"));
        asked.into_iter().map(|(one, asked)| (one, asked.join().unwrap_or_else(|_| unasked()))).collect()
    })
}

/// Where a name leads now, in the order of the system's preference; at least one address.
///
/// # Errors
/// What the system says, or that it said nothing in time.
pub(super) fn addresses(host: &StoreHost) -> io::Result<Vec<SocketAddr>> {
    let (to, answer) = channel();
    let asked = host.clone();
    let ask = move || {
        let found = (asked.name(), asked.port()).to_socket_addrs().map(Vec::from_iter);
        // Who asked may have given up.
        let _ = to.send(found);
    };
    std::thread::Builder::new().name("names".into()).spawn(ask)?;
    let found = answer.recv_timeout(PATIENCE).map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs()))
    })??;
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(found)
}

fn names_of(release: &Release) -> BTreeSet<StoreHost> {
    let needs = release.services.values().flat_map(|service| service.needs.values());
    let name = |need: &Need| match need {
        Need::Store { address } => address.host().cloned(),
        Need::Service { .. } => None,
    };
    needs.filter_map(name).collect()
}

fn wanted(core: &Core) -> BTreeSet<StoreHost> {
    let fleets = core.apps().values().flat_map(|state| state.fleets.values());
    let releases: BTreeSet<_> = fleets.map(|fleet| &fleet.release).collect();
    releases.into_iter().filter_map(|id| core.release(id)).flat_map(names_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn place(address: Option<u16>, problem: Option<&str>) -> Place {
        Place { address: address.map(at), problem: problem.map(str::to_owned) }
    }

    #[test]
    fn an_address_is_kept_while_it_is_right_or_nothing_is_known() {
        let mut found = Place::default();
        let down = || Err(io::Error::other("down"));
        let steps = [
            (down(), place(None, Some("down"))),
            (Ok(vec![at(1), at(2)]), place(Some(1), None)),
            (Ok(vec![at(2), at(1)]), place(Some(1), None)),
            (down(), place(Some(1), Some("down"))),
            (Ok(vec![at(2), at(3)]), place(Some(2), None)),
        ];
        for (answer, then) in steps {
            found.update(answer);
            assert_eq!(found, then);
        }
    }
}
