//! `kiln resume`

use clap::Args;
use kiln_model::{Answer, Command, Failure};
use serde_json::json;

use crate::app;
use crate::args::Named;
use crate::context::{Context, unexpected};

/// Let requests go on that `kiln pause` made wait
#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    named: Named,
}

pub(crate) fn run(args: &Resume, context: &Context) -> Result<(), Failure> {
    match context.ask(&Command::Resume { app: app::name(&args.named) })? {
        Answer::Done => context.output.result(&json!({"paused": false}), || "requests go on".into()),
        other => Err(unexpected(&other)),
    }
}
