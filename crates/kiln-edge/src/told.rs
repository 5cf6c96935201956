//! A table as it was told: what has changed, beside what has not.

use std::sync::Arc;

use kiln_model::{EdgeRoute, RouteTable};

use crate::router::{self, Router};
use crate::terse::{Place, Terse};

/// A table as it was told. Where its routes are stays from one table to the next, as long as it does.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// With one of each kind of route.
    pub(crate) table: RouteTable,
    /// The kind of each route.
    pub(crate) kinds: Vec<usize>,
    /// Where the routes are.
    pub(crate) router: Arc<Router>,
}

impl Told {
    /// Takes a table whose routes are where those of `before` are, or elsewhere.
    ///
    /// # Errors
    /// In words, if that is none.
    pub(crate) fn new(terse: Terse<'_>, before: &Arc<Router>) -> Result<Self, String> {
        let Terse { table, places } = terse;
        let kinds: Vec<usize> = places.iter().map(|place| place.2).collect();
        if let Some(kind) = kinds.iter().find(|kind| **kind >= table.routes.len()) {
            return Err(format!("the table has a route of kind {kind} and does not say what that is"));
        }
        let all = places.iter().map(|Place(host, path, _)| (host.as_ref().map(|h| &*h.0), &*path.0));
        let router = if before.is_at(all.clone()) { before.clone() } else { Arc::new(Router::at(all)?) };
        Ok(Self { table, kinds, router })
    }

    /// The whole table, as it would be told to an edge that has none.
    pub(crate) fn whole(&self) -> RouteTable {
        let route = |((host, path), kind): (&router::Place, &usize)| EdgeRoute {
            host: host.clone(),
            path: path.clone(),
            ..self.table.routes[*kind].clone()
        };
        let routes = self.router.places().iter().zip(&self.kinds).map(route).collect();
        RouteTable { routes, ..self.table.clone() }
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::{
        Audience, ByteSize, EdgeFleet, FleetId, Generation, HttpsRule, Millis, Protocol, Target,
    };

    use super::*;

    fn fleet(generation: u64) -> FleetId {
        let (app, service) = ("app".parse().unwrap(), "web".parse().unwrap());
        FleetId { app, service, generation: Generation(generation) }
    }

    fn route(host: Option<&str>, path: &str, weights: &[u32]) -> EdgeRoute {
        let target = |(n, weight): (u64, &u32)| Target { fleet: fleet(n), weight: *weight };
        EdgeRoute {
            host: host.map(|h| h.parse().unwrap()),
            path: path.into(),
            service: "web".parse().unwrap(),
            targets: (1..).zip(weights).map(target).collect(),
            https: HttpsRule::Optional,
            audience: Audience::Everybody,
            hold: None,
            max_body: None,
            timeout: None,
        }
    }

    /// Routes that differ in one thing each, some of them in nothing but their place.
    fn table(version: u64) -> RouteTable {
        let plain = route(Some("a.example.com"), "/", &[1]);
        let routes = vec![
            plain.clone(),
            route(Some("*.example.com"), "/", &[1]),
            route(None, "/with \"quotes\" and \\", &[1]),
            route(None, "/", &[1, 0]),
            route(None, "/", &[2]),
            route(None, "/", &[]),
            EdgeRoute { service: "api".parse().unwrap(), ..plain.clone() },
            EdgeRoute { https: HttpsRule::Redirect, ..plain.clone() },
            EdgeRoute { audience: Audience::NotAt(1), ..plain.clone() },
            EdgeRoute { hold: Some(Millis(5)), ..plain.clone() },
            EdgeRoute { max_body: Some(ByteSize(5)), ..plain.clone() },
            EdgeRoute { timeout: Some(Millis(5)), ..plain.clone() },
            plain,
        ];
        let web = EdgeFleet {
            id: fleet(1),
            port: 80,
            instances: (1..4).map(|n| fleet(1).instance(n)).collect(),
            release: None,
            protocol: Protocol::Http1,
            circuit: None,
            callers: vec![],
            needs: Default::default(),
            parted: false,
        };
        RouteTable { version, routes, fleets: vec![web], ..RouteTable::default() }
    }

    fn read(bytes: &[u8], before: &Arc<Router>) -> Result<Told, String> {
        Told::new(serde_json::from_slice(bytes).map_err(|e| e.to_string())?, before)
    }

    #[test]
    fn a_table_comes_out_as_it_went_in() {
        let none = Arc::default();
        for table in [table(7), RouteTable::default(), RouteTable { routes: vec![], ..table(1) }] {
            let terse = Terse::of(&table);
            assert!(terse.table.routes.len() <= 10, "those that differ in their place alone are one kind");
            let told = read(&serde_json::to_vec(&terse).unwrap(), &none).unwrap();
            assert_eq!(told.whole(), table);
        }
    }

    #[test]
    fn a_router_stays_while_routes_are_where_they_were() {
        let first = read(&serde_json::to_vec(&Terse::of(&table(1))).unwrap(), &Arc::default()).unwrap();
        let mut next = table(2);
        next.routes.iter_mut().for_each(|route| route.targets = vec![]);
        let taken = |table: &RouteTable| Told::new(Terse::of(table), &first.router).unwrap();
        assert!(Arc::ptr_eq(&taken(&next).router, &first.router));
        type Change = fn(&mut RouteTable);
        let changes: [Change; 4] = [
            |t| t.routes[0].host = None,
            |t| t.routes[1].path = "/y".into(),
            |t| t.routes.swap(0, 1),
            |t| drop(t.routes.pop()),
        ];
        for change in changes {
            let mut other = next.clone();
            change(&mut other);
            let told = taken(&other);
            assert!(!Arc::ptr_eq(&told.router, &first.router));
            assert_eq!(told.whole(), other);
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let none = Arc::default();
        for places in [r#"[["a.com","/",1]]"#, r#"[["not a host","/",0]]"#, r#"[["a.com","/"]]"#, r#"[[]]"#] {
            let routes = serde_json::to_string(&[route(None, "", &[1])]).unwrap();
            let text =
                format!(r#"{{"table":{{"version":1,"routes":{routes},"fleets":[]}},"places":{places}}}"#);
            assert!(read(text.as_bytes(), &none).is_err(), "{places}");
        }
    }
}
