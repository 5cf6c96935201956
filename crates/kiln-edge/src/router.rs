//! From a request's host and path to its route, in time that does not grow with the number of routes.

use std::borrow::Cow;
use std::collections::HashMap;

use kiln_model::HostPattern;

/// Index of a route in its table.
pub(crate) type RouteIndex = usize;

/// Where a route is: host and path.
pub(crate) type Place = (Option<HostPattern>, String);

/// The same, as it is told.
pub(crate) type Spoken<'a> = (Option<&'a str>, &'a str);

/// The routes of one table, found by host, then path.
#[derive(Debug, Default)]
pub(crate) struct Router {
    /// Where they are.
    places: Vec<Place>,
    exact: HashMap<String, Paths>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Paths>,
    any: Paths,
}

impl Router {
    /// Several routes may have the same host and path if they are for different users; of those for the same the first
    /// wins, and control refuses such tables at plan time.
    ///
    /// # Errors
    /// In words, if one of the hosts is none.
    pub(crate) fn at<'a>(places: impl Iterator<Item = Spoken<'a>>) -> Result<Self, String> {
        let parse = |(host, path): Spoken<'_>| {
            Ok((host.map(str::parse::<HostPattern>).transpose()?, path.to_owned()))
        };
        let places = places.map(parse).collect::<Result<Vec<_>, String>>()?;
        let mut router = Self::default();
        for (index, (host, path)) in places.iter().enumerate() {
            let pattern = host.as_ref().map(HostPattern::as_str);
            let paths = match pattern.map(|p| (p.strip_prefix("*."), p)) {
                None => &mut router.any,
                Some((None, name)) => router.exact.entry(name.to_owned()).or_default(),
                Some((Some(parent), _)) => router.wildcard.entry(parent.to_owned()).or_default(),
            };
            paths.insert(path, index);
        }
        Ok(Self { places, ..router })
    }

    /// Where the routes are.
    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// Whether those are its places, in this order.
    pub(crate) fn is_at<'a>(&self, places: impl ExactSizeIterator<Item = Spoken<'a>>) -> bool {
        let is_same = |((ours, at), (host, path)): (&Place, Spoken<'_>)| {
            ours.as_ref().map(HostPattern::as_str) == host && at == path
        };
        self.places.len() == places.len() && self.places.iter().zip(places).all(is_same)
    }

    /// How a route is called in figures.
    pub(crate) fn name(&self, route: RouteIndex) -> String {
        let (host, path) = &self.places[route];
        format!("{}{path}", host.as_ref().map_or("*", HostPattern::as_str))
    }

    /// The most specific route that is for whoever asks: an exact host before a wildcard before none, then the longest
    /// path prefix.
    pub(crate) fn find(
        &self,
        host: Option<&str>,
        path: &str,
        is_meant: impl Fn(RouteIndex) -> bool,
    ) -> Option<RouteIndex> {
        let host = host.map(bare);
        let named = host.as_deref().and_then(|host| {
            self.exact.get(host).and_then(|paths| paths.find(path, &is_meant)).or_else(|| {
                let (label, parent) = host.split_once('.')?;
                let paths = self.wildcard.get(parent).filter(|_| !label.is_empty())?;
                paths.find(path, &is_meant)
            })
        });
        named.or_else(|| self.any.find(path, &is_meant))
    }

    /// Whether a route names this very host.
    pub(crate) fn names(&self, host: &str) -> bool {
        self.exact.contains_key(&*bare(host))
    }
}

/// The name alone: no port, no dot at its end, lower case.
fn bare(host: &str) -> Cow<'_, str> {
    let name = match host.rfind(':') {
        // An IPv6 address has colons inside its brackets.
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|c| c.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// Path prefixes of one host, without the slash at their end.
#[derive(Debug, Default)]
struct Paths {
    /// Of the empty one, which is all that most hosts have.
    root: Vec<RouteIndex>,
    below: HashMap<String, Vec<RouteIndex>>,
    longest: usize,
}

impl Paths {
    fn insert(&mut self, path: &str, index: RouteIndex) {
        let prefix = path.trim_end_matches('/');
        self.longest = self.longest.max(prefix.len());
        match prefix {
            "" => self.root.push(index),
            prefix => self.below.entry(prefix.to_owned()).or_default().push(index),
        }
    }

    fn at(&self, prefix: &str) -> Option<&Vec<RouteIndex>> {
        if prefix.is_empty() { Some(&self.root) } else { self.below.get(prefix) }
    }

    /// Tries the path, then its parents. Nothing longer than the longest prefix is looked up, so that a path of
    /// thousands of slashes costs no more than any other.
    fn find(&self, path: &str, is_meant: &impl Fn(RouteIndex) -> bool) -> Option<RouteIndex> {
        let mut end = path.len();
        loop {
            if end <= self.longest
                && let Some(routes) = self.at(&path[..end])
                && let Some(index) = routes.iter().find(|index| is_meant(**index))
            {
                return Some(*index);
            }
            end = path[..end].rfind('/')?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router<const N: usize>(places: [(Option<&str>, &str); N]) -> Router {
        Router::at(places.into_iter()).unwrap()
    }

    #[test]
    fn the_most_specific_route_wins() {
        let router = router([
            (None, "/"),
            (None, "/api"),
            (Some("a.example.com"), "/api/"),
            (Some("*.example.com"), "/"),
            (Some("*.example.com"), "/api/v2"),
        ]);
        for (host, path, expected) in [
            (None, "/", Some(0)),
            (Some("elsewhere"), "/apix", Some(0)),
            (Some("elsewhere"), "/api", Some(1)),
            (Some("elsewhere"), "/api/", Some(1)),
            (Some("A.Example.COM.:8080"), "/api/v2/x", Some(2)),
            (Some("a.example.com"), "/", Some(3)),
            (Some("b.example.com"), "/api/v2", Some(4)),
            (Some("b.c.example.com"), "/api/v1", Some(1)),
            (Some("example.com"), "/x", Some(0)),
            (Some("[::1]:80"), "/", Some(0)),
            (None, "*", None),
        ] {
            assert_eq!(router.find(host, path, |_| true), expected, "{host:?} {path}");
        }
    }

    #[test]
    fn no_route_is_no_route() {
        let router = router([(Some("a.example.com"), "/x")]);
        assert_eq!(router.find(Some("a.example.com"), "/", |_| true), None);
        assert_eq!(router.find(None, "/x", |_| true), None);
    }

    #[test]
    fn who_is_not_meant_by_a_route_gets_the_next_one() {
        let router = router([
            (Some("a.example.com"), "/"),
            (Some("a.example.com"), "/"),
            (Some("a.example.com"), "/new"),
            (None, "/new"),
        ]);
        let old = |index| index == 0 || index == 3;
        let new = |index| index == 1 || index == 2;
        let host = Some("a.example.com");
        assert_eq!((router.find(host, "/x", old), router.find(host, "/x", new)), (Some(0), Some(1)));
        assert_eq!((router.find(host, "/new/x", old), router.find(host, "/new/x", new)), (Some(0), Some(2)));
        assert_eq!(router.find(host, "/new", |index| index == 3), Some(3), "the whole way down");
        assert!(router.names("A.example.com:80") && !router.names("example.com"));
    }
}
