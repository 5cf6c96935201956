//! `kiln log`

use clap::Args;
use kiln_api::this_process;
use kiln_model::{Answer, Command, ExitCode, Failure, LogEntry, LogVerifiedAnswer};
use kiln_store::OperationLog;
use serde_json::json;

use crate::context::{Context, require_root, unexpected};
use crate::offline;
use crate::table::table;
use crate::words::{moment, release, shown};

/// Who did what, newest first
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Log {
    /// Only of this app [default: all of the host's]
    #[arg(long, value_name = "NAME")]
    app: Option<kiln_model::AppName>,
    /// At most so many operations
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Follow the hash chain of the whole log instead, and name the first line that is damaged; its last line has none
    /// behind it that vouches for it, so compare the hash it prints with one kept elsewhere
    #[arg(long)]
    verify: bool,
    /// Keep a log that is damaged as it is, and put one in its place from what can be read of it
    #[arg(long, conflicts_with = "verify")]
    repair: bool,
}

const AFTER: &str = "\
Each line of the log holds the hash of the line before. A line that is not what was appended keeps a control plane from \
starting: it cannot know what the host was doing. Whole lines that are missing at its end leave nothing behind that \
would tell. So keep the hash that `--verify` prints elsewhere: as long as nothing up to there is missing it is printed again, \
or stands in the line that was appended next. `--repair` takes nothing away: the damaged file stays beside the log \
under another name, the entries of all lines that can be read follow each other again, and the log says of each app that \
this was done, by whom, and what was wrong. It needs the state directory (--root) and no control plane that runs there; \
instances and edge may run on.";

pub(crate) fn run(args: &Log, context: &Context) -> Result<(), Failure> {
    if args.verify {
        return verify(context);
    }
    if args.repair {
        return repair(context);
    }
    match context.ask(&Command::Log { app: args.app.clone(), limit: args.limit })? {
        Answer::Log(log) => context.output.result(&log, || words_for(&log)),
        other => Err(unexpected(&other)),
    }
}

/// By the host, or, where none runs (one does not start on a log that is damaged), from the state directory.
fn verify(context: &Context) -> Result<(), Failure> {
    let answer = match context.client() {
        Ok(client) => client.run(&Command::LogVerify, &mut |_| {})?,
        Err(unreachable) => {
            let root = context.root_without_host().filter(|root| root.is_dir()).ok_or(unreachable)?;
            let looked = OperationLog::inspect(&offline::store(&root)?);
            let (entries, head) = looked.map_err(|e| Failure::from_error(ExitCode::Host, &e))?;
            Answer::LogVerified(LogVerifiedAnswer { entries, head })
        }
    };
    match answer {
        Answer::LogVerified(sound) => context.output.result(&sound, || {
            format!(
                "{} entries, each with the hash of the one before; the last is {}",
                sound.entries, sound.head
            )
        }),
        other => Err(unexpected(&other)),
    }
}

fn repair(context: &Context) -> Result<(), Failure> {
    require_root("kiln log --repair")?;
    let root = context.root_without_host().unwrap_or_else(|| context.named_root());
    let repaired = kiln_control::repair_log(&root, &this_process())?;
    let told = repaired.as_ref().map_or_else(
        || json!({"repaired": false}),
        |r| json!({"repaired": true, "kept_as": r.kept_as, "damage": r.damage, "entries": r.entries, "left_out": r.left_out}),
    );
    context.output.result(&told, || match repaired {
        None => "nothing is wrong with the log".into(),
        Some(r) => format!(
            "{}\n{} entries follow each other again, {} left out; the damaged log is kept as {}",
            r.damage.join("\n"),
            r.entries,
            r.left_out,
            r.kept_as.display()
        ),
    })
}

fn words_for(log: &[LogEntry]) -> String {
    if log.is_empty() {
        return "nothing has been done yet".into();
    }
    let rows: Vec<[String; 8]> = log.iter().map(row).collect();
    table(["NO", "AT", "BY", "FROM WHERE", "APP", "WHAT", "FROM -> TO", "OUTCOME"], &rows)
}

fn row(entry: &LogEntry) -> [String; 8] {
    let outcome = match &entry.reason {
        Some(reason) => format!("{}: {}", entry.outcome, shown(reason)),
        None => entry.outcome.clone(),
    };
    [
        entry.operation.to_string(),
        moment(entry.at),
        entry.by.clone(),
        entry.origin.as_ref().map_or_else(|| "-".into(), ToString::to_string),
        entry.app.to_string(),
        entry.what.clone(),
        format!("{} -> {}", release(entry.from.as_ref()), release(entry.to.as_ref())),
        outcome,
    ]
}
