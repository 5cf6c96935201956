//! `kiln import`

use std::path::PathBuf;

use clap::Args;
use kiln_model::{Answer, Command, ExitCode, Failure, ImportAnswer};

use crate::context::{Context, unexpected};

/// A release from a file that `kiln export` wrote; needs no network
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The file
    file: PathBuf,
}

pub(crate) fn run(args: &Import, context: &Context) -> Result<(), Failure> {
    let file = std::path::absolute(&args.file).map_err(|e| {
        Failure::new(ExitCode::Usage, format!("`{}` is no path", args.file.display())).because(e.to_string())
    })?;
    match context.ask(&Command::Import { file })? {
        Answer::Imported(done) => context.output.result(&done, || words_for(&done)),
        other => Err(unexpected(&other)),
    }
}

fn words_for(done: &ImportAnswer) -> String {
    let ImportAnswer { app, release, missing_secrets } = done;
    let mut lines = vec![format!("{release} of {app} is here")];
    let set = missing_secrets.iter().map(|name| format!("`kiln secret set {name} --app {app}` first"));
    lines.extend(set);
    lines.push(format!("`kiln rollback {} --app {app}` has it serve", release.short()));
    lines.join("\n")
}
