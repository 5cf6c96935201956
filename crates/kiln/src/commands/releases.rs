//! `kiln releases`

use clap::{Args, Subcommand};
use kiln_model::{
    Answer, Command, Difference, Failure, Part, Parts, ReleaseAnswer, ReleaseDiffAnswer, ReleaseEntry,
    ReleaseImage, ReleaseState,
};

use crate::app;
use crate::args::Named;
use crate::context::{Context, unexpected};
use crate::table::table;
use crate::words::{bytes, count, moment, shown};

const EXAMPLES: &str = "\
Examples:
  kiln releases                      what there is to go back to, newest first
  kiln releases show r-5d0c          one of them in full; the beginning of its id is enough
  kiln releases diff r-5d0c r-91aa   packages, files, environment, secret versions, routes, limits";

/// What there is to go back to, newest first; one release in full; what differs between two
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Releases {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    named: Named,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One release in full: images, configuration, secret versions, routes, checks
    Show {
        /// The release, or the beginning of its id
        release: String,
    },
    /// What differs between two releases
    Diff {
        /// The one
        from: String,
        /// The other
        to: String,
    },
}

pub(crate) fn run(args: Releases, context: &Context) -> Result<(), Failure> {
    let app = app::name(&args.named);
    let command = match args.what {
        None => Command::Releases { app },
        Some(What::Show { release }) => Command::ReleaseShow { app, release },
        Some(What::Diff { from, to }) => Command::ReleaseDiff { app, from, to },
    };
    match context.ask(&command)? {
        Answer::Releases(releases) => context.output.result(&releases, || words_for(&releases)),
        Answer::Release(release) => context.output.result(&release, || in_full(&release)),
        Answer::ReleaseDiff(diff) => context.output.result(&diff, || differences(&diff)),
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
    let state = match entry.pinned {
        true => format!("{}, pinned", state(entry.state)),
        false => state(entry.state).to_owned(),
    };
    let images = entry.images.iter().map(|(service, image)| format!("{service}={}", image.short()));
    let images = match &entry.damage {
        None => images.collect::<Vec<_>>().join(" "),
        Some(damage) => format!("not known: {damage}"),
    };
    [entry.release.short().to_owned(), state, moment(entry.created), entry.by.clone(), images]
}

fn state(state: ReleaseState) -> &'static str {
    match state {
        ReleaseState::Live => "live",
        ReleaseState::Warm => "warm",
        ReleaseState::Stored => "stored",
    }
}

/// A release as people read it: a line for each thing that is in its digest.
fn in_full(answer: &ReleaseAnswer) -> String {
    let release = &answer.document;
    let pinned = if answer.pinned { ", pinned" } else { "" };
    let mut lines = vec![format!("{} of {}, {}{pinned}", answer.release, release.app, state(answer.state))];
    lines.push(match (answer.created, &answer.by) {
        (Some(created), Some(by)) => format!("first served {} for {by}", moment(created)),
        _ => "never served on this host".into(),
    });
    for (name, parts) in release.parts_of_services() {
        lines.push(format!("service {name}"));
        for part in parts.iter() {
            lines.push(line(part));
            if let (Part::Image, Some(image)) = (part.0, answer.images.get(name)) {
                lines.extend(of_image(image));
            }
            if let (Part::Image, Some(damage)) = (part.0, answer.damaged_images.get(name)) {
                lines.push(format!("  {:<11} nothing can be said of it: {}", "", shown(damage)));
            }
        }
    }
    lines.push("the whole".into());
    lines.extend(Parts::of_release(release).iter().map(line));
    lines.join("\n")
}

fn line((part, name, words): (Part, &str, &str)) -> String {
    let is_variable = part == Part::Env;
    let separator = if is_variable { "=" } else { " " };
    let words = [name, words].into_iter().filter(|w| is_variable || !w.is_empty()).collect::<Vec<_>>();
    format!("  {part:<11} {}", words.join(separator))
}

/// What is known of an image beside its digest.
fn of_image(image: &ReleaseImage) -> Vec<String> {
    let packages = count(image.packages.len() as u64, "package");
    let mut lines = vec![format!("{packages}, {} paths, {}", image.entries, bytes(image.bytes))];
    if let Some(handmade) = &image.handmade {
        let (kept, of) = (handmade.kept.join(", "), &handmade.instance);
        lines.push(format!("handmade: `{}`, {of} with what it held in {kept}", handmade.name));
    }
    lines.into_iter().map(|line| format!("  {:<11} {line}", "")).collect()
}

/// How many single files are shown to people; programs get all.
const FILES: usize = 40;

fn differences(diff: &ReleaseDiffAnswer) -> String {
    if diff.differences.is_empty() {
        return format!("{} and {} are the same", diff.from.short(), diff.to.short());
    }
    let is_file = |d: &&Difference| d.part == Part::File;
    let files = diff.differences.iter().filter(is_file).count();
    let shown = diff.differences.iter().filter(|d| d.part != Part::File);
    let shown = shown.chain(diff.differences.iter().filter(is_file).take(FILES));
    let mut lines: Vec<String> = shown.map(ToString::to_string).collect();
    if files > FILES {
        lines.push(format!("… and {} more files; --json has all of them", files - FILES));
    }
    lines.join("\n")
}
