//! `kiln lock`

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use kiln_bake::Update;
use kiln_control::pipeline::Relocked;
use kiln_control::{Project, SystemClock, pipeline};
use kiln_model::{ExitCode, Failure, ImageName, LockedImage};
use serde::Serialize;

use crate::context::Context;
use crate::offline::Onlooker;
use crate::{app, progress, words};

const EXAMPLES: &str = "\
Examples:
  kiln lock                          pin what kiln.toml asks for and kiln.lock does not have yet
  kiln lock --update                 everything in its newest version
  kiln lock --update openssl curl    only these, and what must move with them
  kiln lock --update web             the OCI image that image `web` starts from
  kiln lock examples/hello --update  everything, of the app in that directory
  kiln lock --update ./hello         the same behind it: what has a slash is DIR, and no NAME has one";

/// Resolve and pin the inputs of all images in kiln.lock
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Lock {
    /// Where the app is; `kiln.toml` is looked for there and upwards [default: .]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Let go of the pins of these packages, or of all; says what changes, and who asked for it
    #[arg(long, value_name = "NAME", num_args = 0..)]
    update: Option<Vec<String>>,
}

/// `kiln lock --json`
#[derive(Debug, Serialize)]
struct Locked {
    images: BTreeMap<ImageName, Changes>,
    /// Images that kiln.toml does not have any more: nothing is pinned for them now.
    gone: BTreeMap<ImageName, Gone>,
}

/// What was pinned for an image.
#[derive(Debug, Serialize)]
struct Gone {
    packages: usize,
}

#[derive(Debug, Serialize)]
struct Changes {
    packages: usize,
    /// What is not as it was locked before, by name.
    changes: Vec<Change>,
}

/// One package, or the OCI image an image starts from.
#[derive(Debug, Serialize)]
struct Change {
    name: String,
    /// Its version before; absent if it was not there.
    old: Option<String>,
    /// Its version now; absent if it is gone.
    new: Option<String>,
    /// Who asked for it, or had before it was gone; absent if it was not chosen anew.
    why: Option<String>,
}

pub(crate) fn run(args: &Lock, context: &Context) -> Result<(), Failure> {
    let (from, update) = meant(args)?;
    lock(&from, &update, context).map_err(|failure| with_directory(failure, &update))
}

fn lock(from: &Path, update: &Update, context: &Context) -> Result<(), Failure> {
    let dir = app::checked_directory(from)?;
    let project = Project::load(&dir)?;
    let store = context.store()?;
    let onlooker = Onlooker::new(progress::reporter(context.output))?;
    let result = pipeline::lock(&project, &store, update, &onlooker, &SystemClock);
    let (relocked, _) = onlooker.end(result)?;
    let locked = Locked { images: changes(&relocked), gone: gone(&relocked) };
    context.output.result(&locked, || words_for(&locked))
}

/// Which app, and what of it. Everything behind `--update` arrives as a name; a path among them is DIR, typed last.
fn meant(args: &Lock) -> Result<(PathBuf, Update), Failure> {
    let (behind, names): (Vec<&String>, Vec<&String>) =
        args.update.iter().flatten().partition(|value| is_path(value));
    let mut directories = args.directory.iter().cloned().chain(behind.into_iter().map(PathBuf::from));
    let directory = directories.next().unwrap_or_else(|| ".".into());
    if let Some(other) = directories.next() {
        let message = format!("`{}` and `{}` are two directories", directory.display(), other.display());
        return Err(Failure::new(ExitCode::Usage, message).hint("lock one app, then the other"));
    }
    let update = match (&args.update, names.is_empty()) {
        (None, _) => Update::Nothing,
        (Some(_), true) => Update::All,
        (Some(_), false) => Update::Packages(names.into_iter().cloned().collect()),
    };
    Ok((directory, update))
}

/// Neither packages nor images have such names.
fn is_path(value: &str) -> bool {
    value.contains('/') || value == "." || value == ".."
}

