//! Visitors who are sent to https where nobody listens.
//!
//! This refuses nothing: somebody in front may speak TLS without this host knowing.

use std::collections::BTreeSet;

use kiln_model::{HostPattern, HttpsRule, Release, RouteTable};

/// So many hosts are named; one table may have ten thousand.
const NAMED: usize = 3;

/// What people should know of a release on a host that does not serve https.
pub(super) fn of_release(release: &Release) -> Option<String> {
    warning(release.routes.values().map(|route| (route.https, route.host.as_ref())))
}

/// The same of what is served.
pub(super) fn of_table(table: &RouteTable) -> Option<String> {
    warning(table.routes.iter().map(|route| (route.https, route.host.as_ref())))
}

fn warning<'a>(routes: impl Iterator<Item = (HttpsRule, Option<&'a HostPattern>)>) -> Option<String> {
    let sent_away = routes.filter(|(https, _)| *https == HttpsRule::Redirect);
    let hosts: BTreeSet<String> =
        sent_away.map(|(_, host)| host.map_or("any host".to_owned(), ToString::to_string)).collect();
    let named: Vec<&str> = hosts.iter().take(NAMED).map(String::as_str).collect();
    let others = match hosts.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let hosts = (!named.is_empty()).then(|| named.join(", "))?;
    Some(format!(
        "visitors of {hosts}{others} are sent to https, and nobody listens there: start this host with \
         --listen-tls, or with --trust if somebody in front of it speaks TLS"
    ))
}

#[cfg(test)]
mod tests {
    use kiln_model::{Audience, EdgeRoute};

    use super::*;

    fn table(hosts: &[(Option<&str>, HttpsRule)]) -> RouteTable {
        let route = |(host, https): &(Option<&str>, HttpsRule)| EdgeRoute {
            host: host.map(|host| host.parse().unwrap()),
            path: "/".into(),
            service: "web".parse().unwrap(),
            targets: Vec::new(),
            https: *https,
            audience: Audience::Everybody,
            hold: None,
            max_body: None,
            timeout: None,
        };
        RouteTable { routes: hosts.iter().map(route).collect(), ..RouteTable::default() }
    }

    #[test]
    fn those_who_are_sent_away_are_named_once_and_not_all() {
        use HttpsRule::{Optional, Redirect};
        assert_eq!(of_table(&table(&[(Some("a.com"), Optional), (None, Optional)])), None);
        for (hosts, words) in [
            (
                &[(Some("b.com"), Redirect), (Some("b.com"), Redirect), (Some("a.com"), Optional)][..],
                "b.com are",
            ),
            (&[(None, Redirect), (Some("*.a.com"), Redirect)], "*.a.com, any host are"),
            (&["a", "b", "c", "d", "e"].map(|host| (Some(host), Redirect)), "a, b, c and 2 more are"),
        ] {
            let told = of_table(&table(hosts)).unwrap();
            assert!(told.starts_with(&format!("visitors of {words} sent to https")), "{told}");
        }
    }
}
