//! `kiln releases`

use clap::Args;
use kiln_model::{Answer, Command, Failure, ReleaseEntry, ReleaseState};

use crate::app;
use crate::args::Named;
use crate::context::{Context, unexpected};
use crate::table::table;
use crate::words::moment;

/// What there is to go back to, newest first
#[derive(Debug, Args)]
pub(crate) struct Releases {
    #[command(flatten)]
    named: Named,
}

pub(crate) fn run(args: &Releases, context: &Context) -> Result<(), Failure> {
    match context.ask(&Command::Releases { app: app::name(&args.named) })? {
        Answer::Releases(releases) => context.output.result(&releases, || words_for(&releases)),
        other => Err(unexpected(&other)),
    }
}

fn words_for(releases: &[ReleaseEntry]) -> String {
    if releases.is_empty() {
        return "no release has served yet".into();
    }
    let rows: Vec<[String; 5]> = releases.iter().map(row).collect();
    table(["RELEASE", "STATE", "CREATED", "BY", "IMAGES"], &rows)
}

fn row(entry: &ReleaseEntry) -> [String; 5] {
    let state = match entry.state {
        ReleaseState::Live => "live",
        ReleaseState::Warm => "warm",
        ReleaseState::Stored => "stored",
    };
    let images = entry.images.iter().map(|(service, image)| format!("{service}={}", image.short()));
    let images = images.collect::<Vec<_>>().join(" ");
    [entry.release.short().to_owned(), state.to_owned(), moment(entry.created), entry.by.clone(), images]
}
