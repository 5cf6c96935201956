//! `[route.NAME]`.

use std::collections::BTreeMap;

use super::{Place, Problems, named, parse, refer};
use crate::RouteName;
use crate::spec::{RouteFile, RouteSpec, SpecFile};

/// All routes. An app with one service and no route means that one: every request goes to it. With several services
/// there is no telling which is meant, and an app may well have no door to the outside.
pub(super) fn routes(file: &SpecFile, problems: &mut Problems<'_, '_>) -> BTreeMap<RouteName, RouteSpec> {
    if file.route.is_empty() {
        return the_only_service(file).into_iter().collect();
    }
    let top = Place::default().key("route");
    let routes =
        named(&file.route, &top, problems, |_, route, place, problems| resolve(route, file, place, problems));
    conflicts(&routes, &top, problems);
    routes
}

fn the_only_service(file: &SpecFile) -> Option<(RouteName, RouteSpec)> {
    let mut names = file.service.keys();
    let (name, None) = (names.next()?, names.next()) else { return None };
    let service = name.parse().ok()?;
    Some((name.parse().ok()?, RouteSpec { host: None, path: "/".into(), service }))
}

fn resolve(
    route: &RouteFile,
    all: &SpecFile,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> Option<RouteSpec> {
    let services: Vec<&str> = all.service.keys().map(String::as_str).collect();
    let known = refer("service", &route.service, &services, &place.key("service"), problems);
    let path = prefix(route.path.as_deref().unwrap_or("/"), &place.key("path"), problems);
    let host = match &route.host {
        Some(host) => Some(parse(host, &place.key("host"), problems)?),
        None => None,
    };
    let service = if known { route.service.parse().ok()? } else { return None };
    Some(RouteSpec { host, path, service })
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
