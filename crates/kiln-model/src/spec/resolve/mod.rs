//! From what is written to what it means. Everything that is wrong is reported, with its place; what is written for
//! a later version of Kiln is refused, never passed over.

mod canary;
mod check;
mod contents;
mod hooks;
mod image;
mod needs;
mod packages;
mod paths;
mod policy;
mod route;
mod secrets;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use super::{Place, Problems, SchemaFile, Sources, Spec, SpecFile, StrategyFile};
use crate::spec::ServiceSpec;
use crate::{Millis, Need, SchemaRange, ServiceName, layers};

/// The whole spec; `None`, or a spec not to be used, if there are problems.
pub(super) fn spec(file: &SpecFile, problems: &mut Problems<'_, '_>) -> Option<Spec> {
    let top = Place::default();
    let app = parse(&file.app, &top.key("app"), problems);
    let images = named(&file.image, &top.key("image"), problems, |name, image, place, problems| {
        image::image(image, file.port_of(name), place, problems)
    });
    let services = named(&file.service, &top.key("service"), problems, |_, service, place, problems| {
        service::service(service, file, place, problems)
    });
    circles(&services, problems);
    let route::Routes { http: routes, tcp } = route::routes(file, problems);
    let certificates = route::certificates(file, problems);
    let automatic_tls = route::automatic(file, &routes, problems);
    needs::stores(file, problems);
    let (drain, keep_warm) = deploy(file, problems);
    let schema = schema(file, problems);
    let canary = canary::canary(file, problems);
    let sources = sources(file, problems);
    let policy = policy::policy(file.policy.as_ref(), &images, problems);
    Some(Spec {
        app: app?,
        images,
        services,
        routes,
        tcp,
        certificates,
        drain,
        keep_warm,
        schema,
        automatic_tls,
        canary,
        sources,
        policy,
    })
}

impl SpecFile {
    /// The port on which instances of an image listen: that of the services made from it, if they agree.
    fn port_of(&self, image: &str) -> Option<u16> {
        let mut ports = self.service.values().filter(|s| s.image == image).map(|s| s.port);
        let first = ports.next()?;
        ports.all(|p| p == first).then_some(first)
    }
}

/// Resolves a table of named things; those whose name is no name are reported and left out.
fn named<K: FromStr<Err: Display> + Ord, F, T>(
    table: &BTreeMap<String, F>,
    place: &Place,
    problems: &mut Problems<'_, '_>,
    mut resolve: impl FnMut(&str, &F, &Place, &mut Problems<'_, '_>) -> Option<T>,
) -> BTreeMap<K, T> {
    let mut out = BTreeMap::new();
    for (name, written) in table {
        let place = place.key(name);
        let key = match name.parse() {
            Ok(key) => Some(key),
            Err(e) => {
                problems.key(&place, K::Err::to_string(&e));
                None
            }
        };
        if let (Some(key), Some(value)) = (key, resolve(name, written, &place, problems)) {
            out.insert(key, value);
        }
    }
    out
}

/// Text that stands for something.
fn parse<T: FromStr<Err: Display>>(text: &str, place: &Place, problems: &mut Problems<'_, '_>) -> Option<T> {
    match text.parse() {
        Ok(value) => Some(value),
        Err(e) => {
            problems.value(place, e.to_string());
            None
        }
    }
}

/// Text that stands for something, or what holds if it is absent (or wrong, which is reported).
fn parse_or<T: FromStr<Err: Display>>(
    text: Option<&String>,
    default: T,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> T {
    text.and_then(|text| parse(text, place, problems)).unwrap_or(default)
}

/// A count that cannot be 0.
fn at_least_one(given: Option<u32>, default: u32, place: &Place, problems: &mut Problems<'_, '_>) -> u32 {
    if given == Some(0) {
        problems.value(place, format!("`{place}` is 0")).expected("1 or more");
    }
    given.unwrap_or(default)
}

/// What a name refers to must be there.
fn refer(
    kinds: &[&str],
    given: &str,
    valid: &[&str],
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> bool {
    if valid.contains(&given) {
        return true;
    }
    let found = problems.value(place, format!("there is no {} `{given}`", kinds.join(" or ")));
    if valid.is_empty() {
        let sections: Vec<String> = kinds.iter().map(|kind| format!("`[{kind}.{given}]`")).collect();
        found.expected(format!("a section {}", sections.join(" or ")));
    } else {
        let names: Vec<String> = valid.iter().map(|name| format!("`{name}`")).collect();
        found.expected(names.join(" or ")).nearest(given, valid.iter().copied());
    }
    false
}

fn deploy(file: &SpecFile, problems: &mut Problems<'_, '_>) -> (Millis, Millis) {
    let place = Place::default().key("deploy");
    let deploy = file.deploy.clone().unwrap_or_default();
    match &deploy.strategy {
        Some(StrategyFile::Name(name)) if name != "blue-green" => {
            let message = format!("there is no strategy `{name}`");
            problems
                .value(&place.key("strategy"), message)
                .expected("`blue-green`")
                .nearest(name, ["blue-green"]);
        }
        _ => {}
    }
    let drain = parse_or(deploy.drain.as_ref(), Millis(30_000), &place.key("drain"), problems);
    let keep_warm = parse_or(deploy.keep_warm.as_ref(), Millis(600_000), &place.key("keep_warm"), problems);
    (drain, keep_warm)
}

/// Services come up in the order of what they need.
fn circles(services: &BTreeMap<ServiceName, ServiceSpec>, problems: &mut Problems<'_, '_>) {
    let needed = |service: &ServiceSpec| -> BTreeSet<ServiceName> {
        let services = service.needs.iter().filter(|(_, need)| matches!(need, Need::Service { .. }));
        services.filter_map(|(name, _)| name.as_str().parse().ok()).collect()
    };
    let needs = services.iter().map(|(name, service)| (name.clone(), needed(service))).collect();
    if let Err(circle) = layers(&needs) {
        let first = circle.0.first().map_or("", |name| name.as_str());
        problems
            .value(&Place::default().key("service").key(first).key("needs"), circle.to_string())
            .expected("services that can come up one after the other");
    }
}

fn schema(file: &SpecFile, problems: &mut Problems<'_, '_>) -> Option<SchemaRange> {
    let SchemaFile { oldest, newest } = *file.deploy.as_ref()?.schema.as_ref()?;
    if oldest > newest {
        let place = Place::default().key("deploy").key("schema");
        problems
            .value(&place, format!("`oldest` is {oldest} and `newest` is {newest}"))
            .expected("an `oldest` that is not newer than `newest`");
    }
    Some(SchemaRange { oldest, newest })
}

fn sources(file: &SpecFile, problems: &mut Problems<'_, '_>) -> Sources {
    let debian = file.sources.as_ref().and_then(|s| s.debian.as_ref());
    let mirror = debian.and_then(|d| d.mirror.as_deref());
    if let Some(url) = mirror {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if !rest.is_some_and(|rest| !rest.starts_with('/') && !rest.is_empty() && !rest.contains(' ')) {
            let place = Place::default().key("sources").key("debian").key("mirror");
            problems
                .value(&place, format!("`{url}` is not the address of a mirror"))
                .expected("an address like `https://mirror.example.com/debian` (http or https)");
        }
    }
    Sources { debian_mirror: mirror.map(|url| url.trim_end_matches('/').to_owned()) }
}
