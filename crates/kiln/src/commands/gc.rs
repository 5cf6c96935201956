//! `kiln gc`

use clap::Args;
use kiln_model::{Answer, ByteSize, Command, Failure, GcAnswer, ImageDigest, Millis};

use crate::context::{Context, unexpected};
use crate::output;
use crate::table::table;
use crate::words::bytes;

const EXAMPLES: &str = "\
Examples:
  kiln gc --dry-run                what would go, and how much space that is
  kiln gc                          all but the 10 newest releases of each app
  kiln gc --keep 3 --older-than 168h --caches
  kiln gc --keep 3 --bytes 20GiB   only as many of those, the oldest first, as it takes to get down to that

What serves, is warm, is under way, is pinned (`kiln pin`), or is what `kiln rollback` goes back to never goes. What a \
deploy left that came to nothing always does. \
Images that no release needs, as `kiln bake` leaves them, go an hour after they were baked: give --images-older-than \
for longer or at once. A dry run lists them. The host that runs is asked, as it alone knows what serves: `kiln serve` \
starts one.";

/// Let old releases go, and what only they need: images, objects, packages, output of their instances
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Gc {
    /// So many releases of each app stay, counted from the newest
    #[arg(long, value_name = "N", default_value_t = 10)]
    keep: u32,
    /// Only releases that first served, or were imported, longer ago than this go, e.g. 720h
    #[arg(long, value_name = "SPAN")]
    older_than: Option<Millis>,
    /// Of the releases that may go only as many do, the oldest first, as it takes until the store is no larger, e.g.
    /// 20GiB
    #[arg(long, value_name = "SIZE")]
    bytes: Option<ByteSize>,
    /// Images that no release needs go if they were baked longer ago than this
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    images_older_than: Millis,
    /// Caches go as well: the next bake takes longer
    #[arg(long)]
    caches: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Gc, context: &Context) -> Result<(), Failure> {
    let command = Command::Gc {
        keep: args.keep,
        older_than: args.older_than,
        bytes: args.bytes,
        images_older_than: Some(args.images_older_than),
        caches: args.caches,
        dry_run: args.dry_run,
    };
    match context.ask(&command)? {
        Answer::Gc(gone) => {
            let told = |(image, damage): (&ImageDigest, &String)| {
                format!("image {} stays, and so do all packages: {damage}", image.short())
            };
            output::warn(&gone.swept.damaged.iter().map(told).collect::<Vec<_>>());
            context.output.result(&gone, || words_for(&gone, args.bytes))
        }
        other => Err(unexpected(&other)),
    }
}

fn words_for(answer: &GcAnswer, limit: Option<ByteSize>) -> String {
    let (verb, goes) = if answer.dry_run { ("would go", "would go") } else { ("are gone", "is gone") };
    let mut rows: Vec<[String; 3]> =
        vec![["release".into(), answer.swept.releases.len().to_string(), String::new()]];
    let amounts = answer.swept.amounts.iter();
    rows.extend(amounts.map(|(kind, a)| [kind.clone(), a.count.to_string(), bytes(a.bytes)]));
    let mut lines = vec![table(["KIND", "NUMBER", "SIZE"], &rows)];
    lines.extend(answer.swept.releases.iter().map(|release| format!("release {} {goes}", release.short())));
    lines.extend(answer.swept.images.iter().map(|(digest, name)| {
        let name = name.as_ref().map_or_else(|| "unnamed".into(), ToString::to_string);
        format!("image {} ({name}) {goes}: no release that stays needs it", digest.short())
    }));
    let (freed, remaining) = (bytes(answer.bytes), bytes(answer.remaining));
    lines.push(format!("{freed} {verb}; {} releases stay, {remaining} in all", answer.kept.len()));
    if limit.is_some_and(|limit| answer.remaining > limit.0) {
        lines.push(
            "that is more than was asked for: fewer releases have to be kept (--keep, `kiln unpin`)".into(),
        );
    }
    lines.join("\n")
}
