//! `kiln gc`

use clap::Args;
use kiln_model::{Answer, Command, Failure, GcAnswer, Millis};

use crate::context::{Context, unexpected};
use crate::table::table;
use crate::words::bytes;

const EXAMPLES: &str = "\
Examples:
  kiln gc --dry-run                what would go, and how much space that is
  kiln gc                          all but the 10 newest releases of each app
  kiln gc --keep 3 --older-than 7d --caches

What serves, is warm, is under way, or is what `kiln rollback` goes back to never goes.";

/// Let old releases go, and what only they need: images, objects, packages, output of their instances
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Gc {
    /// So many releases of each app stay, counted from the newest
    #[arg(long, value_name = "N", default_value_t = 10)]
    keep: u32,
    /// Only releases that first served longer ago than this go, e.g. 30d
    #[arg(long, value_name = "SPAN")]
    older_than: Option<Millis>,
    /// Caches go as well: the next bake takes longer
    #[arg(long)]
    caches: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Gc, context: &Context) -> Result<(), Failure> {
    let (keep, older_than, caches, dry_run) = (args.keep, args.older_than, args.caches, args.dry_run);
    match context.ask(&Command::Gc { keep, older_than, caches, dry_run })? {
        Answer::Gc(gone) => context.output.result(&gone, || words_for(&gone)),
        other => Err(unexpected(&other)),
    }
}

fn words_for(answer: &GcAnswer) -> String {
    let verb = if answer.dry_run { "would go" } else { "are gone" };
    let mut rows: Vec<[String; 3]> =
        vec![["release".into(), answer.swept.releases.len().to_string(), String::new()]];
    let amounts = answer.swept.amounts.iter();
    rows.extend(amounts.map(|(kind, a)| [kind.clone(), a.count.to_string(), bytes(a.bytes)]));
    let total = format!("{} {verb}; {} releases stay", bytes(answer.bytes), answer.kept.len());
    format!("{}\n{total}", table(["KIND", "NUMBER", "SIZE"], &rows))
}
