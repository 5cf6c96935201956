//! `kiln logs`

use std::io;
use std::ops::ControlFlow;

use clap::Args;
use kiln_model::{Answer, Command, Event, Failure, InstanceId, ServiceName, Stamped};

use crate::args::Named;
use crate::context::{Context, unexpected};
use crate::progress::output_line;
use crate::{app, output};

const EXAMPLES: &str = "\
Examples:
  kiln logs                      what all instances wrote, those long gone included
  kiln logs -f web               of one service, and on until Ctrl-C
  kiln logs -n 20 --instance hello-web-3-1";

/// What instances wrote, also those long gone
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Logs {
    /// Only of this service
    service: Option<ServiceName>,
    #[command(flatten)]
    named: Named,
    /// Only of this instance
    #[arg(long, value_name = "ID")]
    instance: Option<InstanceId>,
    /// Go on with what is written from now on, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Only the last so many lines
    #[arg(long, short = 'n', value_name = "N")]
    tail: Option<u32>,
}

pub(crate) fn run(args: Logs, context: &Context) -> Result<(), Failure> {
    let app = app::name(&args.named);
    let Logs { service, instance, follow, tail, .. } = args;
    let command = Command::Logs { app, service, instance, follow, tail };
    // When nobody reads on, there is nothing left to ask for.
    let mut written = Ok(());
    let mut to_the_reader = |stamped| {
        written = show(&stamped, context.output.json);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    match context.client()?.run_while(&command, &mut to_the_reader)? {
        Some(Answer::Done) | None => output::given(written),
        Some(other) => Err(unexpected(&other)),
    }
}

fn show(stamped: &Stamped, json: bool) -> io::Result<()> {
    let Event::Output { release, written, instance, stream, line, .. } = &stamped.event else {
        return Ok(());
    };
    match output::json(stamped) {
        Ok(text) if json => output::line(&text),
        _ => {
            // Its name has the service; one that ran for a check alone is of no release.
            let release = release.as_ref().map_or("-", |release| release.short());
            output::line(&output_line(*written, &format!("{release:14} {instance}"), *stream, line))
        }
    }
}
