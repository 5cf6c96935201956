//! `kiln bake`

use clap::Args;
use kiln_control::{Project, SystemClock, pipeline};
use kiln_model::{BakeAnswer, Failure};

use crate::args::Directory;
use crate::context::{Context, require_root};
use crate::offline::Onlooker;
use crate::table::table;
use crate::{app, progress, words};

const EXAMPLES: &str = "\
Examples:
  kiln bake                      the images of this directory's app
  kiln bake --locked --json      in CI: exactly what kiln.lock says, digests for the next step";

/// Lock if needed, and bake; prints the digests of the images
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bake {
    #[command(flatten)]
    directory: Directory,
    /// Fail rather than change kiln.lock
    #[arg(long)]
    locked: bool,
}

pub(crate) fn run(args: &Bake, context: &Context) -> Result<(), Failure> {
    let dir = app::checked_directory(&args.directory.directory)?;
    require_root("kiln bake")?;
    let project = Project::load(&dir)?;
    let store = context.store()?;
    let onlooker = Onlooker::new(progress::reporter(context.output))?;
    let result = pipeline::bake(&project, &store, args.locked, &onlooker, &SystemClock);
    let (_, baked) = onlooker.end(result)?;
    context.output.result(&baked, || words_for(&baked))
}

fn words_for(baked: &BakeAnswer) -> String {
    let row = |(name, image): (&kiln_model::ImageName, &kiln_model::BakedImage)| {
        let state = if image.reused { "unchanged" } else { "baked" };
        let (packages, size) = (image.packages.to_string(), words::bytes(image.bytes));
        [name.to_string(), image.digest.to_string(), packages, size, state.to_owned()]
    };
    let rows: Vec<[String; 5]> = baked.images.iter().map(row).collect();
    let mut text = table(["IMAGE", "DIGEST", "PACKAGES", "SIZE", ""], &rows);
    for (name, image) in &baked.images {
        for left_out in &image.left_out {
            text.push_str(&format!("\n{name}: {left_out}"));
        }
    }
    text
}
