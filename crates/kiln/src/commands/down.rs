//! `kiln down`

use clap::Args;
use kiln_model::{Answer, Command, Failure};
use serde_json::json;

use crate::context::{Context, unexpected};
use crate::progress::reporter;

/// Stop everything a host runs, and the host; images, releases and the log stay
#[derive(Debug, Args)]
pub(crate) struct Down {}

pub(crate) fn run(_: &Down, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let mut reporter = reporter(context.output);
    let answer = client.run(&Command::Down, &mut |stamped| reporter.event(&stamped));
    reporter.end();
    match answer? {
        Answer::Done => context.output.result(&json!({"down": true}), || "everything is stopped".into()),
        other => Err(unexpected(&other)),
    }
}
