//! `[route.NAME]` and `[tls]`.

use std::collections::BTreeMap;

use super::{Place, Problems, named, parse, refer};
use crate::spec::{CertificateFile, RouteFile, RouteSpec, SpecFile};
use crate::{CertificatePaths, HttpsRule, Millis, ReleaseTcpRoute, RouteName};

/// All routes. An app with one service and no route means that one: every request goes to it. With several services
/// there is no telling which is meant, and an app may well have no door to the outside.
pub(super) fn routes(file: &SpecFile, problems: &mut Problems<'_, '_>) -> Routes {
    if file.route.is_empty() {
        return Routes { http: the_only_service(file).into_iter().collect(), tcp: BTreeMap::new() };
    }
    let top = Place::default().key("route");
    let all = named(&file.route, &top, problems, |_, route, place, problems| match route.tcp {
        Some(port) => tcp(route, port, file, place, problems).map(Either::Tcp),
        None => resolve(route, file, place, problems).map(Either::Http),
    });
    let mut routes = Routes::default();
    for (name, route) in all {
        match route {
            Either::Http(route) => drop(routes.http.insert(name, route)),
            Either::Tcp(route) => drop(routes.tcp.insert(name, route)),
        }
    }
    conflicts(&routes.http, &top, problems);
    tcp_conflicts(&routes.tcp, &top, problems);
    routes
}

/// Routes of both kinds.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) http: BTreeMap<RouteName, RouteSpec>,
    pub(super) tcp: BTreeMap<RouteName, ReleaseTcpRoute>,
}

enum Either {
    Http(RouteSpec),
    Tcp(ReleaseTcpRoute),
}

