//! `kiln lock`

use std::collections::BTreeMap;

use clap::Args;
use kiln_bake::Update;
use kiln_control::{Project, SystemClock, pipeline};
use kiln_model::{Failure, ImageName, Lock as Pins};
use serde::Serialize;

use crate::args::Directory;
use crate::context::Context;
use crate::offline::{self, Onlooker};
use crate::{app, progress, words};

const EXAMPLES: &str = "\
Examples:
  kiln lock                          pin what kiln.toml asks for and kiln.lock does not have yet
  kiln lock --update                 everything in its newest version
  kiln lock --update openssl curl    only these, and what must move with them";

/// Resolve and pin the inputs of all images in kiln.lock
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Lock {
    #[command(flatten)]
    directory: Directory,
    /// Let go of the pins of these packages, or of all
    #[arg(long, value_name = "NAME", num_args = 0..)]
    update: Option<Vec<String>>,
}

/// `kiln lock --json`
#[derive(Debug, Serialize)]
struct Locked {
    images: BTreeMap<ImageName, Changes>,
}

#[derive(Debug, Serialize)]
struct Changes {
    packages: usize,
    /// Packages that were not in the lock before, or in another version.
    changed: Vec<String>,
}

pub(crate) fn run(args: &Lock, context: &Context) -> Result<(), Failure> {
    let dir = app::checked_directory(&args.directory.directory)?;
    let project = Project::load(&dir)?;
    let store = offline::store(&context.root(None))?;
    let onlooker = Onlooker::new(progress::reporter(context.output))?;
    let result = pipeline::lock(&project, &store, &update(args), &onlooker, &SystemClock);
    onlooker.end();
    let (old, new) = result?;
    let locked = Locked { images: changes(old.as_ref(), &new) };
    context.output.result(&locked, || words_for(&locked))
}

fn update(args: &Lock) -> Update {
    match &args.update {
        None => Update::Nothing,
        Some(names) if names.is_empty() => Update::All,
        Some(names) => Update::Packages(names.clone()),
    }
}

fn changes(old: Option<&Pins>, new: &Pins) -> BTreeMap<ImageName, Changes> {
    let of = |(name, image): (&ImageName, &kiln_model::LockedImage)| {
        let before = old.and_then(|old| old.images.get(name)).map_or(&[][..], |image| &image.packages);
        let fresh = image.packages.iter().filter(|package| !before.contains(package));
        let changed = fresh.map(|p| format!("{} {}", p.name, p.version)).collect();
        (name.clone(), Changes { packages: image.packages.len(), changed })
    };
    new.images.iter().map(of).collect()
}

fn words_for(locked: &Locked) -> String {
    let mut lines = Vec::new();
    for (name, image) in &locked.images {
        let packages = words::count(image.packages as u64, "package");
        lines.push(match image.changed.len() {
            0 => format!("image {name}: {packages}, as locked before"),
            changed => format!("image {name}: {packages}, {changed} of them new or changed"),
        });
        lines.extend(image.changed.iter().map(|package| format!("  {package}")));
    }
    lines.join("\n")
}
