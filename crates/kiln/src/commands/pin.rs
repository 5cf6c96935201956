//! `kiln pin`, `kiln unpin`

use clap::Args;
use kiln_model::{Answer, Command, Failure, PinAnswer};

use crate::app;
use crate::args::Named;
use crate::context::{Context, unexpected};

const PIN: &str = "\
Examples:
  kiln pin r-5d0c                `kiln gc` leaves it alone from now on, however old it gets
  kiln releases                  shows what is pinned
  kiln unpin r-5d0c              it may go with the others again";

/// Keep a release, and all that is needed to go back to it, whatever `kiln gc` is told
#[derive(Debug, Args)]
#[command(after_help = PIN)]
pub(crate) struct Pin {
    /// The release, or the beginning of its id
    release: String,
    #[command(flatten)]
    named: Named,
}

/// Let a pinned release go with the others again
#[derive(Debug, Args)]
pub(crate) struct Unpin {
    /// The release, or the beginning of its id
    release: String,
    #[command(flatten)]
    named: Named,
}

pub(crate) fn pin(args: Pin, context: &Context) -> Result<(), Failure> {
    let app = app::name(&args.named);
    tell(context, &Command::Pin { app, release: args.release })
}

pub(crate) fn unpin(args: Unpin, context: &Context) -> Result<(), Failure> {
    let app = app::name(&args.named);
    tell(context, &Command::Unpin { app, release: args.release })
}

fn tell(context: &Context, command: &Command) -> Result<(), Failure> {
    match context.ask(command)? {
        Answer::Pinned(answer) => context.output.result(&answer, || words_for(&answer)),
        other => Err(unexpected(&other)),
    }
}

fn words_for(answer: &PinAnswer) -> String {
    let release = answer.release.short();
    match (answer.pinned, answer.changed) {
        (true, true) => format!("{release} stays until it is unpinned"),
        (true, false) => format!("{release} is pinned already"),
        (false, true) => format!("{release} may go with the others again"),
        (false, false) => format!("{release} is not pinned"),
    }
}
