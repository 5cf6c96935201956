//! What differs between two releases, one line a difference.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{ImageDigest, ImageRecord, Release, ReleaseService};

/// The differences from `old` to `new`; `image` finds what is known of an image.
pub(crate) fn between(
    old: Option<&Release>,
    new: &Release,
    image: &dyn Fn(&ImageDigest) -> Option<ImageRecord>,
) -> Vec<String> {
    let Some(old) = old else { return vec!["everything: nothing serves yet".into()] };
    let mut lines = Vec::new();
    let services: BTreeSet<_> = old.services.keys().chain(new.services.keys()).collect();
    for name in services {
        match (old.services.get(name), new.services.get(name)) {
            (None, _) => lines.push(format!("service {name}: new")),
            (_, None) => lines.push(format!("service {name}: removed")),
            (Some(a), Some(b)) => {
                lines.extend(service(a, b, image).into_iter().map(|l| format!("service {name}: {l}")));
            }
        }
    }
    if old.routes != new.routes {
        lines.push("routes: changed".into());
    }
    if (old.drain, old.keep_warm) != (new.drain, new.keep_warm) {
        lines.push("deploy settings: changed".into());
    }
    lines
}

fn service(
    a: &ReleaseService,
    b: &ReleaseService,
    image: &dyn Fn(&ImageDigest) -> Option<ImageRecord>,
) -> Vec<String> {
    let mut lines = Vec::new();
    if a.image != b.image {
        lines.push(format!("image {} → {}", a.image.short(), b.image.short()));
        if let (Some(a), Some(b)) = (image(&a.image), image(&b.image)) {
            lines.extend(packages(&a, &b));
        }
    }
    let mut differs = |what: &str, a: String, b: String| {
        if a != b {
            lines.push(format!("{what} {a} → {b}"));
        }
    };
    differs("instances", a.instances.to_string(), b.instances.to_string());
    differs("port", a.port.to_string(), b.port.to_string());
    differs("memory", a.limits.memory.to_string(), b.limits.memory.to_string());
    differs("cpu", cpu(a), cpu(b));
    differs("run", a.run.argv.join(" "), b.run.argv.join(" "));
    let names: BTreeSet<&String> = a.env.keys().chain(b.env.keys()).collect();
    // Names, not values: a plan may be shown to more people than the environment.
    lines.extend(
        names.into_iter().filter(|n| a.env.get(*n) != b.env.get(*n)).map(|n| format!("env {n} changed")),
    );
    if (&a.probe, a.probe_interval, a.healthy_after) != (&b.probe, b.probe_interval, b.healthy_after) {
        lines.push("health changed".into());
    }
    lines
}

fn cpu(service: &ReleaseService) -> String {
    format!("{}", f64::from(service.limits.cpu_millis) / 1000.0)
}

fn packages(a: &ImageRecord, b: &ImageRecord) -> Vec<String> {
    let versions = |image: &ImageRecord| -> BTreeMap<String, String> {
        image.packages.iter().map(|p| (p.name.clone(), p.version.clone())).collect()
    };
    let (a, b) = (versions(a), versions(b));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (a.get(name), b.get(name)) {
            (Some(old), Some(new)) if old == new => None,
            (Some(old), Some(new)) => Some(format!("package {name} {old} → {new}")),
            (None, Some(new)) => Some(format!("package {name} {new} added")),
            (Some(_), None) | (None, None) => Some(format!("package {name} removed")),
        })
        .collect()
}
