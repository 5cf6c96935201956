//! `kiln export`

use std::path::PathBuf;

use clap::Args;
use kiln_model::{Answer, Command, ExitCode, Failure};

use crate::app;
use crate::args::Named;
use crate::context::{Context, unexpected};
use crate::words::{bytes, count};

const EXAMPLES: &str = "\
Examples:
  kiln export r-5d0c -o hello.kiln     images, packages, spec, lock and log of a release, as one file
  kiln import hello.kiln               on another machine, without network: the same release id

  kiln export r-5d0c -o hello.kiln --secrets-to age1...     with its secrets, which only the owner of that key can open

Without --secrets-to no secret is in the file. A release names versions, and the same value is the same version \
everywhere: `kiln secret set` on the other machine is enough.";

/// A release with all it needs, as one file
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Export {
    /// The release, or the beginning of its id
    release: String,
    /// The file to write
    #[arg(long, short = 'o', value_name = "FILE")]
    output: PathBuf,
    /// Puts the values of its secrets into the file, encrypted to this public key of age; may be given several times
    #[arg(long, value_name = "RECIPIENT")]
    secrets_to: Vec<String>,
    #[command(flatten)]
    named: Named,
}

pub(crate) fn run(args: Export, context: &Context) -> Result<(), Failure> {
    // What is written is renamed when it is whole: a stream cannot be taken back.
    if args.output.as_os_str() == "-" {
        return Err(Failure::new(
            ExitCode::Usage,
            "an export is a file, there whole or not at all; `-` is none",
        )
        .hint("give -o FILE, and send that; a file of that name is `./-`"));
    }
    let file = std::path::absolute(&args.output).map_err(|e| {
        Failure::new(ExitCode::Usage, format!("`{}` is no path", args.output.display()))
            .because(e.to_string())
    })?;
    let app = app::name(&args.named);
    let command = Command::Export { app, release: args.release, file, secrets_to: args.secrets_to };
    match context.ask(&command)? {
        Answer::Exported(done) => context.output.result(&done, || {
            let secrets = match done.secrets.len() {
                0 => String::new(),
                n => format!(", with {}, encrypted", count(n as u64, "secret")),
            };
            format!("{} is in {}, {}{secrets}", done.release, done.file.display(), bytes(done.bytes))
        }),
        other => Err(unexpected(&other)),
    }
}
