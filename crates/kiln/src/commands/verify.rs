//! `kiln verify`

use std::collections::BTreeSet;

use clap::Args;
use kiln_model::{Answer, Command, DamageEntry, ExitCode, Failure, ImageDigest, InstanceId, VerifyAnswer};

use crate::context::{Context, unexpected};
use crate::{offline, output, words};

const EXAMPLES: &str = "\
Examples:
  kiln verify             the host's store and every running instance; without a host, the store in --root
  kiln verify --repair    remove what is damaged: the next bake makes it again";

/// Whether everything is what it should be: hashes the store again, compares every instance with its release
///
/// Of each running instance the root file system is compared with its image (names, kinds, modes, owners, times, sizes),
/// its mounts, user, rights and secrets with its release. What differs is named, never a secret's value, and the exit code
/// is 9.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// Remove damaged objects, images and packages, so that the next bake makes them again
    #[arg(long)]
    repair: bool,
}

pub(crate) fn run(args: &Verify, context: &Context) -> Result<(), Failure> {
    let answer = match context.client() {
        Ok(host) => match host.run(&Command::Verify { repair: args.repair }, &mut |_| {})? {
            Answer::Verify(answer) => answer,
            other => return Err(unexpected(&other)),
        },
        // Where a host is, its failures are no reason to look elsewhere.
        Err(unreachable) => {
            let root = context.root_without_host().filter(|root| root.join("version").is_file());
            let root = root.ok_or(unreachable)?;
            output::aside("no host runs here: only its store is looked at");
            kiln_control::verify_store(&offline::store(&root)?, args.repair)?
        }
    };
    context.output.result(&answer, || words_for(&answer))?;
    if answer.is_well() {
        return Ok(());
    }
    // What is wrong has been told in full, to people and to programs.
    context.told.set(true);
    Err(Failure::new(ExitCode::Host, "not everything is what it should be").hint(hint(&answer, args.repair)))
}

fn words_for(answer: &VerifyAnswer) -> String {
    let mut lines: Vec<String> = answer.damage.iter().map(damaged).collect();
    lines.extend(answer.removed.iter().map(|path| format!("removed {}", path.display())));
    for instance in &answer.instances {
        let differs = instance.differs.iter();
        lines.extend(differs.map(|what| format!("instance {} of {}: {what}", instance.id, instance.service)));
    }
    let well = answer.instances.iter().filter(|i| i.differs.is_empty()).count();
    lines.push(format!(
        "{} looked at again, {} damaged; {} compared, {} as released",
        words::count(answer.looked_at, "file"),
        answer.damage.len(),
        words::count(answer.instances.len() as u64, "instance"),
        well,
    ));
    lines.join("\n")
}

/// What is wrong with a file, and who needs it.
fn damaged(damage: &DamageEntry) -> String {
    fn list<T>(what: &str, all: &BTreeSet<T>, name: impl Fn(&T) -> String) -> Option<String> {
        let names: Vec<String> = all.iter().map(name).collect();
        (!all.is_empty()).then(|| format!("{what} {}", names.join(", ")))
    }
    let needing = [
        list("image", &damage.images, ImageDigest::short),
        list("release", &damage.releases, |release| release.short().to_owned()),
        list("running instance", &damage.instances, InstanceId::to_string),
    ];
    let needing: Vec<String> = needing.into_iter().flatten().collect();
    let needing =
        if needing.is_empty() { String::new() } else { format!(" (needed by {})", needing.join("; ")) };
    format!("{}: {}{needing}", damage.path.display(), damage.problem)
}

/// What kinds of damage there are, in the order of the hints about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Log,
    Release,
    Secret,
    Made,
}

impl Kind {
    fn of(damage: &DamageEntry) -> Self {
        // The key of secrets is in their directory itself, a value three further down.
        let is_in =
            |part: &str, depth| damage.path.ancestors().nth(depth).is_some_and(|dir| dir.ends_with(part));
        let kinds = [("log", 1, Self::Log), ("releases", 1, Self::Release)];
        let secrets = [("secrets", 1, Self::Secret), ("secrets", 3, Self::Secret)];
        let found = kinds.into_iter().chain(secrets).find(|(part, depth, _)| is_in(part, *depth));
        found.map_or(Self::Made, |(_, _, kind)| kind)
    }

    fn hint(self, repaired: bool) -> &'static str {
        match (self, repaired) {
            (Self::Log, _) => "`kiln log --repair` puts the log together again",
            (Self::Release, _) => {
                "a release is written again by `kiln import` of an export of it, or by a deploy of the spec and the lock \
                 it was made from; no bake does"
            }
            (Self::Secret, _) => {
                "`kiln secret set NAME` of what `kiln secret list` marks seals the value again, where the key is gone with \
                 --new-key; a key from a backup opens what was sealed with it"
            }
            (Self::Made, true) => "run `kiln bake` for what was removed to be made again, then `kiln verify`",
            (Self::Made, false) => {
                "`kiln verify --repair` removes objects, images and packages that are damaged, and the next `kiln bake` of \
                 what needs them makes them again"
            }
        }
    }
}

fn hint(answer: &VerifyAnswer, repaired: bool) -> String {
    let kinds: BTreeSet<Kind> = answer.damage.iter().map(Kind::of).collect();
    if kinds.is_empty() {
        return "an instance that differs is replaced when it ends: `kiln instances` has its process".into();
    }
    kinds.into_iter().map(|kind| kind.hint(repaired)).collect::<Vec<_>>().join("; ")
}
