//! `kiln image …`, one file each.

mod changes;
mod diff;
mod export;
mod find;
mod inspect;
mod list;
mod name;
mod push;
mod tree;

use clap::{Args, Subcommand};
use kiln_model::Failure;

use crate::context::Context;

const EXAMPLES: &str = "\
Examples:
  kiln image list                         what is in the store
  kiln image tree web /etc                what image `web` of this directory's app has in /etc
  kiln image diff 5d0c 91aa               what differs between two images
  kiln image export web --oci web.tar     for `podman load`, `skopeo copy` and others
  kiln image push web registry.example.com/team/web:1.0";

/// Images: what there is, what is inside, what differs, and out of here
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Image {
    #[command(subcommand)]
    command: ImageCommands,
}

#[derive(Debug, Subcommand)]
enum ImageCommands {
    List(list::List),
    Inspect(inspect::Inspect),
    Tree(tree::Tree),
    Diff(diff::Diff),
    Export(export::Export),
    Push(push::Push),
}

/// The image that is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Wanted {
    /// The image: its digest or the beginning of it, the name of an image of the app in DIR, as baked last, or of a
    /// handmade one
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Where names are looked up.
#[derive(Debug, Clone, Args)]
pub(crate) struct AppDirectory {
    /// Where the app is whose images are meant by name
    #[arg(long = "app-dir", value_name = "DIR", default_value = ".")]
    directory: std::path::PathBuf,
}

pub(crate) fn run(args: &Image, context: &Context) -> Result<(), Failure> {
    match &args.command {
        ImageCommands::List(args) => list::run(args, context),
        ImageCommands::Inspect(args) => inspect::run(args, context),
        ImageCommands::Tree(args) => tree::run(args, context),
        ImageCommands::Diff(args) => diff::run(args, context),
        ImageCommands::Export(args) => export::run(args, context),
        ImageCommands::Push(args) => push::run(args, context),
    }
}
