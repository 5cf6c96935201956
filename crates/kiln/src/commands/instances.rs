//! `kiln instances`

use clap::Args;
use kiln_model::{Answer, Command, Failure, InstanceEntry, InstancePhase};

use crate::context::{Context, unexpected};
use crate::table::table;
use crate::words::{moment, shown};

/// What runs where
#[derive(Debug, Args)]
pub(crate) struct Instances {
    /// Only those of this app [default: all of the host's]
    #[arg(long, value_name = "NAME")]
    app: Option<kiln_model::AppName>,
    /// Also those that were replaced, with why
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: &Instances, context: &Context) -> Result<(), Failure> {
    match context.ask(&Command::Instances { app: args.app.clone(), all: args.all })? {
        Answer::Instances(instances) => context.output.result(&instances, || words_for(&instances)),
        other => Err(unexpected(&other)),
    }
}

fn words_for(instances: &[InstanceEntry]) -> String {
    if instances.is_empty() {
        return "no instance runs".into();
    }
    if instances.iter().all(|i| i.reason.is_none()) {
        let rows: Vec<[String; 6]> = instances.iter().map(row).collect();
        return table(["INSTANCE", "SERVICE", "STATE", "SINCE", "RELEASE", "PID"], &rows);
    }
    let with_reason = |entry| {
        let [id, service, state, since, release, pid] = row(entry);
        [id, service, state, since, release, pid, entry.reason.as_deref().map(shown).unwrap_or_default()]
    };
    let rows: Vec<[String; 7]> = instances.iter().map(with_reason).collect();
    table(["INSTANCE", "SERVICE", "STATE", "SINCE", "RELEASE", "PID", "WHY"], &rows)
}

fn row(entry: &InstanceEntry) -> [String; 6] {
    let state = match entry.state {
        InstancePhase::Starting => "starting",
        InstancePhase::Ready => "ready",
        InstancePhase::Unhealthy => "unhealthy",
        InstancePhase::Stopping => "stopping",
        InstancePhase::Replaced => "replaced",
        InstancePhase::Hook => "hook",
    };
    [
        entry.id.to_string(),
        entry.service.to_string(),
        state.to_owned(),
        moment(entry.since),
        entry.release.short().to_owned(),
        entry.pid.map_or("-".into(), |pid| pid.to_string()),
    ]
}
