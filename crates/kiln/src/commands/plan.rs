//! `kiln plan`

use clap::Args;
use kiln_model::{Answer, Command, Failure, PlanAnswer, PlannedStep};

use crate::args::Directory;
use crate::context::{Context, unexpected};
use crate::progress::reporter;
use crate::{app, words};

const EXAMPLES: &str = "\
Examples:
  kiln plan                      what `kiln deploy` would do here
  kiln plan --json | jq .steps   the same for programs";

/// What a deploy would do and why, without doing it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Plan {
    #[command(flatten)]
    directory: Directory,
}

pub(crate) fn run(args: &Plan, context: &Context) -> Result<(), Failure> {
    let dir = app::checked_directory(&args.directory.directory)?;
    let mut reporter = reporter(context.output);
    let client = context.client()?;
    let answer = client.run(&Command::Plan { dir }, &mut |stamped| reporter.event(&stamped));
    reporter.end();
    match answer? {
        Answer::Plan(plan) => context.output.result(&plan, || words_for(&plan)),
        other => Err(unexpected(&other)),
    }
}

fn words_for(plan: &PlanAnswer) -> String {
    let (from, to) = (words::release(plan.from.as_ref()), plan.to.short());
    let mut text = format!("{}: {from} -> {to}\n", plan.app);
    for change in &plan.changes {
        text.push_str(&format!("  {change}\n"));
    }
    if let Some(why) = &plan.nothing_to_do {
        text.push_str(&format!("nothing to do: {why}\n"));
    }
    text.push_str(&tree(&plan.steps));
    plan.warnings.iter().for_each(|warning| text.push_str(&format!("warning: {warning}\n")));
    text
}

/// The steps in their order, below the part of the plan they belong to.
fn tree(steps: &[PlannedStep]) -> String {
    let mut text = String::new();
    // What makes room is done first, whatever else its like are.
    let mut phase = None;
    let last_of = |at: usize| steps.get(at + 1).is_none_or(|next| next.phase != steps[at].phase);
    for (at, step) in steps.iter().enumerate() {
        if phase != Some(step.phase) {
            phase = Some(step.phase);
            text.push_str(&format!("{}\n", step.phase));
        }
        let (branch, below) = if last_of(at) { ("└─", "  ") } else { ("├─", "│ ") };
        text.push_str(&format!("{branch} {}. {}\n", at + 1, step.step));
        text.push_str(&format!("{below}    because {}\n", step.why));
    }
    text
}