/// Says how a directory is meant, where one was taken for a name.
fn with_directory(failure: Failure, update: &Update) -> Failure {
    let Update::Packages(names) = update else { return failure };
    let directory = names.iter().find(|name| Path::new(name).is_dir());
    match directory.filter(|_| failure.code == ExitCode::Usage) {
        Some(name) => failure.hint(format!(
            "`{name}` is taken for the name of a package or an image; if you mean the directory: `kiln lock {name} --update`"
        )),
        None => failure,
    }
}

fn changes(relocked: &Relocked) -> BTreeMap<ImageName, Changes> {
    let of = |(name, image): (&ImageName, &LockedImage)| {
        let before = relocked.old.as_ref().and_then(|old| old.images.get(name));
        let (old, new) = (before.map(versions).unwrap_or_default(), versions(image));
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let reasons = relocked.reasons.get(name);
        let differing = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
        let change = |name: &String| Change {
            name: name.clone(),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
            why: match reasons.and_then(|all| all.get(name)) {
                Some(reason) => Some(reason.to_string()),
                None => base_changed(before, image),
            },
        };
        (name.clone(), Changes { packages: image.packages.len(), changes: differing.map(change).collect() })
    };
    relocked.new.images.iter().map(of).collect()
}

/// Why something is not as it was where no package was chosen.
fn base_changed(before: Option<&LockedImage>, image: &LockedImage) -> Option<String> {
    let from = &image.request.from;
    match before {
        Some(before) if before.request.from == *from => {
            image.oci.is_some().then(|| "what kiln.toml names is another image now".into())
        }
        _ => Some(format!("kiln.toml starts the image from `{from}`")),
    }
}

fn gone(relocked: &Relocked) -> BTreeMap<ImageName, Gone> {
    let old = relocked.old.iter().flat_map(|old| &old.images);
    let gone = old.filter(|(name, _)| !relocked.new.images.contains_key(*name));
    gone.map(|(name, image)| (name.clone(), Gone { packages: image.packages.len() })).collect()
}

/// What is locked, by name.
fn versions(image: &LockedImage) -> BTreeMap<String, String> {
    let packages = image.packages.iter().map(|p| (p.name.clone(), p.version.clone()));
    let oci =
        image.oci.iter().map(|oci| (image.request.from.clone(), format!("sha256:{}", oci.manifest.hex())));
    packages.chain(oci).collect()
}

fn words_for(locked: &Locked) -> String {
    let mut lines = Vec::new();
    for (name, image) in &locked.images {
        let packages = words::count(image.packages as u64, "package");
        lines.push(match image.changes.len() {
            0 => format!("image {name}: {packages}, as locked before"),
            changed => format!("image {name}: {packages}, {changed} changed"),
        });
        lines.extend(image.changes.iter().map(|change| format!("  {}", line(change))));
    }
    lines.extend(locked.gone.iter().map(|(name, gone)| {
        let packages = words::count(gone.packages as u64, "package");
        format!("image {name}: not in kiln.toml any more; what was pinned for it is gone ({packages})")
    }));
    lines.join("\n")
}

fn line(change: &Change) -> String {
    let why = change.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("{} {old} → {new}{why}", change.name),
        (None, Some(new)) => format!("{} {new} added{why}", change.name),
        (old, None) => format!("{} {} removed{why}", change.name, old.as_deref().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_says_why() {
        let line = |old: Option<&str>, new: Option<&str>, why: &str| {
            let [old, new] = [old, new].map(|version| version.map(str::to_owned));
            super::line(&Change { name: "exim".into(), old, new, why: Some(why.into()) })
        };
        assert_eq!(line(Some("1"), Some("2"), "needed by web"), "exim 1 → 2 (needed by web)");
        assert_eq!(line(None, Some("2"), "needed by web"), "exim 2 added (needed by web)");
        let gone = "nothing asks for it any more; it was needed by web";
        assert_eq!(line(Some("1"), None, gone), format!("exim 1 removed ({gone})"));
    }
}
