//! `kiln pause`

use clap::Args;
use kiln_model::{Answer, Command, Failure, Millis};
use serde_json::json;

use crate::app;
use crate::args::Named;
use crate::context::{Context, unexpected};

const EXAMPLES: &str = "\
Examples:
  kiln pause                     requests wait, for at most 30s each
  kiln pause --wait 5s           those that come while nobody can serve them
  kiln resume                    lets them go on";

/// Have the app's requests wait at the edge, for a change that nobody can be served during
///
/// Nothing that is under way is touched. Requests that have waited for too long, or that are too many, are answered
/// with 503 and Retry-After. A release that is deployed meanwhile gets those that wait.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Pause {
    #[command(flatten)]
    named: Named,
    /// How long a request waits at most
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    wait: Millis,
}

pub(crate) fn run(args: &Pause, context: &Context) -> Result<(), Failure> {
    let wait = args.wait;
    match context.ask(&Command::Pause { app: app::name(&args.named), wait })? {
        Answer::Done => context.output.result(&json!({"paused": true, "wait": wait}), || {
            format!("requests wait at the edge, for at most {wait} each; `kiln resume` lets them go on")
        }),
        other => Err(unexpected(&other)),
    }
}
