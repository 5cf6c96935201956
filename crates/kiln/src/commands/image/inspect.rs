//! `kiln image inspect`

use clap::Args;
use kiln_model::{Failure, Fate, ImageRecord, LeftOut, signal};

use super::{AppDirectory, Wanted, find};
use crate::context::Context;
use crate::words;

const EXAMPLES: &str = "\
Examples:
  kiln image inspect web                      how image `web` is run, and what it is made of
  kiln image inspect 5d0c --json | jq .packages";

/// What is recorded of an image: how it is run, its size, its packages
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    app: AppDirectory,
}

pub(crate) fn run(args: &Inspect, context: &Context) -> Result<(), Failure> {
    let store = context.store()?;
    let record = find::find(&args.wanted.image, &args.app.directory, &store)?;
    context.output.result(&record, || words_for(&record))
}

fn words_for(image: &ImageRecord) -> String {
    let run = &image.run;
    let size = words::bytes(image.metadata_bytes + image.content_bytes);
    let signal = signal::name(run.stop_signal).map_or(run.stop_signal.to_string(), str::to_owned);
    let mut lines = vec![
        format!("image     {}", image.digest),
        format!("name      {}", image.name),
        format!("size      {size} in {} paths", image.entries),
        format!("run       {}", run.argv.join(" ")),
        format!("user      {} ({}:{})", run.user, run.uid, run.gid),
        format!("workdir   {}", run.workdir),
        format!("stop      {signal}, killed after {}", words::span(run.stop_grace.0)),
    ];
    if let Some(handmade) = &image.handmade {
        let kept = handmade.kept.join(", ");
        lines.push(format!("handmade  {} over {}, kept {kept}", handmade.instance, handmade.image.short()));
    }
    lines.extend(run.env.iter().map(|(name, value)| format!("env       {name}={value}")));
    lines.extend(
        image.volatile.iter().map(|v| {
            format!("volatile  {} ({}{})", v.path, v.size, if v.exec { ", executable" } else { "" })
        }),
    );
    lines.extend(image.left_out.iter().map(of_one_machine));
    lines.extend(image.packages.iter().map(|p| format!("package   {} {}", p.name, p.version)));
    lines.join("\n")
}

/// What may belong to one machine, and whether the image holds it.
fn of_one_machine(one: &LeftOut) -> String {
    let LeftOut { what, paths, instead, command, fate } = one;
    let paths = paths.join(" ");
    match fate {
        Fate::LeftOut => format!("without   {what} ({paths})\n          {instead}\n          {command}"),
        Fate::Kept => format!("with      {what} ({paths})\n          {instead}"),
    }
}
