//! `kiln image inspect`

use clap::{Args, ValueEnum};
use kiln_control::refused_by_store;
use kiln_model::{ExitCode, Failure, Fate, ImageRecord, LeftOut, signal};

use super::{AppDirectory, Wanted, find};
use crate::context::Context;
use crate::{output, words};

const EXAMPLES: &str = "\
Examples:
  kiln image inspect web                      how image `web` is run, and what it is made of
  kiln image inspect 5d0c --json | jq .packages
  kiln image inspect web --document sbom > web.cdx.json";

/// What is recorded of an image: how it is run, its size, its packages
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    app: AppDirectory,
    /// Instead, a document that belongs to it, as it was written when the image was baked
    #[arg(long, value_name = "WHICH")]
    document: Option<Document>,
}

/// What is written down about every image.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Document {
    /// What is in it: CycloneDX 1.6
    Sbom,
    /// What it was made of, and by what: in-toto, SLSA v1
    Provenance,
}

impl Document {
    fn name(self) -> &'static str {
        match self {
            Self::Sbom => ImageRecord::SBOM,
            Self::Provenance => ImageRecord::PROVENANCE,
        }
    }
}

pub(crate) fn run(args: &Inspect, context: &Context) -> Result<(), Failure> {
    let store = context.store()?;
    let record = find::find(&args.wanted.image, &args.app.directory, &store)?;
    if let Some(document) = args.document {
        let bytes =
            store.image_document(&record.digest, document.name()).map_err(|e| refused_by_store(&e))?;
        let bytes = bytes.ok_or_else(|| {
            Failure::new(
                ExitCode::Usage,
                format!("image {} has no {}", record.digest.short(), document.name()),
            )
            .hint("a version of Kiln before it made it: `kiln bake` makes the document with the image")
        })?;
        // JSON as it is: its digest is in the record.
        return output::given(output::bytes(&bytes));
    }
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
