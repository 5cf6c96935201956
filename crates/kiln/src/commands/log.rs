//! `kiln log`

use clap::Args;
use kiln_model::{Answer, Command, Failure, LogEntry};

use crate::context::{Context, unexpected};
use crate::table::table;
use crate::words::{moment, release};

/// Who did what, newest first
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Only of this app [default: all of the host's]
    #[arg(long, value_name = "NAME")]
    app: Option<kiln_model::AppName>,
    /// At most so many operations
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u32>,
}

pub(crate) fn run(args: &Log, context: &Context) -> Result<(), Failure> {
    match context.ask(&Command::Log { app: args.app.clone(), limit: args.limit })? {
        Answer::Log(log) => context.output.result(&log, || words_for(&log)),
        other => Err(unexpected(&other)),
    }
}

fn words_for(log: &[LogEntry]) -> String {
    if log.is_empty() {
        return "nothing has been done yet".into();
    }
    let rows: Vec<[String; 7]> = log.iter().map(row).collect();
    table(["NO", "AT", "BY", "APP", "WHAT", "FROM -> TO", "OUTCOME"], &rows)
}

fn row(entry: &LogEntry) -> [String; 7] {
    let outcome = match &entry.reason {
        Some(reason) => format!("{}: {reason}", entry.outcome),
        None => entry.outcome.clone(),
    };
    [
        entry.operation.to_string(),
        moment(entry.at),
        entry.by.clone(),
        entry.app.to_string(),
        entry.what.clone(),
        format!("{} -> {}", release(entry.from.as_ref()), release(entry.to.as_ref())),
        outcome,
    ]
}
