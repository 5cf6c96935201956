//! `kiln rollback`

use clap::Args;
use kiln_model::{Command, Failure};

use super::shift;
use crate::app;
use crate::args::Named;
use crate::context::Context;

const EXAMPLES: &str = "\
Examples:
  kiln rollback                  to the release that served before
  kiln rollback r-5d0c           to any other; the beginning of its id is enough
  kiln releases                  lists them";

/// Back to the previous release, or to any in the log: image, configuration and routes together
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// The release, or the beginning of its id [default: the previous one]
    release: Option<String>,
    /// The version of the schema that the data has now, where it was brought back to an older one by hand
    #[arg(long, value_name = "VERSION")]
    schema: Option<u32>,
    /// Take the place of a deploy or rollback that is under way and does not serve yet
    #[arg(long)]
    supersede: bool,
    #[command(flatten)]
    named: Named,
}

pub(crate) fn run(args: Rollback, context: &Context) -> Result<(), Failure> {
    let app = app::name(&args.named);
    let Rollback { release, schema, supersede, .. } = args;
    shift::run(&Command::Rollback { app, release, schema, supersede }, context)
}