fn tcp(
    route: &RouteFile,
    port: u16,
    all: &SpecFile,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> Option<ReleaseTcpRoute> {
    super::check::is_port(port, &place.key("tcp"), problems);
    let of_http = [
        ("host", &route.host),
        ("path", &route.path),
        ("https", &route.https),
        ("max_body", &route.max_body),
        ("timeout", &route.timeout),
    ];
    for (key, _) in of_http.iter().filter(|(_, given)| given.is_some()) {
        problems
            .key(&place.key(key), format!("`{key}` is asked of HTTP requests, and a `tcp` route has none"))
            .expected("either `tcp`, or a route of HTTP");
    }
    let services: Vec<&str> = all.service.keys().map(String::as_str).collect();
    let known = refer(&["service"], &route.service, &services, &place.key("service"), problems);
    known.then(|| route.service.parse().ok()).flatten().map(|service| ReleaseTcpRoute { port, service })
}

fn https_rule(written: Option<&String>, place: &Place, problems: &mut Problems<'_, '_>) -> HttpsRule {
    match written.map(String::as_str) {
        None | Some("optional") => HttpsRule::Optional,
        Some("redirect") => HttpsRule::Redirect,
        Some(other) => {
            let message = format!("there is no rule `{other}` for requests without TLS");
            let names = ["optional", "redirect"];
            problems.value(place, message).expected("`optional` or `redirect`").nearest(other, names);
            HttpsRule::Optional
        }
    }
}

/// Certificates and keys, by their paths on the host.
pub(super) fn certificates(file: &SpecFile, problems: &mut Problems<'_, '_>) -> Vec<CertificatePaths> {
    let top = Place::default().key("tls").key("certificates");
    let written = file.tls.as_ref().map(|tls| tls.certificates.as_slice()).unwrap_or_default();
    for (index, certificate) in written.iter().enumerate() {
        for (key, path) in [("cert", &certificate.cert), ("key", &certificate.key)] {
            if !path.starts_with('/') || path.contains(char::is_control) {
                problems
                    .value(
                        &top.item(index).key(key),
                        format!("`{}` is not an absolute path", path.escape_debug()),
                    )
                    .expected("a file of the host, like `/etc/ssl/hello/fullchain.pem`");
            }
        }
    }
    let paths = |c: &CertificateFile| CertificatePaths { cert: c.cert.clone(), key: c.key.clone() };
    written.iter().map(paths).collect()
}

/// Whether the host gets certificates itself; there has to be a name to get one for.
pub(super) fn automatic(
    file: &SpecFile,
    routes: &BTreeMap<RouteName, RouteSpec>,
    problems: &mut Problems<'_, '_>,
) -> bool {
    let wanted = file.tls.as_ref().and_then(|tls| tls.automatic).unwrap_or(false);
    let is_name = |host: &crate::HostPattern| !host.as_str().starts_with("*.");
    if wanted && !routes.values().filter_map(|r| r.host.as_ref()).any(is_name) {
        problems
            .value(
                &Place::default().key("tls").key("automatic"),
                "no route has a host to get a certificate for",
            )
            .expected("a route with a `host` that is a whole name");
    }
    wanted
}

fn the_only_service(file: &SpecFile) -> Option<(RouteName, RouteSpec)> {
    let mut names = file.service.keys();
    let (name, None) = (names.next()?, names.next()) else { return None };
    let service = name.parse().ok()?;
    let (https, max_body, timeout) = Default::default();
    Some((name.parse().ok()?, RouteSpec { host: None, path: "/".into(), service, https, max_body, timeout }))
}

fn resolve(
    route: &RouteFile,
    all: &SpecFile,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> Option<RouteSpec> {
    let services: Vec<&str> = all.service.keys().map(String::as_str).collect();
    let known = refer(&["service"], &route.service, &services, &place.key("service"), problems);
    let path = prefix(route.path.as_deref().unwrap_or("/"), &place.key("path"), problems);
    let host = match &route.host {
        Some(host) => Some(parse(host, &place.key("host"), problems)?),
        None => None,
    };
    let https = https_rule(route.https.as_ref(), &place.key("https"), problems);
    let max_body = route.max_body.as_ref().and_then(|size| parse(size, &place.key("max_body"), problems));
    let timeout = route.timeout.as_ref().and_then(|span| timeout(span, &place.key("timeout"), problems));
    let service = if known { route.service.parse().ok()? } else { return None };
    Some(RouteSpec { host, path, service, https, max_body, timeout })
}

/// The edge looks once a second.
const LEAST_TIMEOUT: Millis = Millis(1000);

fn timeout(written: &str, place: &Place, problems: &mut Problems<'_, '_>) -> Option<Millis> {
    let timeout: Millis = parse(written, place, problems)?;
    if timeout < LEAST_TIMEOUT {
        problems.value(place, format!("`{place}` is too short")).expected("1s or more");
    }
    Some(timeout)
}

fn prefix(path: &str, place: &Place, problems: &mut Problems<'_, '_>) -> String {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "?#".contains(c);
    if !path.starts_with('/') || path.contains(odd) {
        problems
            .value(place, format!("`{}` is not the beginning of a path", path.escape_debug()))
            .expected("a path that starts with `/`, without `?` and `#`");
    }
    match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

fn conflicts(routes: &BTreeMap<RouteName, RouteSpec>, top: &Place, problems: &mut Problems<'_, '_>) {
    let mut seen: BTreeMap<(Option<&str>, &str), &RouteName> = BTreeMap::new();
    for (name, route) in routes {
        let target = (route.host.as_ref().map(|h| h.as_str()), route.path.as_str());
        if let Some(first) = seen.insert(target, name) {
            problems
                .value(
                    &top.key(name.as_str()),
                    format!("route `{name}` takes the same requests as `{first}`"),
                )
                .expected("another host or path");
        }
    }
}

fn tcp_conflicts(
    routes: &BTreeMap<RouteName, ReleaseTcpRoute>,
    top: &Place,
    problems: &mut Problems<'_, '_>,
) {
    let mut seen: BTreeMap<u16, &RouteName> = BTreeMap::new();
    for (name, route) in routes {
        if let Some(first) = seen.insert(route.port, name) {
            problems
                .value(&top.key(name.as_str()), format!("route `{name}` has the same port as `{first}`"))
                .expected("another port");
        }
    }
}
