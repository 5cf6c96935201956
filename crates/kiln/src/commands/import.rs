//! `kiln import`

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use kiln_api::this_process;
use kiln_control::Offline;
use kiln_model::{Answer, Command, ExitCode, Failure, ImportAnswer, SecretName, SecretValue};
use kiln_store::Beginning;

use crate::context::{Context, require_root, unexpected};
use crate::offline::{self, CallingOff};

const EXAMPLES: &str = "\
Examples:
  kiln import hello.kiln                           a release, its images and packages
  kiln import hello.kiln --identity key.txt        and its secrets, which were encrypted to that key
  kiln import hello.kiln --without-secrets         and leave them where they are

Without a running host the state directory is worked on directly (--root, else the machine's): a host that does not start \
because a release is damaged starts again when that has been imported. One that is named and not there yet is made.";

/// A release from a file that `kiln export` wrote; needs no network
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Import {
    /// The file
    file: PathBuf,
    /// Opens the secrets in it with the key in this file, as `age-keygen` writes it
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Leaves the secrets in it where they are
    #[arg(long, conflicts_with = "identity")]
    without_secrets: bool,
}

pub(crate) fn run(args: &Import, context: &Context) -> Result<(), Failure> {
    let file = std::path::absolute(&args.file).map_err(|e| {
        Failure::new(ExitCode::Usage, format!("`{}` is no path", args.file.display())).because(e.to_string())
    })?;
    let identity = args.identity.as_deref().map(identity).transpose()?;
    match context.client() {
        Ok(_) => {
            let command = Command::Import { file, identity, without_secrets: args.without_secrets };
            match context.ask(&command)? {
                Answer::Imported(done) => context.output.result(&done, || words_for(&done, None)),
                other => Err(unexpected(&other)),
            }
        }
        Err(unreachable) => {
            // Only where one is named or there: one that a host is to be started on, or that keeps it from starting.
            let is_meant = |root: &PathBuf| context.names_a_root() || root.join("version").is_file();
            let root = context.root_without_host().filter(is_meant).ok_or(unreachable)?;
            require_root("kiln import")?;
            let done = without_host(&root, &file, identity.as_ref(), args.without_secrets)?;
            context.output.result(&done, || words_for(&done, Some(&root)))
        }
    }
}

/// Into the state directory itself. One that was made for this goes again if it fails.
fn without_host(
    root: &Path,
    file: &Path,
    identity: Option<&SecretValue>,
    without_secrets: bool,
) -> Result<ImportAnswer, Failure> {
    let calling_off = CallingOff::watch()?;
    let beginning = Beginning::at(root);
    // Its lock is held until all is over.
    let mut offline = Offline::open(offline::store(root)?)?;
    let is_called_off = &|| calling_off.is_asked_for();
    let done = offline.import(file, identity, without_secrets, (&this_process(), is_called_off));
    if let (Err(_), Some(beginning)) = (&done, beginning) {
        beginning.undo();
    }
    calling_off.end(done)
}

/// The text of a file of identities.
fn identity(file: &Path) -> Result<SecretValue, Failure> {
    let unusable = |cause: String| {
        Failure::new(ExitCode::Usage, format!("could not read the identity in `{}`", file.display()))
            .because(cause)
    };
    let mut bytes = Vec::new();
    let most = SecretValue::MOST as u64 + 1;
    let opened = File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes));
    opened.map_err(|e| unusable(e.to_string()))?;
    SecretValue::new(bytes).map_err(|e| unusable(e.to_string()))
}

/// `root` where no host was told: one is to be started there first.
fn words_for(done: &ImportAnswer, root: Option<&Path>) -> String {
    let ImportAnswer { app, release, secrets, missing_secrets } = done;
    let at = root.map(|root| format!(" --root {}", root.display())).unwrap_or_default();
    let mut lines = vec![format!("{release} of {app} is here")];
    if !secrets.is_empty() {
        let names: Vec<&str> = secrets.iter().map(SecretName::as_str).collect();
        lines.push(format!("its secrets are here, too: {}", names.join(", ")));
    }
    let set = missing_secrets.iter().map(|name| format!("`kiln secret set {name} --app {app}{at}` first"));
    lines.extend(set);
    lines.extend(root.map(|_| format!("`kiln serve{at}` starts a host there")));
    lines.push(format!("`kiln rollback {} --app {app}{at}` has it serve", release.short()));
    lines.join("\n")
}
