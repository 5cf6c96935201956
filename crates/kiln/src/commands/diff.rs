//! `kiln diff`

use clap::Args;
use kiln_model::{Answer, Command, DiffAnswer, DiffEntry, DiffKind, Failure, InstanceId};

use crate::context::{Context, unexpected};
use crate::table::table;
use crate::words::{bytes, shown};

/// What an instance has that its image has not
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The instance, as `kiln instances` shows it
    instance: InstanceId,
}

pub(crate) fn run(args: Diff, context: &Context) -> Result<(), Failure> {
    match context.ask(&Command::Diff { instance: args.instance })? {
        Answer::Diff(diff) => context.output.result(&diff, || words_for(&diff)),
        other => Err(unexpected(&other)),
    }
}

fn words_for(diff: &DiffAnswer) -> String {
    let mut lines = diff.drift.iter().map(|drift| format!("drift: {}", shown(drift))).collect::<Vec<_>>();
    if diff.volatile.is_empty() {
        lines.push("its volatile paths are empty".into());
    } else {
        let rows: Vec<[String; 3]> = diff.volatile.iter().map(row).collect();
        lines.push(table(["KIND", "SIZE", "PATH"], &rows));
    }
    if diff.is_cut {
        lines.push("… and more".into());
    }
    if diff.drift.is_empty() {
        lines.push(format!("everything else is as in image {}", diff.image.short()));
    }
    lines.join("\n")
}

fn row(entry: &DiffEntry) -> [String; 3] {
    let (kind, size) = match entry.kind {
        DiffKind::File => ("file", bytes(entry.bytes)),
        DiffKind::Directory => ("directory", "-".into()),
        DiffKind::Symlink => ("link", "-".into()),
        DiffKind::Other => ("other", "-".into()),
    };
    [kind.to_owned(), size, shown(&entry.path)]
}
