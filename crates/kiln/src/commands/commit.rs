//! `kiln commit`

use clap::Args;
use kiln_model::{Answer, Command, CommitAnswer, Failure, ImageName, InstanceId};

use crate::context::{Context, unexpected};
use crate::words;

const EXAMPLES: &str = "\
Examples:
  kiln exec hello-web-3-2 -- sh            change what is on a volatile path, and leave the session open
  kiln commit hello-web-3-2 --name fixed   from elsewhere: keep that as the image `fixed`

An instance is replaced when the last session in it ends: commit before that.

What its volatile paths hold becomes part of the image, read-only: those paths are not volatile in it any more. \
/tmp, /var/tmp, /run and /dev/shm are never kept, secrets among them; nor are sockets, device files and extended \
attributes. The same state gives the same image.

A spec uses it with `from = \"image:fixed\"`, and must say `allow_handmade = true` under [policy]: nobody can bake \
such an image again.";

/// The current state of an instance as a new image, marked as handmade
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Commit {
    /// The instance, as `kiln instances` shows it
    instance: InstanceId,
    /// What the image is called; a handmade one that has the name now loses it [default: as the image it was made
    /// from]
    #[arg(long, value_name = "NAME")]
    name: Option<ImageName>,
}

pub(crate) fn run(args: Commit, context: &Context) -> Result<(), Failure> {
    match context.ask(&Command::Commit { instance: args.instance, name: args.name })? {
        Answer::Committed(commit) => context.output.result(&commit, || words_for(&commit)),
        other => Err(unexpected(&other)),
    }
}

fn words_for(commit: &CommitAnswer) -> String {
    let CommitAnswer { image, handmade, .. } = commit;
    let mut lines =
        vec![format!("image {} of {}, called {}", image.short(), handmade.instance, handmade.name)];
    lines.extend(commit.kept.iter().map(|kept| {
        let (entries, size) = (words::count(kept.entries, "path"), words::bytes(kept.bytes));
        format!("kept {} ({entries}, {size}), which is not volatile in it any more", kept.path)
    }));
    lines.extend(commit.left_out.iter().map(|left| format!("left out {}: {}", left.path, left.why)));
    lines.push(format!(
        "it is handmade: `from = \"image:{}\"` needs `allow_handmade = true` under [policy]",
        handmade.name
    ));
    lines.join("\n")
}
