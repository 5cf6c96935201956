//! A table as it goes over the control socket: ten thousand routes of one service are that service's way to be reached
//! once, and ten thousand places.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use kiln_model::{EdgeRoute, RouteTable};
use serde::{Deserialize, Serialize};

/// A table in few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terse<'a> {
    /// The table, with one of each kind of route. Those stand at no place.
    pub(crate) table: RouteTable,
    /// Where the routes are, in their order.
    #[serde(borrow)]
    pub(crate) places: Vec<Place<'a>>,
}

/// Where a route is, and which of the kinds it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place<'a>(
    #[serde(borrow)] pub(crate) Option<Text<'a>>,
    #[serde(borrow)] pub(crate) Text<'a>,
    pub(crate) usize,
);

/// Text that is not copied when it is read, if it stands there as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl<'a> Terse<'a> {
    /// `table` in few words.
    pub(crate) fn of(table: &'a RouteTable) -> Self {
        let mut known: HashMap<Kind<'_>, usize> = HashMap::new();
        let mut kinds = Vec::new();
        let place = |route: &'a EdgeRoute| {
            let kind = *known.entry(Kind(route)).or_insert_with(|| {
                kinds.push(EdgeRoute { host: None, path: String::new(), ..route.clone() });
                kinds.len() - 1
            });
            Place(route.host.as_ref().map(|host| host.as_str().into()), route.path.as_str().into(), kind)
        };
        let places = table.routes.iter().map(place).collect();
        let RouteTable { version, routes: _, fleets, tcp, canaries, certificates } = table;
        let table = RouteTable {
            version: *version,
            routes: kinds,
            fleets: fleets.clone(),
            tcp: tcp.clone(),
            canaries: canaries.clone(),
            certificates: certificates.clone(),
        };
        Self { table, places }
    }
}

/// A route but for its place.
struct Kind<'a>(&'a EdgeRoute);

impl PartialEq for Kind<'_> {
    fn eq(&self, other: &Self) -> bool {
        let EdgeRoute { host: _, path: _, service, targets, https, audience, hold, max_body, timeout } =
            self.0;
        let other = other.0;
        (service, targets, https, audience, hold, max_body, timeout)
            == (
                &other.service,
                &other.targets,
                &other.https,
                &other.audience,
                &other.hold,
                &other.max_body,
                &other.timeout,
            )
    }
}

impl Eq for Kind<'_> {}

impl Hash for Kind<'_> {
    /// By what tells most of them apart.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.service.hash(state);
        for target in &self.0.targets {
            target.fleet.hash(state);
            target.weight.hash(state);
        }
    }
}
