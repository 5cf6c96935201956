//! `kiln cancel`

use clap::Args;
use kiln_model::{Answer, Command, Failure};

use crate::app;
use crate::args::Named;
use crate::context::{Context, unexpected};

const EXAMPLES: &str = "\
Examples:
  kiln cancel                    whoever waits for it is told, and exits with 6
  kiln rollback                  undoes a release that serves already";

/// Give up the deploy or rollback that is under way and does not serve yet, whoever asked for it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cancel {
    #[command(flatten)]
    named: Named,
}

pub(crate) fn run(args: &Cancel, context: &Context) -> Result<(), Failure> {
    match context.ask(&Command::Cancel { app: app::name(&args.named) })? {
        Answer::Cancelled(answer) => context.output.result(&answer, || {
            format!("the {} of {}, asked for by {}, is given up", answer.cancelled, answer.app, answer.by)
        }),
        other => Err(unexpected(&other)),
    }
}
