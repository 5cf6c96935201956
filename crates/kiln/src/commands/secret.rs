//! `kiln secret`

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kiln_api::this_process;
use kiln_control::{LostKey, Offline};
use kiln_model::{
    Answer, AppName, Command, ExitCode, Failure, SecretAnswer, SecretEntry, SecretName, SecretValue,
    SecretVersion,
};
use zeroize::Zeroizing;

use crate::app;
use crate::args::Named;
use crate::context::{Context, require_root, unexpected};
use crate::table::table;
use crate::words::moment;
use crate::{offline, output};

const EXAMPLES: &str = "\
Examples:
  kiln secret set API_KEY < key.txt        from standard input; one line end at its end is left out
  kiln secret set TLS_KEY --file tls.key   a file, exactly as it is
  kiln secret list                         names, versions and the releases that need them; never values
  kiln secret rm API_KEY                   refused while a release that is kept needs it

In kiln.toml, `secrets = [\"API_KEY\"]` gives a service the file /run/secrets/API_KEY, and \
`secrets = [{ name = \"API_KEY\", env = \"API_KEY\" }]` the environment variable as well. A new value is used by the \
next deploy; a rollback goes back to the value its release had. Without a running host the state directory is \
worked on directly (--root, else the machine's).";

/// Values that services need and nobody else may see: set, list, remove
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Secret {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    named: Named,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Give a secret a value, read from standard input or a file, never from an argument
    Set {
        /// Its name: a file under /run/secrets
        name: SecretName,
        /// Read the value from this file, exactly as it is
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Make another key if the one that values were sealed with is gone for good; all of them are to be set again then
        #[arg(long)]
        new_key: bool,
    },
    /// What has been set, in which versions, and which releases need them
    List,
    /// Remove a secret, or one version of it
    Rm {
        /// Its name
        name: SecretName,
        /// Only this version
        #[arg(long, value_name = "VERSION")]
        version: Option<SecretVersion>,
    },
}

pub(crate) fn run(args: Secret, context: &Context) -> Result<(), Failure> {
    let app = app::name(&args.named);
    let command = match args.what {
        What::Set { name, file, new_key } => {
            let value = match &file {
                Some(file) => from_file(file)?,
                None => from_stdin(&name)?,
            };
            Command::SecretSet { app, name, value, new_key }
        }
        What::List => Command::SecretList { app },
        What::Rm { name, version } => Command::SecretRemove { app, name, version },
    };
    match answer(command, context)? {
        Answer::Secret(set) => context.output.result(&set, || words_for_one(&set)),
        Answer::Secrets(all) => context.output.result(&all, || words_for(&all)),
        Answer::Done => context.output.result(&serde_json::json!({"removed": true}), || "removed".into()),
        other => Err(unexpected(&other)),
    }
}

/// From the host, or, where none runs, from the state directory itself.
fn answer(command: Command, context: &Context) -> Result<Answer, Failure> {
    let unreachable = match context.client() {
        Ok(_) => return context.ask(&command),
        Err(failure) => failure,
    };
    let Some(root) = context.root_without_host() else { return Err(unreachable) };
    require_root("kiln secret")?;
    let store = offline::store(&root)?;
    let by = this_process();
    match command {
        Command::SecretSet { app, name, value, new_key } => {
            let (app, lost_key) = (named(app)?, LostKey::of(new_key));
            Offline::open(store)?.set(app, name, &value, lost_key, &by).map(Answer::Secret)
        }
        Command::SecretList { app } => {
            let warn = &mut |warning| output::warn(&[warning]);
            Offline::open(store)?.list(&named(app)?, warn).map(Answer::Secrets)
        }
        Command::SecretRemove { app, name, version } => {
            Offline::open(store)?.remove(named(app)?, name, version, &by).map(|()| Answer::Done)
        }
        _ => Err(unreachable),
    }
}

fn named(app: Option<AppName>) -> Result<AppName, Failure> {
    app.ok_or_else(|| {
        Failure::new(ExitCode::Usage, "secrets belong to an app, and none was named")
            .hint("run it in the app's directory, or name it with --app")
    })
}

fn from_file(file: &Path) -> Result<SecretValue, Failure> {
    let opened = File::open(file).and_then(read);
    let bytes = opened.map_err(|e| {
        Failure::new(ExitCode::Usage, format!("could not read the secret from `{}`", file.display()))
            .because(e.to_string())
    })?;
    value(bytes)
}

fn from_stdin(name: &SecretName) -> Result<SecretValue, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let message = format!("the value of {name} is read from standard input, and that is a terminal");
        return Err(Failure::new(ExitCode::Usage, message)
            .hint(format!("`kiln secret set {name} < FILE`, or name the file with --file")));
    }
    let mut bytes = read(stdin.lock())
        .map_err(|e| Failure::new(ExitCode::Usage, "could not read the secret").because(e.to_string()))?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    value(bytes)
}

/// One byte more than a value may have is enough to know that there are too many. The room is made at once: a
/// buffer that grows leaves copies behind.
fn read(from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(SecretValue::MOST + 64));
    from.take(SecretValue::MOST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn value(mut bytes: Zeroizing<Vec<u8>>) -> Result<SecretValue, Failure> {
    SecretValue::new(std::mem::take(&mut *bytes))
        .map_err(|e| Failure::new(ExitCode::Usage, "this cannot be a secret").because(e.to_string()))
}

fn words_for_one(answer: &SecretAnswer) -> String {
    let SecretEntry { name, number, app, .. } = &answer.entry;
    let version = version(&answer.entry);
    if answer.changed {
        format!("{name} of {app} is {version} (setting {number}); the next deploy uses it")
    } else {
        format!("{name} of {app} is {version} as before")
    }
}

fn words_for(secrets: &[SecretEntry]) -> String {
    if secrets.is_empty() {
        return "no secret has been set".into();
    }
    let rows: Vec<[String; 6]> = secrets.iter().map(row).collect();
    let mut lines = vec![table(["NAME", "VERSION", "NEXT DEPLOY", "SET", "BY", "NEEDED BY"], &rows)];
    lines.extend(secrets.iter().filter_map(|entry| {
        let damage = entry.damage.as_ref()?;
        Some(format!("setting {} of {} cannot be had: {damage}", entry.number, entry.name))
    }));
    lines.join("\n")
}

fn version(entry: &SecretEntry) -> &str {
    entry.version.as_ref().map_or("?", SecretVersion::as_str)
}

fn row(entry: &SecretEntry) -> [String; 6] {
    let releases: Vec<&str> = entry.releases.iter().map(|r| r.short()).collect();
    let state = match (&entry.damage, entry.present) {
        (None, true) => "uses it",
        (None, false) => "-",
        (Some(_), true) => "cannot use it",
        (Some(_), false) => "- (damaged)",
    };
    [
        entry.name.to_string(),
        version(entry).to_owned(),
        state.into(),
        entry.created.map_or_else(|| "?".into(), moment),
        entry.by.clone().unwrap_or_else(|| "?".into()),
        releases.join(" "),
    ]
}
