//! `kiln image diff`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use kiln_bake::export::Stored;
use kiln_model::{Failure, ImageRecord};
use serde_json::{Value, json};

use super::changes::{Change, between, in_what};
use super::{AppDirectory, find, name, tree};
use crate::context::Context;

const EXAMPLES: &str = "\
Examples:
  kiln image diff 5d0c web            from an older image to image `web` as it is now
  kiln image diff 5d0c 91aa --json | jq .packages";

/// What differs between two images: packages, how they are run, paths
///
/// Bytes of a path that are no UTF-8 are shown as `\ooo` (octal); --json then has all bytes in hexadecimal as
/// `path_hex` beside `path`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Diff {
    /// The one: as for the other
    #[arg(value_name = "A")]
    a: String,
    /// The other: its digest or the beginning of it, or the name of an image of the app in DIR, as baked last
    #[arg(value_name = "B")]
    b: String,
    #[command(flatten)]
    app: AppDirectory,
}

pub(crate) fn run(args: &Diff, context: &Context) -> Result<(), Failure> {
    let store = context.store()?;
    let a = find::open(&args.a, &args.app.directory, &store)?;
    let b = find::open(&args.b, &args.app.directory, &store)?;
    let packages = packages(&a.record, &b.record);
    let settings = settings(&a.record, &b.record);
    let paths = between(&a.tree, &b.tree);
    let value = json!({
        "a": a.record.digest.to_string(),
        "b": b.record.digest.to_string(),
        "packages": packages.iter().map(|(name, old, new)| json!({"name": name, "old": old, "new": new})).collect::<Vec<_>>(),
        "settings": settings,
        "paths": paths.iter().map(path).collect::<Vec<_>>(),
    });
    context.output.result(&value, || words_for(&a, &b, &packages, &settings, &paths))
}

/// Packages that are not in both in the same version.
fn packages(a: &ImageRecord, b: &ImageRecord) -> Vec<(String, Option<String>, Option<String>)> {
    let versions = |image: &ImageRecord| -> BTreeMap<String, String> {
        image.packages.iter().map(|p| (p.name.clone(), p.version.clone())).collect()
    };
    let (a, b) = (versions(a), versions(b));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differing = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    differing.map(|name| (name.clone(), a.get(name).cloned(), b.get(name).cloned())).collect()
}

/// What of the way they are run is not the same.
fn settings(a: &ImageRecord, b: &ImageRecord) -> Vec<&'static str> {
    let (x, y) = (&a.run, &b.run);
    let all = [
        ("run", x.argv != y.argv),
        ("user", (x.uid, x.gid, &x.groups) != (y.uid, y.gid, &y.groups)),
        ("env", x.env != y.env),
        ("workdir", x.workdir != y.workdir),
        ("stop signal", (x.stop_signal, x.stop_grace) != (y.stop_signal, y.stop_grace)),
        ("volatile paths", a.volatile != b.volatile),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

fn path(change: &Change<'_>) -> Value {
    let (path, mut entry) = match change {
        Change::Added(path, _) => (path, json!({ "change": "added" })),
        Change::Removed(path, _) => (path, json!({ "change": "removed" })),
        Change::Changed(path, old, new) => (path, json!({ "change": "changed", "what": in_what(old, new) })),
    };
    name::set(&mut entry, "path", path);
    entry
}

fn words_for(
    a: &Stored<'_>,
    b: &Stored<'_>,
    packages: &[(String, Option<String>, Option<String>)],
    settings: &[&str],
    paths: &[Change<'_>],
) -> String {
    if a.record.digest == b.record.digest {
        return "they are the same image".into();
    }
    let mut lines: Vec<String> = packages
        .iter()
        .map(|(name, old, new)| match (old, new) {
            (Some(old), Some(new)) => format!("package {name} {old} → {new}"),
            (None, Some(new)) => format!("package {name} {new} added"),
            (old, None) => format!("package {name} {} removed", old.as_deref().unwrap_or_default()),
        })
        .collect();
    lines.extend(settings.iter().map(|name| format!("{name} differs")));
    lines.extend(paths.iter().map(|change| match change {
        Change::Added(path, node) => format!("+ {}", tree::line(path, node)),
        Change::Removed(path, node) => format!("- {}", tree::line(path, node)),
        Change::Changed(path, old, new) => {
            format!("~ {} ({})", tree::line(path, new), in_what(old, new).join(", "))
        }
    }));
    lines.join("\n")
}
