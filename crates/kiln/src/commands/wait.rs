//! `kiln wait`

use clap::Args;
use kiln_model::{Answer, Command, Failure, WaitAnswer};

use crate::app;
use crate::args::Named;
use crate::context::{Context, unexpected};
use crate::output;
use crate::progress::reporter;

const EXAMPLES: &str = "\
Examples:
  kiln wait                      how what is under way goes on and ends, whoever asked for it
  kiln wait 17                   the same of operation 17 of `kiln log`, also when it has ended
  kiln deploy --supersede        takes the place of what is under way instead";

/// Follow the deploy or rollback that is under way to its end, whoever asked for it; exits as that does
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Wait {
    /// The number of an operation, as `kiln log` shows it [default: what is under way]
    operation: Option<u64>,
    #[command(flatten)]
    named: Named,
}

pub(crate) fn run(args: &Wait, context: &Context) -> Result<(), Failure> {
    let mut reporter = reporter(context.output);
    let command = Command::Wait { app: app::name(&args.named), operation: args.operation };
    let answer = context.client()?.run(&command, &mut |stamped| reporter.event(&stamped));
    reporter.end();
    match answer? {
        Answer::Waited(answer) => {
            context.output.result(&answer, || words_for(&answer))?;
            output::warn(&answer.warnings);
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}

fn words_for(answer: &WaitAnswer) -> String {
    let serving = match &answer.serving {
        Some(release) => format!("{} serves {}", release.short(), answer.app),
        None => format!("nothing serves {}", answer.app),
    };
    match answer.operation {
        Some(number) => format!("operation {number} is done: {serving}"),
        None => format!("nothing is under way: {serving}"),
    }
}
