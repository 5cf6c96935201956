//! `kiln deploy`

use clap::Args;
use kiln_model::{Command, Failure};

use super::shift;
use crate::app;
use crate::args::Directory;
use crate::context::Context;

const EXAMPLES: &str = "\
Examples:
  kiln deploy                    the app of this directory
  kiln deploy examples/hello     another one
  kiln deploy --locked           only with exactly what kiln.lock says, as in CI
  kiln deploy --json | jq .      one event a line; the last is `deployed` or `failed`";

/// Bake, check, plan, execute: returns when the new release serves all traffic, or has been thrown away
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Deploy {
    #[command(flatten)]
    directory: Directory,
    /// Fail rather than change kiln.lock
    #[arg(long)]
    locked: bool,
    /// Take the place of a deploy or rollback that is under way and does not serve yet, once the images are there
    #[arg(long)]
    supersede: bool,
}

pub(crate) fn run(args: &Deploy, context: &Context) -> Result<(), Failure> {
    let dir = app::checked_directory(&args.directory.directory)?;
    let Deploy { locked, supersede, .. } = *args;
    shift::run(&Command::Deploy { dir, locked, supersede }, context)
}
