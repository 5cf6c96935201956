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
/// its mounts, user and rights with its release. What differs is named, and the exit code is 9.
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

fn hint(answer: &VerifyAnswer, repaired: bool) -> &'static str {
    let is_of_release =
        |damage: &DamageEntry| damage.path.parent().is_some_and(|dir| dir.ends_with("releases"));
    if !answer.damage.is_empty() && answer.damage.iter().all(is_of_release) {
        return "a release is written again by `kiln import` of an export of it, or by a deploy of the spec and the lock \
                it was made from; no bake does";
    }
    match (answer.damage.is_empty(), repaired) {
        (true, _) => "an instance that differs is replaced when it ends: `kiln instances` has its process",
        (false, true) => "run `kiln bake` for what was removed to be made again, then `kiln verify`",
        (false, false) => {
            "`kiln verify --repair` removes objects, images and packages that are damaged, and the next `kiln bake` of \
             what needs them makes them again"
        }
    }
}
